"""What training loops and methods give to an attachment, checked before it is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from methods.base import Context, Method, Phase, class_problem
from methods.execution import CHOICES, Choice
from methods.registry import create, native

USED = "used"  # of a Method's __dict__: set once it was attached
STATE = ("method", "version", "hyperparameters", "step", "phase", "generator", "masks", "thresholds", "own")


def method_of(method_or_name: Method | str, hyperparameters: Mapping[str, Any]) -> Method:
    """The method itself, or a new one by its name.

    Raises ValueError for one that cannot be used, or that was attached before: it may remember that training.
    """
    if not isinstance(method_or_name, Method):
        return create(method_or_name, **hyperparameters)
    if hyperparameters:
        raise ValueError("hyperparameters go with a method's name, not with a Method")
    if problem := class_problem(cls := type(method_or_name)):
        raise ValueError(f"method {cls.__name__} {problem}")
    if USED in vars(method_or_name):
        raise ValueError(
            f"this {cls.__name__} was attached before and may remember that training: give each attach a method "
            "of its own, by name or from methods.create"
        )
    return method_or_name


def execution_of(choice: str, method: Method) -> Choice:
    """The choice that holds for a method: `dense` in place of `auto` where it needs all weights.

    Raises ValueError for an unknown choice, and for `sparse` where the method needs all weights.
    """
    if choice not in CHOICES:
        raise ValueError(f"execution is {choice!r}; valid: {', '.join(CHOICES)}")
    problem = ""
    if method.density_promise == "dense" or method.masking != "in_place" or method.weight_gradient != "sparse":
        problem = "trains all weights"
    elif method.pruned_gradients != "zero" or method.grown_state != "zero":
        problem = "keeps the gradients or the optimizer's state of pruned weights"
    elif type(method).penalty is not Method.penalty:
        problem = "has a penalty, which may read all weights"
    if problem and choice == "sparse":
        raise ValueError(f"execution='sparse': {method.name} {problem}; use execution='dense'")
    return "dense" if problem else cast(Choice, choice)


def count(name: str, value: Any) -> int:
    """A number of steps. Raises ValueError unless it is whole and at least 1."""
    number = native(value)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if not isinstance(number, int):
        raise ValueError(f"{name} is {number!r}: it must be a whole number")
    if number < 1:
        raise ValueError(f"{name} is {number}: it must be at least 1")
    return number


def generator_of(seed: Any) -> torch.Generator:
    """A CPU generator. Raises ValueError for a seed that is no whole number of 64 bits."""
    number = native(seed)
    if not isinstance(number, int) or not -(2**63) <= number < 2**64:
        raise ValueError(f"seed is {number!r}: it must be a whole number of 64 bits")
    return torch.Generator("cpu").manual_seed(number)


def phases_of(method: Method, total_steps: int) -> tuple[Phase, ...]:
    """The phases of a method. Raises ValueError where there is none, or one without steps."""
    phases = method.phases(total_steps)
    if not phases or min(phase.steps for phase in phases) < 1:
        raise ValueError(f"{method.name} has a phase without steps in a training of {total_steps}: {phases}")
    return phases


def after_backward(method: Method, ctx: Context) -> bool:
    """What the method's hook returns. Raises TypeError unless it is True or False."""
    goes_on = method.after_backward(ctx)
    if not isinstance(goes_on, bool):
        raise TypeError(
            f"{method.name}: after_backward returned {goes_on!r}: it must return True, or False where it made the "
            "update itself in place of the optimizer"
        )
    return goes_on


def function(name: str, value: Any, *, example: str) -> Any:
    """A function that is called later. Raises ValueError for what cannot be called."""
    if not callable(value):
        raise ValueError(f"{name} is a {type(value).__name__}: it must be a function, such as {example}")
    return value


def batches_of(train_batches: Any) -> Any:
    """The function that returns training batches, or one that raises where none was given."""
    if train_batches is None:
        return no_batches
    return function("train_batches", train_batches, example="lambda: loader")


def no_batches() -> Iterable[tuple[Tensor, Tensor]]:
    """Stands for train_batches that were not given."""
    raise ValueError("this method scores on data: give attach(train_batches=...)")


def check_state(method: Method, ctx: Context, state: Mapping[str, Any]) -> None:
    """Raises ValueError for the state of another method, version, hyperparameters, steps or maskable weights."""
    if missing := [key for key in STATE if key not in state]:
        raise ValueError(f"this is no state of an attachment, which has {', '.join(missing)} too")
    identity = (method.name, method.version)
    if (state["method"], state["version"]) != identity:
        raise ValueError(f"the state is of {state['method']} {state['version']}, not {identity[0]} {identity[1]}")
    saved = method.added_hyperparameters() | state["hyperparameters"]
    if changed := _changes(saved, method.hyperparameters()):
        raise ValueError(f"the state was saved with other hyperparameters: {changed}")
    now = ctx.attach_arguments()
    if changed := _changes(_by_name(state.get("attach", now)), _by_name(now)):  # states of earlier versions have none
        raise ValueError(f"attach as before: the state was saved with other steps or maskable weights: {changed}")


def _by_name(attach_arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same with an entry for each maskable weight."""
    weights = dict.fromkeys(attach_arguments["weights"], "maskable")
    return {name: value for name, value in attach_arguments.items() if name != "weights"} | weights


def _changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs, as text; empty where nothing does."""
    names = [name for name in {**saved, **now} if saved.get(name) != now.get(name)]
    return ", ".join(f"{name} {saved.get(name)!r} -> {now.get(name)!r}" for name in names)
