"""The interface that a sparse-training method implements: Method, Phase and Context."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from methods.layers import MaskableWeight
from methods.masks import Masks
from methods.thresholds import Thresholds

DensityPromise = Literal["dense", "exact", "final", "emergent"]


@dataclass(frozen=True)
class Phase:
    """A stretch of training. new_optimizer: it starts with a fresh one. lr: `continue` the
    schedule, `restart` it, or a constant learning rate.
    """

    name: str
    steps: int
    new_optimizer: bool = False
    lr: Literal["continue", "restart"] | float = "continue"


@dataclass(kw_only=True)
class Context:
    """What a method's hooks see and act on.

    step counts the completed optimizer steps: 0 in the first after_backward, 1 in the first
    after_step. generator: a CPU generator, the method's only source of randomness.
    """

    model: nn.Module
    weights: Mapping[str, MaskableWeight]
    masks: Masks
    thresholds: Thresholds
    generator: torch.Generator
    total_steps: int
    steps_per_epoch: int
    phase: Phase
    loss_fn: Callable[[Tensor, Tensor], Tensor]
    train_batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]
    optimizer: torch.optim.Optimizer | None = None
    step: int = 0

    @property
    def lr(self) -> float:
        """The learning rate of the optimizer's first group."""
        assert self.optimizer is not None, "no optimizer is bound yet"
        return float(self.optimizer.param_groups[0]["lr"])


class Method:
    """Base of every method. Every hook has a default that does nothing.

    A subclass takes its hyperparameters as keyword arguments of its constructor, each with a type
    and stored under its own name (a dataclass does), and raises ValueError for values out of range.
    version is raised whenever behaviour changes. density_promise: `dense` keeps all weights,
    `exact` its density after every step, `final` at the end, `emergent` promises none.
    grown_state: `zero` where the optimizer's state of weights masked in place starts at 0 when they
    are grown, `keep` where it stays. weight_gradient: whether the weight's gradient costs the
    arithmetic of a dense or a sparse layer. threshold_weight_decay: of the thresholds, in `parameter_groups`.
    added: hyperparameters that the method got after its first release, each with its default, at which the
    method behaves as before. At that value they are no part of `identity`, so that cells, checkpoints and
    tables from before the addition stay valid.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    reference: ClassVar[str]
    density_promise: ClassVar[DensityPromise]
    grown_state: ClassVar[Literal["zero", "keep"]] = "zero"
    weight_gradient: ClassVar[Literal["dense", "sparse"]] = "sparse"
    added: ClassVar[Mapping[str, Any]] = {}
    threshold_weight_decay: float = 0.0

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """The phases of a training of total_steps; one by default."""
        return (Phase("train", total_steps),)

    def enter_phase(self, ctx: Context) -> None:
        """Wrap, score and prune, before the phase's optimizer is made."""

    def penalty(self, ctx: Context) -> Tensor | None:
        """A 0-dim tensor added to the task loss, or None."""
        return None

    def after_backward(self, ctx: Context) -> bool:
        """Runs with gradients at hand. False: this update takes the place of optimizer.step()."""
        return True

    def after_step(self, ctx: Context) -> None:
        """Runs after every step, pruned weights already zeroed."""

    def state_dict(self) -> dict[str, Any]:
        """What the method itself remembers: plain values and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what state_dict returned."""

    @classmethod
    def hyperparameter_names(cls) -> list[str]:
        parameters = inspect.signature(cls.__init__).parameters.values()
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return [p.name for p in parameters if p.name != "self" and p.kind not in variadic]

    def hyperparameters(self) -> dict[str, Any]:
        """Every hyperparameter with its value, defaults included."""
        return {name: getattr(self, name) for name in self.hyperparameter_names()}

    @classmethod
    def added_hyperparameters(cls) -> dict[str, Any]:
        """`added` of the class and of its bases: each name with its default."""
        return {name: value for base in reversed(cls.__mro__) for name, value in vars(base).get("added", {}).items()}

    def identity(self) -> dict[str, Any]:
        """The hyperparameters, without those in `added` that have their default."""
        added = self.added_hyperparameters()
        return {
            name: value for name, value in self.hyperparameters().items() if name not in added or value != added[name]
        }


def check_fraction(name: str, value: float, *, low_open: bool = True) -> None:
    """Raises ValueError unless the value lies in (0, 1], or in [0, 1] where low_open is False."""
    if not (0 < value <= 1 or (value == 0 and not low_open)):
        raise ValueError(f"{name} is {value}: it must lie in {'(' if low_open else '['}0, 1]")


def check_choice(name: str, value: str, valid: Iterable[str]) -> None:
    """Raises ValueError unless the value is one of the valid ones."""
    if value not in (choices := list(valid)):
        raise ValueError(f"{name} is '{value}'; valid: {', '.join(choices)}")
