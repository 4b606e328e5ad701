"""The promises of a method's class: what it declares, and what its hyperparameters do."""

from __future__ import annotations

import contextlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from methods import registry
from methods.base import Method, class_problem
from methods.conformance.networks import FAST, STEPS_PER_EPOCH, TOTAL_STEPS
from methods.conformance.training import NotApplicable, differing
from methods.conformance.trial import Trial

VALUES_FOR_SMALL_NETWORKS: dict[str, Any] = {
    "density": 0.3,
    "update_every": STEPS_PER_EPOCH,
    "frequency_decay": 1.0,
    "prune_fraction": 0.5,
    "train_examples": 2000,
}
DENSITY_OF_UNITS = 0.7  # one unit of each layer, and the whole last layer, are more than 0.3 of the weights


@dataclass
class Candidate:
    """The method to check: its class, its registered name, and given values of hyperparameters."""

    cls: type[Method]
    name: str | None
    given: dict[str, Any]

    @property
    def values(self) -> dict[str, Any]:
        values = {name: value for name, value in VALUES_FOR_SMALL_NETWORKS.items() if self._takes(name, value)}
        if "density" in values and self.cls.granularity == "unit":
            values["density"] = DENSITY_OF_UNITS
        return values | self.given

    def _takes(self, name: str, value: Any) -> bool:
        """Whether the method has this hyperparameter, and its type admits the value."""
        hints: dict[str, Any] = {}
        with contextlib.suppress(NameError):  # a type that is known only where the class was written
            hints = typing.get_type_hints(self.cls.__init__)
        try:
            registry.typed("", name, value, hints.get(name))
        except ValueError:
            return False
        return name in self.cls.hyperparameter_names()

    def make(self, **values: Any) -> Method:
        return self.cls(**self.values | values)


def check_class(candidate: Candidate) -> Iterator[str]:
    """A subclass of Method with name, version, reference and density promise, that can be made."""
    cls = candidate.cls
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        yield f"{cls!r} is no subclass of methods.Method"
        return
    if problem := class_problem(cls):
        yield f"{cls.__name__} {problem}"
    candidate.make()


def check_hyperparameters(candidate: Candidate) -> Iterator[str]:
    """Each hyperparameter is stored under its own name with the given value, and reported."""
    values = candidate.make().hyperparameters()
    for name, value in candidate.values.items():
        if values[name] != value:
            yield f"'{name}' is {values[name]!r}, given {value!r}"
    for name, other, method in _with_another_value(candidate):
        if (stored := getattr(method, name)) != other:
            yield f"'{name}' is {stored!r}, given {other!r}"
    if (again := candidate.make(**values).hyperparameters()) != values:
        yield f"made from {values}, it reports {again}"


def check_added_hyperparameters(candidate: Candidate) -> Iterator[str]:
    """What `added` names is a hyperparameter, and the constructor has the same default."""
    parameters = inspect.signature(candidate.cls.__init__).parameters
    if not (added := candidate.cls.added_hyperparameters()):
        raise NotApplicable("adds no hyperparameter")
    for name, default in added.items():
        if name not in candidate.cls.hyperparameter_names():
            yield f"'{name}' is in `added` and is no hyperparameter"
        elif parameters[name].default != default:
            yield f"'{name}' is {default!r} in `added` and {parameters[name].default!r} in the constructor"


def check_unknown_hyperparameter_is_refused(candidate: Candidate) -> Iterator[str]:
    """The constructor raises TypeError or ValueError; `methods.create` names the valid ones."""
    try:
        if candidate.name is None:
            candidate.make(no_such_hyperparameter=1)
        else:
            registry.create(candidate.name, **candidate.values, no_such_hyperparameter=1)
    except (TypeError, ValueError) as error:
        missing = [name for name in candidate.cls.hyperparameter_names() if name not in str(error)]
        if candidate.name is not None and missing:
            yield f"the error does not name {', '.join(missing)}: {error}"
    else:
        yield "the constructor takes any keyword: name the hyperparameters"


