"""Dynamic network surgery."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from methods import scores
from methods.base import Context, Method, Phase, check_fraction, check_positive
from methods.density_search import DensityKnob

PRUNED_BELOW = 0.9  # a_k and b_k, as multiples of T_k
SPLICED_ABOVE = 1.1


@dataclass(kw_only=True)
class DNS(Method):
    """Prunes the small weights of a trained network, and restores those that grow large again.

    Guo, Yao, Chen, "Dynamic network surgery for efficient DNNs", NeurIPS 2016, arXiv:1608.04493.

    A network is trained, and then trained again under surgery. Layers compute with W * T, where T
    is a mask, and all of W is updated with the gradient of that product (eq. 3). At step t of the
    surgery the mask of each layer k is updated, with probability (1 + gamma t)^-p, to (eq. 4)
        0 where |W| <= a_k,    1 where |W| > b_k,    and stays as it is between them,
    with a_k = 0.9 T_k, b_k = 1.1 T_k and T_k = max(mu_k + c_k sigma_k, 0). mu_k and sigma_k are the
    mean and the standard deviation of |W| when the surgery begins, over the weights that are not 0.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | threshold_scale | c_k | one for each layer; authors' example: 4 in LeNet-5's first linear layer |
    | frequency_decay | gamma | authors' example: 1e-4 |
    | frequency_power | p | authors' example: 1 |
    | stops_at | iter_stop / steps of the surgery | authors' example: 14,000 steps |
    | pretraining | | 1: the reference network is trained in full |

    The density follows from c_k. A layer whose weights are all at most a_k loses all of them.

    pretraining: the steps of the first training, in units of total_steps; 0 where the model is
    trained already. The surgery takes total_steps, so that both take twice total_steps by default.
    threshold_scale: one number for all layers, or one for each.

    Departures: the authors' code also prunes biases and includes them in mu and sigma; here it does
    neither. The surgery starts with a fresh optimizer, and the learning-rate schedule restarts.
    """

    name = "dns"
    version = 1
    reference = "arXiv:1608.04493"
    density_promise = "emergent"
    masking = "forward"
    weight_gradient = "dense"
    density_knob = DensityKnob(name="threshold_scale", low=0.01, high=100.0)

    threshold_scale: float | tuple[float, ...] = 1.0
    frequency_decay: float = 1e-4
    frequency_power: float = 1.0
    stops_at: float = 0.75
    pretraining: float = 1.0
    _thresholds: dict[str, float] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for scale in self._scales(1):
            if not math.isfinite(scale):
                raise ValueError(f"threshold_scale is {self.threshold_scale}: it must be finite")
        for name in ("frequency_decay", "frequency_power", "pretraining"):
            check_positive(name, getattr(self, name), or_zero=True)
        check_fraction("stops_at", self.stops_at, low_open=False)

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        if self.pretraining == 0:
            return (Phase("surgery", total_steps),)
        first = Phase("train", max(1, round(self.pretraining * total_steps)))
        return first, Phase("surgery", total_steps, new_optimizer=True, lr="restart")

    def enter_phase(self, ctx: Context) -> None:
        scales = self._scales(len(ctx.weights))
        if len(scales) != len(ctx.weights):
            raise ValueError(f"dns: threshold_scale has {len(scales)} numbers for {len(ctx.weights)} layers")
        if ctx.phase.name == "surgery":
            self._thresholds = {
                n: threshold(w.parameter, c) for (n, w), c in zip(ctx.weights.items(), scales, strict=True)
            }
            self.operate(ctx)

    def after_step(self, ctx: Context) -> None:
        if ctx.phase.name == "surgery" and ctx.phase_step < self.stops_at * ctx.phase.steps:
            self.operate(ctx)

    def operate(self, ctx: Context) -> None:
        """Update the masks of randomly drawn layers by eq. 4."""
        drawn = torch.rand(len(ctx.weights), generator=ctx.generator, dtype=torch.float64, device="cpu").tolist()
        masks = {}
        for (name, limit), number in zip(self._thresholds.items(), drawn, strict=True):
            if number < self.probability(ctx.phase_step):
                size = scores.magnitude(ctx.weights[name].parameter)
                masks[name] = (ctx.masks[name] & (size > PRUNED_BELOW * limit)) | (size > SPLICED_ABOVE * limit)
        ctx.masks.set(masks)

    def probability(self, t: int) -> float:
        """The probability that a layer's mask is updated at step t of the surgery."""
        return float((1 + self.frequency_decay * t) ** -self.frequency_power)

    def _scales(self, layers: int) -> tuple[float, ...]:
        scale = self.threshold_scale
        return scale if isinstance(scale, tuple) else (scale,) * layers

    def state_dict(self) -> dict[str, Any]:
        return {"thresholds": self._thresholds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._thresholds = dict(state["thresholds"])


def threshold(weight: torch.Tensor, scale: float) -> float:
    """T_k of one layer."""
    size = scores.magnitude(weight)
    size = size[size != 0]
    if not len(size):
        return 0.0
    return max(float(size.mean() + scale * size.std(correction=0)), 0.0)
