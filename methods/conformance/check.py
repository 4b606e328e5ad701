"""`check_method`: every promise of a method, checked on small networks.

A check looks at one promise and yields what is broken. `class_promises` has the promises of the
class, `promises` and `repeats` those of a training, `ways` those under other optimizers and other
ways of training, and `processes` those whose checks need a compiler or several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from methods import registry
from methods.base import Method
from methods.conformance import class_promises, processes, promises, repeats, ways
from methods.conformance.class_promises import Candidate, check_class
from methods.conformance.errors import raised
from methods.conformance.networks import FAST, FULL, Network
from methods.conformance.promises import check_training
from methods.conformance.training import NotApplicable
from methods.conformance.trial import Trial

LEVELS = ("fast", "full")
Result = Literal["kept", "broken", "not applicable"]
Check = Callable[[Any], Iterator[str]]


class ConformanceError(AssertionError):
    """Lists every promise that a method breaks, one line per promise: `check on network: what`."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    network: empty for a check of the class. text: what is broken, or why the check does not apply.
    """

    check: str
    network: str
    result: Result
    text: str = ""

    @property
    def line(self) -> str:
        return f"{self.check}{f' on {self.network}' if self.network else ''}: {self.text}"


def check_method(
    name_or_class: str | type[Method], level: Literal["fast", "full"] = "fast", **hyperparameters: Any
) -> None:
    """Raise ConformanceError with every promise that the method breaks; return if there is none.

    name_or_class: a registered name, or a class, which need not be registered. level: `fast` takes
    seconds. `full` adds networks (GRU, deep bidirectional LSTM, one- and three-dimensional
    convolutions, transposed convolutions, attention), a resume from every step, torch.compile and
    several processes.
    hyperparameters: values to check with. The defaults suit small networks and trainings of 24
    steps: `density` is 0.3 (0.7 for whole units), `update_every` is one epoch of 3 steps,
    `frequency_decay` is 1, `prune_fraction` 0.5 and `train_examples` 2000. Raises ValueError for an
    unknown name or level.
    """
    found = examine(name_or_class, level, **hyperparameters)
    if broken := [finding.line for finding in found if finding.result == "broken"]:
        known = isinstance(name_or_class, str)
        name = name_or_class if known else getattr(name_or_class, "name", repr(name_or_class))
        raise ConformanceError("\n  ".join([f"method '{name}' breaks its promises:", *broken]))


def examine(
    name_or_class: str | type[Method], level: Literal["fast", "full"] = "fast", **hyperparameters: Any
) -> list[Finding]:
    """What every check of `check_method` found, without those that an earlier failure prevents."""
    if level not in LEVELS:
        raise ValueError(f"level is '{level}'; valid: {', '.join(LEVELS)}")
    if isinstance(name_or_class, str):
        candidate = Candidate(registry.method_class(name_or_class), name_or_class, hyperparameters)
    else:
        candidate = Candidate(name_or_class, None, hyperparameters)
    found = [_finding(check_class, candidate, candidate.cls)]
    if found[0].result == "broken":
        return found
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks so small are slower with more
    try:
        found += [_finding(check, candidate, candidate.cls) for check in class_promises.CHECKS]
        for network, checks in _at_work(level).items():
            found += _on(network, checks, candidate, every_step=level == "full" and network in FAST)
    finally:
        torch.set_num_threads(threads)
    return found


def check_names(level: Literal["fast", "full"]) -> list[str]:
    """The names of a level's checks."""
    at_work = [check for checks in _at_work(level).values() for check in checks]
    named = [check_class, *class_promises.CHECKS, check_training, *at_work]
    return list(dict.fromkeys(check.__name__ for check in named))


def _at_work(level: Literal["fast", "full"]) -> dict[Network, tuple[Check, ...]]:
    """The checks for each network. Other ways of training are slow, and tried on few networks."""
    always: tuple[Check, ...] = (*promises.CHECKS, *repeats.CHECKS)
    if level == "fast":
        return {network: (*always, *(ways.CHECKS if network is FAST[0] else ())) for network in FAST}
    return {
        network: (
            *always,
            *(ways.CHECKS if network in FAST else ()),
            *(processes.CHECKS if network is FAST[0] else ()),
        )
        for network in FULL
    }


def _on(network: Network, checks: Iterable[Check], candidate: Candidate, *, every_step: bool) -> list[Finding]:
    trial = Trial(candidate.make, network, every_step=every_step)
    runs = _finding(check_training, trial, candidate.cls, network.name)
    if runs.result != "kept":
        return [runs]
    return [runs, *(_finding(check, trial, candidate.cls, network.name) for check in checks)]


def _finding(check: Check, subject: Any, cls: object, network: str = "") -> Finding:
    """The first problem that a check finds; exceptions count as problems. cls: the method's class."""
    try:
        problem = next(check(subject), None)
    except NotApplicable as reason:
        return Finding(check.__name__, network, "not applicable", str(reason))
    except Exception as error:
        problem = raised(error, cls)
    if problem is None:
        return Finding(check.__name__, network, "kept")
    return Finding(check.__name__, network, "broken", problem)
