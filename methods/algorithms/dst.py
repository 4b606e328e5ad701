"""Dynamic Sparse Training: trainable pruning thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from methods.base import Context, Method, check_choice, check_fraction, check_positive
from methods.checks.bound_optimizer import innermost
from methods.density_search import DensityKnob
from methods.thresholds import ESTIMATORS, SHAPES, check_reset_rule

REFLECTED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


@dataclass(kw_only=True)
class DST(Method):
    """Learns a pruning threshold for each neuron or filter, together with the weights.

    Liu, Xu, Shi, Cheung, So, "Dynamic Sparse Training: Find Efficient Sparse Network From Scratch
    With Trainable Masked Layers", ICLR 2020, arXiv:2005.06870.

        Q_ij = |W_ij| - t_i                                   (1)
        M_ij = S(Q_ij), the layer computes with W * M          (2)
        dS/dx ~ H(x)                                          (3; `thresholds.long_tailed`)
        L_s  = sum over layers and i of exp(-t_i)              (4)
        J    = task loss + alpha * L_s                        (5)

    The backward pass is that of appendix A.3 (`thresholds.gradients`). Thresholds start at 0.
    Where a layer keeps less than reset_density of its weights, its thresholds return to 0 (A.1;
    `thresholds.ResetRule`); those of recurrent layers do not.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | alpha | alpha | 5e-4 LeNets, 1e-3 LSTM, 5e-6 CIFAR-10 |
    | threshold | t, scalar t, T (7) | vector |
    | estimator | H(x), STE | long_tailed |
    | reset_density | "more than 99 %" | 0.01; None never resets |
    | threshold_weight_decay | not stated | 0 |
    | initial_threshold | t at the start and after a reset | 0 |
    | absolute_threshold | the absolute value of t takes its place | False |
    | reset_rule | what is reset in a layer below reset_density | layer |

    reset_rule: `layer` returns all thresholds of the layer to 0, and leaves recurrent layers;
    `recurrent_too` does so in these too; `once` does so at most once for each layer; `empty_units`
    returns only the thresholds of neurons or filters that keep no weight (vector thresholds). Only
    `layer` is in the paper; the others are ours, to study it. All keep the momentum of thresholds.

    A weight of exactly 0 at a threshold of 0 is pruned and gets no gradient, so a layer that is
    initialised at 0 never trains, and is reset in every step; `attach` warns of it. With a small
    negative initial_threshold, such as -1e-4, such weights are kept at the start and after each
    reset, and train from there.

    With absolute_threshold, |t| takes the place of t in (1) and (4): where t is negative after a
    step, t and its momentum change their sign (`Thresholds.reflect_`), which trains |t| exactly.

    Departures: (a) the authors' code resets at a keep ratio of exactly 1 % too; the paper and this
    class reset below it. (b) The authors' code tests the keep ratio in every forward pass,
    evaluation included; this class tests it after every step. Training and evaluation see the same
    masks either way, because weights change only in steps. The optimizer's momentum of reset
    thresholds is kept, as in the authors' code.
    """

    name = "dst"
    version = 1
    reference = "arXiv:2005.06870"
    density_promise = "emergent"
    weight_gradient = "dense"
    added: ClassVar[dict[str, Any]] = {
        "initial_threshold": 0.0,
        "absolute_threshold": False,
        "reset_rule": "layer",
    }
    density_knob = DensityKnob(name="alpha", low=1e-8, high=1.0)

    alpha: float = 5e-4
    threshold: str = "vector"
    estimator: str = "long_tailed"
    reset_density: float | None = 0.01
    threshold_weight_decay: float = 0.0
    initial_threshold: float = 0.0
    absolute_threshold: bool = False
    reset_rule: str = "layer"

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("threshold_weight_decay", self.threshold_weight_decay)):
            check_positive(name, value, or_zero=True)
        check_choice("threshold", self.threshold, SHAPES)
        check_choice("estimator", self.estimator, ESTIMATORS)
        check_reset_rule(self.reset_rule, self.threshold)
        if self.reset_density is None and self.reset_rule != "layer":
            raise ValueError("reset_density is None, so nothing is reset: leave out reset_rule")
        if self.reset_density is not None:
            check_fraction("reset_density", self.reset_density)
        if not float("-inf") < self.initial_threshold <= 0:
            raise ValueError(
                f"initial_threshold is {self.initial_threshold}: it must be 0 or less, so that the network starts dense"
            )
        if self.absolute_threshold and self.initial_threshold < 0:
            raise ValueError(
                f"absolute_threshold with an initial_threshold of {self.initial_threshold} starts with pruned weights: "
                "use an initial_threshold of 0"
            )

    def enter_phase(self, ctx: Context) -> None:
        ctx.thresholds.attach(
            shape=self.threshold,
            estimator=self.estimator,
            initial=self.initial_threshold,
            reset_below=self.reset_density,
            reset_rule=self.reset_rule,
        )

    def penalty(self, ctx: Context) -> Tensor:
        return ctx.thresholds.regularization(self.alpha)

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        kind = type(innermost(optimizer))
        if self.absolute_threshold and kind not in REFLECTED:
            raise ValueError(
                f"dst: absolute_threshold changes the sign of momentum, which is not known for {kind.__name__}: "
                f"use {', '.join(known.__name__ for known in REFLECTED)}"
            )

    def after_step(self, ctx: Context) -> None:
        if self.absolute_threshold:
            ctx.thresholds.reflect_(ctx.optimizer)
        ctx.thresholds.update_(reset_below=self.reset_density)
