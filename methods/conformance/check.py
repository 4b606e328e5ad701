"""`check_method` and the promises of a method's class.

A check looks at one promise and yields what is broken. The promises of a method at work are checked
in `promises`, in trainings of the small networks in `networks`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from methods import registry
from methods.base import DensityPromise, Method
from methods.conformance.networks import FAST, FULL, TOTAL_STEPS, Network
from methods.conformance.promises import CHECKS, Trial, check_training

VALUES_FOR_SMALL_NETWORKS: dict[str, Any] = {
    "density": 0.3,
    "update_every": "1 epoch",
    "frequency_decay": 1.0,
    "train_examples": 2000,
}
DENSITY_OF_UNITS = 0.7  # a unit of each layer, and all of the last, need more than 0.3


class ConformanceError(AssertionError):
    """Lists every promise that a method breaks, one line per promise: `check on network: what`."""


def check_method(
    name_or_class: str | type[Method], level: Literal["fast", "full"] = "fast", **hyperparameters: Any
) -> None:
    """Raise ConformanceError with every promise that the method breaks; return if there is none.

    name_or_class: a registered name, or a class, which need not be registered. level: `full` adds
    networks (GRU, deep bidirectional LSTM, one- and three-dimensional convolutions, transposed
    convolutions, attention).
    hyperparameters: values to check with. By default `density` is 0.3, or 0.7 where whole units are
    pruned, `update_every` is one epoch of 3 steps and `frequency_decay` is 1, so that small networks
    keep enough weights, updates happen within 24 steps, and chance has a part in them.
    Raises ValueError for an unknown name or level.
    """
    networks = {"fast": FAST, "full": FULL}
    if level not in networks:
        raise ValueError(f"level is '{level}'; valid: {', '.join(networks)}")
    if isinstance(name_or_class, str):
        candidate = Candidate(registry.method_class(name_or_class), name_or_class, hyperparameters)
    else:
        candidate = Candidate(name_or_class, None, hyperparameters)
    broken = _broken((check_class,), candidate)
    if not broken:
        broken = _broken(CLASS_CHECKS, candidate)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # networks so small are slower with more
        try:
            broken += _broken_at_work(candidate, networks[level])
        finally:
            torch.set_num_threads(threads)
    if broken:
        name = getattr(candidate.cls, "name", repr(candidate.cls))
        raise ConformanceError("\n  ".join([f"method '{name}' breaks its promises:", *broken]))


def _broken_at_work(candidate: Candidate, networks: Iterable[Network]) -> list[str]:
    broken = []
    for network in networks:
        trial = Trial(candidate.make, network)
        runs = _broken((check_training,), trial, f" on {network.name}")
        broken += runs or _broken(CHECKS, trial, f" on {network.name}")
    return broken


@dataclass
class Candidate:
    """The method to check: its class, its registered name, and given values of hyperparameters."""

    cls: type[Method]
    name: str | None
    given: dict[str, Any]

    @property
    def values(self) -> dict[str, Any]:
        valid = self.cls.hyperparameter_names()
        values = {k: v for k, v in VALUES_FOR_SMALL_NETWORKS.items() if k in valid}
        if "density" in values and self.cls.granularity == "unit":
            values["density"] = DENSITY_OF_UNITS
        return values | self.given

    def make(self, **values: Any) -> Method:
        return self.cls(**self.values | values)


def _broken(checks: tuple[Callable[[Any], Iterator[str]], ...], subject: Any, where: str = "") -> list[str]:
    """The first problem that each check finds; an exception counts as a problem."""
    broken = []
    for check in checks:
        try:
            problem = next(check(subject), None)
        except Exception as error:
            problem = f"raised {type(error).__name__}: {error}"
        if problem is not None:
            broken.append(f"{check.__name__}{where}: {problem}")
    return broken


def check_class(candidate: Candidate) -> Iterator[str]:
    """A subclass of Method with name, version, reference and density promise, that can be made."""
    cls = candidate.cls
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        yield f"{cls!r} is no subclass of methods.Method"
        return
    for name, kind in (("name", str), ("version", int), ("reference", str), ("density_promise", str)):
        if not isinstance(getattr(cls, name, None), kind):
            yield f"class attribute '{name}' is {getattr(cls, name, 'missing')!r}: it must be {kind.__name__}"
    if cls.density_promise not in (valid := typing.get_args(DensityPromise)):
        yield f"density_promise is '{cls.density_promise}'; valid: {', '.join(valid)}"
    candidate.make()


def check_hyperparameters(candidate: Candidate) -> Iterator[str]:
    """Each hyperparameter is stored under its own name with the given value, and reported."""
    values = candidate.make().hyperparameters()
    for name, value in candidate.values.items():
        if values[name] != value:
            yield f"'{name}' is {values[name]!r}, given {value!r}"
    if (again := candidate.make(**values).hyperparameters()) != values:
        yield f"made from {values}, it reports {again}"


def check_added_hyperparameters(candidate: Candidate) -> Iterator[str]:
    """What `added` names is a hyperparameter, and the constructor has the same default."""
    parameters = inspect.signature(candidate.cls.__init__).parameters
    for name, default in candidate.cls.added_hyperparameters().items():
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
    """There is at least one phase, each has steps, and a second call returns the same phases."""
    method = candidate.make()
    phases = method.phases(TOTAL_STEPS)
    if not phases or min(phase.steps for phase in phases) < 1:
        yield f"a phase without steps in a training of {TOTAL_STEPS}: {phases}"
    if (again := method.phases(TOTAL_STEPS)) != phases:
        yield f"{phases}, asked again {again}"


CLASS_CHECKS = (
    check_hyperparameters,
    check_added_hyperparameters,
    check_unknown_hyperparameter_is_refused,
    check_phases,
)