def check_phases(candidate: Candidate) -> Iterator[str]:
    """There is at least one phase, each has steps, they train to the end, and a second call returns the same."""
    method = candidate.make()
    phases = method.phases(TOTAL_STEPS)
    if not phases or min(phase.steps for phase in phases) < 1:
        yield f"a phase without steps in a training of {TOTAL_STEPS}: {phases}"
    if (steps := sum(phase.steps for phase in phases)) < TOTAL_STEPS:
        yield f"{steps} steps in all, in a training of {TOTAL_STEPS}"
    if (again := method.phases(TOTAL_STEPS)) != phases:
        yield f"{phases}, asked again {again}"


def check_every_hyperparameter_has_an_effect(candidate: Candidate) -> Iterator[str]:
    """Another value of a switch, or of what no code of the class reads, changes the training.

    The end of the density_knob's range where the least is kept prunes.
    """
    method, read = candidate.make(), _names_read(candidate.cls)
    if not method.hyperparameter_names():
        raise NotApplicable("has no hyperparameters")
    for name, other, _ in _with_another_value(candidate):
        if name in read and not isinstance(other, bool):
            continue
        if not any(_differ(candidate, {name: other}, on=network) for network in FAST):
            yield f"'{name}' = {other!r} gives the same training as {getattr(method, name)!r}"
    if (knob := candidate.cls.density_knob) is not None:
        least = knob.low if knob.rising else knob.high
        if not any(_prunes(candidate, {knob.name: least}, on=network) for network in FAST):
            yield f"'{knob.name}' = {least:g} prunes nothing, and it is the density_knob"


def _with_another_value(candidate: Candidate) -> Iterator[tuple[str, Any, Method]]:
    """Each hyperparameter with a value other than usual, and the method that has it; without refused ones."""
    method = candidate.make()
    for name in method.hyperparameter_names():
        if (other := _other_value(getattr(method, name, None))) is None:
            continue
        with contextlib.suppress(ValueError):
            yield name, other, candidate.make(**{name: other})


def _other_value(value: Any) -> Any:
    """Another value of the same kind; None where there is none that is sure to be valid."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value / 2 or 0.1 if isinstance(value, float) else None


def _differ(candidate: Candidate, changed: dict[str, Any], *, on: Any) -> bool:
    first, second = Trial(candidate.make, on), Trial(lambda: candidate.make(**changed), on)
    pairs = zip(first.train().run().moments, second.train().run().moments, strict=False)
    return any(differing(a.masks, b.masks) or differing(a.parameters, b.parameters) for a, b in pairs)


def _prunes(candidate: Candidate, changed: dict[str, Any], *, on: Any) -> bool:
    moments = Trial(lambda: candidate.make(**changed), on).train().run().moments
    return any(not mask.all() for moment in moments for mask in moment.masks.values())


_CONSTRUCTORS = ("__init__", "__post_init__", "__repr__", "__eq__")


def _names_read(cls: type[Method]) -> set[str]:
    """The names that the class's own functions use, except in constructors."""
    own = [c for c in cls.__mro__ if c not in Method.__mro__]
    members = [(name, value) for c in own for name, value in vars(c).items() if name not in _CONSTRUCTORS]
    functions = [getattr(value, "fget", None) or getattr(value, "__func__", value) for _, value in members]
    codes = [function.__code__ for function in functions if isinstance(function, types.FunctionType)]
    return {name for code in codes for name in _names_in(code)}


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)
        elif isinstance(constant, str):
            yield constant  # of getattr(self, name)
        elif isinstance(constant, tuple):
            yield from (part for part in constant if isinstance(part, str))


CHECKS: tuple[Callable[[Candidate], Iterator[str]], ...] = (
    check_hyperparameters,
    check_added_hyperparameters,
    check_unknown_hyperparameter_is_refused,
    check_phases,
    check_every_hyperparameter_has_an_effect,
)
