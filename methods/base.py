"""The interface that a sparse-training method implements: Method, Phase and Context."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from methods.budgets import least_density
from methods.density_search import DensityKnob
from methods.execution import Execution
from methods.layers import MaskableWeight
from methods.masked_layers import Thresholds
from methods.masks import Masks
from methods.schedules import steps_of

MOST_PHASES = 1000  # of one training: more are a mistake, and would fill the memory
DensityPromise = Literal["dense", "exact", "final", "emergent"]
ATTRIBUTES = {
    "name": "my_method",
    "version": 1,
    "reference": "arXiv:1506.02626",
    "density_promise": "final",
}  # examples


@dataclass(frozen=True)
class Phase:
    """One part of a training.

    new_optimizer: the phase starts with a fresh optimizer. lr: `continue` the learning-rate
    schedule, `restart` it, or a constant learning rate. lr_scale: multiplies the schedule's rate.
    """

    name: str
    steps: int
    new_optimizer: bool = False
    lr: Literal["continue", "restart"] | float = "continue"
    lr_scale: float = 1.0


@dataclass(kw_only=True)
class Context:
    """What a method's hooks see and act on.

    with_gradient: names of the weights that had a gradient in the optimizer's step that was just
    made, also where the optimizer cleared it; empty in after_backward. step counts the completed
    optimizer steps: 0 in the first after_backward, 1 in the first after_step; phase_start: what it
    was when the phase began. generator: a CPU generator, the method's only source of randomness.
    scored_examples: examples that were passed through the model to score weights
    (`methods.scoring`), outside of the training steps. process_group: that of `bind`; None before it.
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
    phase_start: int = 0
    scored_examples: int = 0
    method_name: str = ""
    process_group: Any = None
    execution: Execution = field(default_factory=Execution)
    with_gradient: frozenset[str] = frozenset()

    @property
    def phase_step(self) -> int:
        """The completed steps of this phase."""
        return self.step - self.phase_start

    def kept_count(self, density: float) -> int:
        """How many weights of all layers a density keeps: round(density * weights).

        Raises ValueError where it keeps none.
        """
        if (count := round(density * self.total_weights)) < 1:
            raise ValueError(
                f"{self.method_name}: density {density:g} keeps none of {self.total_weights} weights; give a density "
                f"of at least {least_density(1, self.total_weights):g}"
            )
        return count

    @property
    def total_weights(self) -> int:
        """The number of maskable weights."""
        return self.masks.total

    def state_dict(self) -> dict[str, Any]:
        """The clock, the generator, the masks, the structure of the thresholds, and what was attached how."""
        scored = {"scored_examples": self.scored_examples} if self.scored_examples else {}
        chosen = {} if self.execution.choice == "dense" else {"execution": self.execution.state_dict()}
        return {
            "step": self.step,
            "generator": self.generator.get_state(),
            "masks": self.masks.state_dict(),
            "thresholds": self.thresholds.state_dict(),
            "attach": self.attach_arguments(),
            **scored,
            **chosen,
        }

    def attach_arguments(self) -> dict[str, Any]:
        """What a resumed training has to be attached with too: the steps, and the names of the maskable weights."""
        steps = {"total_steps": self.total_steps, "steps_per_epoch": self.steps_per_epoch}
        return {**steps, "weights": list(self.weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what state_dict returned."""
        self.step, self.scored_examples = state["step"], state.get("scored_examples", 0)
        self.generator.set_state(state["generator"].cpu())
        self.masks.load_state_dict(state["masks"])
        self.thresholds.load_state_dict(state["thresholds"])
        self.execution.load_state_dict(state.get("execution", {"examples": {}}))

    @property
    def lr(self) -> float:
        """The learning rate of the optimizer's first group."""
        assert self.optimizer is not None, "no optimizer is bound yet"
        return float(self.optimizer.param_groups[0]["lr"])

    def lr_of(self, parameter: nn.Parameter) -> float:
        """The learning rate of the optimizer's group that holds the parameter; 0 where none does."""
        assert self.optimizer is not None, "no optimizer is bound yet"
        groups = [group for group in self.optimizer.param_groups if any(p is parameter for p in group["params"])]
        return float(groups[0]["lr"]) if groups else 0.0


class Method:
    """Base of every method. Every hook has a default that does nothing.

    A subclass takes its hyperparameters as keyword arguments of its constructor, each with a type
    and stored under its own name (as a dataclass does), and raises ValueError for values out of
    range.

    version: raised whenever behaviour changes.
    density_promise: `dense` keeps all weights, `exact` keeps its density after every step, `final`
        reaches its density at the end, `emergent` promises no density.
    granularity: what is pruned: single weights (`weight`), or whole output units, such as neurons
        and filters (`unit`). With units the density promise holds to within the largest unit.
    masking: how a layer computes with a mask. `in_place`: pruned weights are 0 in the parameter.
        `forward`: the layer computes with W * M, the parameter stays dense, and the gradient of
        W * M passes to all of it.
    grown_state: the optimizer's state of weights that grow again, for masks in place: `zero` where
        it starts at 0, `keep` where it stays.
    weight_gradient: whether the weight's gradient costs the arithmetic of a `dense` or a `sparse`
        layer. Methods that need it dense only in some steps override `dense_gradient`.
    pruned_gradients: for masks in place: `zero` where gradients of pruned weights become 0 as they
        arrive, except in steps with a `dense_gradient`, so that nothing else (clipping, an
        optimizer, a line search) sees them; `keep` where they stay.
    added: hyperparameters that were added after the first release, each with its default, at which
        the method behaves as before. At its default an added hyperparameter is not part of
        `identity()`, so that cells and checkpoints from before the addition stay valid.
    density_knob: for methods without a hyperparameter `density`, the hyperparameter that moves the
        density, with the range in which `python -m benchmark match` may look for a density; None
        where there is none.
    threshold_weight_decay: the weight decay of thresholds in `parameter_groups`.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    reference: ClassVar[str]
    density_promise: ClassVar[DensityPromise]
    granularity: ClassVar[Literal["weight", "unit"]] = "weight"
    masking: ClassVar[Literal["in_place", "forward"]] = "in_place"
    grown_state: ClassVar[Literal["zero", "keep"]] = "zero"
    weight_gradient: ClassVar[Literal["dense", "sparse"]] = "sparse"
    pruned_gradients: ClassVar[Literal["zero", "keep"]] = "keep"
    added: ClassVar[Mapping[str, Any]] = {}
    density_knob: ClassVar[DensityKnob | None] = None
    threshold_weight_decay: float = 0.0

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep a hyperparameter that is a scalar of NumPy or a tensor of one number as a plain number."""
        if getattr(value, "ndim", None) == 0 and name in self.hyperparameter_names():
            value = value.item()
        super().__setattr__(name, value)

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """The phases of a training of total_steps; one by default."""
        return (Phase("train", total_steps),)

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Runs when an optimizer is bound. Raises ValueError where the method cannot use it."""

    def enter_phase(self, ctx: Context) -> None:
        """Runs at the start of a phase, before its optimizer is made: wrap layers, score, prune."""

    def begin_training(self, ctx: Context) -> None:
        """Runs whenever an optimizer is bound before the first step.

        Since `enter_phase`, weights may have been loaded, or sent by DistributedDataParallel.
        """

    def dense_gradient(self, ctx: Context) -> bool:
        """Whether the next backward pass has to compute the gradients of pruned weights."""
        return self.weight_gradient == "dense"

    def gradient_counts(self, ctx: Context) -> Tensor | None:
        """How many weights of each layer need a gradient in the next step: int64 [weights].

        None where `dense_gradient` says it: all of them, or those that are kept.
        """
        return None

    def penalty(self, ctx: Context) -> Tensor | None:
        """A 0-dim tensor added to the task loss, or None."""
        return None

    def after_backward(self, ctx: Context) -> bool:
        """Runs when gradients are computed. False: this update replaces optimizer.step()."""
        return True

    def after_step(self, ctx: Context) -> None:
        """Runs after every step, when pruned weights are zeroed."""

    def state_dict(self) -> dict[str, Any]:
        """What the method remembers between steps: plain values and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what state_dict returned."""

    @classmethod
    def hyperparameter_names(cls) -> list[str]:
        """The names of the constructor's arguments."""
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


def class_problem(cls: type[Method]) -> str:
    """What is wrong with the class attributes of a method; empty if nothing."""
    if missing := [name for name in ATTRIBUTES if not hasattr(cls, name)]:
        names = f"{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))}"
        lines = ", ".join(f"{name} = {ATTRIBUTES[name]!r}" for name in missing)
        return f"lacks the class attribute{names}: write into the class, for example, {lines}"
    for name, example in ATTRIBUTES.items():
        if not isinstance(value := getattr(cls, name), type(example)) or isinstance(value, bool):
            return f"has {name} = {value!r}: it must be {type(example).__name__}, such as {example!r}"
    for name, hint in typing.get_type_hints(Method).items():
        choices = [kind for kind in typing.get_args(hint) if typing.get_origin(kind) is Literal]
        if choices and (value := getattr(cls, name)) not in (valid := typing.get_args(choices[0])):
            return f"has {name} = '{value}'; valid: {', '.join(valid)}"
    return ""


def check_fraction(name: str, value: float, *, low_open: bool = True) -> None:
    """Raises ValueError unless the value lies in (0, 1], or in [0, 1] where low_open is False."""
    if not (0 < value <= 1 or (value == 0 and not low_open)):
        raise ValueError(f"{name} is {value}: it must lie in {'(' if low_open else '['}0, 1]")


def check_positive(name: str, value: float, *, or_zero: bool = False) -> None:
    """Raises ValueError unless the value is finite and above 0, or 0 where or_zero is True."""
    if not (0 < value < float("inf") or (value == 0 and or_zero)):
        raise ValueError(f"{name} is {value}: it must be {'0 or more' if or_zero else 'above 0'}")


def check_count(name: str, value: int, *, most: float = math.inf) -> None:
    """Raises ValueError unless the value is a whole number from 1 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        limit = "at least 1" if most == math.inf else f"1 to {most:g}"
        raise ValueError(f"{name} is {value}: it must be a whole number of {limit}")


def check_duration(name: str, value: int | str) -> None:
    """Raises ValueError unless the value is a duration (`schedules.steps_of`)."""
    try:
        steps_of(value, steps_per_epoch=1)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def check_choice(name: str, value: str, valid: Iterable[str]) -> None:
    """Raises ValueError unless the value is one of the valid ones."""
    if value not in (choices := list(valid)):
        raise ValueError(f"{name} is '{value}'; valid: {', '.join(choices)}")
