"""A claim of the paper beside its test: the decorator that registers it, and its outcomes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from analysis.data.conditions import Condition, Results, dense_twin
from analysis.data.epochs import COUNTED, DENSITY
from analysis.data.layers_and_curves import by_epoch, of_common_seeds
from analysis.data.selection import dst_conditions, without_results
from analysis.output.numbers import percentage

Result = Literal["supported", "not supported", "mixed", "inconclusive", "not run"]
SECTIONS = ("5.1", "4.1", "4.2", "5.2", "5.3", "A.1", "A.2", "A.3", "A.4", "A.5")  # the order of the exhibit
LEARNING_RATE = 0.1  # the initial one of Figures 3 and 7
MNIST_MODELS = ("lenet-300-100", "lenet-5-caffe", "lstm-a", "lstm-b")


@dataclass(frozen=True)
class Outcome:
    """The result of a test, the numbers that it rests on, and the runs that they are of."""

    result: Result
    numbers: str = ""
    run_ids: tuple[str, ...] = ()


Test = Callable[[Results], Outcome]


class NotRunError(Exception):
    """What a test needs was not run or not recorded; the text says what, or is empty."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of the paper.

    claim: in our words; paper: what it says there; tested_by: the test in words; test: the test
    itself.
    """

    id: str
    section: str
    claim: str
    paper: str
    tested_by: str
    test: Test


_registered: dict[str, Claim] = {}


def claim(id: str, *, section: str, claim: str, paper: str, tested_by: str) -> Callable[[Test], Test]:
    """Registers the function below it as the test of a claim.

    Raises ValueError for an id that is already registered.
    """

    def register(test: Test) -> Test:
        @functools.wraps(test)
        def checked(results: Results) -> Outcome:
            try:
                return test(results)
            except NotRunError as why:
                return Outcome("not run", str(why))

        if id in _registered:
            raise ValueError(f"there are two claims {id!r}")
        _registered[id] = Claim(id=id, section=section, claim=claim, paper=paper, tested_by=tested_by, test=checked)
        return checked

    return register


def registered() -> list[Claim]:
    """The claims of the sections that are imported, in the order of SECTIONS."""
    return sorted(_registered.values(), key=lambda c: SECTIONS.index(c.section.partition(" ")[0]))


def judge(held: Sequence[bool | None], numbers: str, used: Iterable[Condition]) -> Outcome:
    """The result over units (a seed, layer of a seed, condition, step of alpha, network or reading).

    A unit shows the claim (True), contradicts it (False) or does neither (None). Supported where
    every unit shows it, not supported where every unit contradicts it; mixed where some show and
    some contradict it; else inconclusive.
    """
    if not held:
        return Outcome("not run", numbers)
    found = set(held)
    result: Result = "inconclusive"
    if found >= {True, False}:
        result = "mixed"
    elif len(found) == 1 and None not in found:
        result = "supported" if True in found else "not supported"
    return Outcome(result, numbers, tuple(sorted({run_id for condition in used for run_id in condition.run_ids})))


def measured(
    results: Results, model: str, *, alpha: float | None = None, learning_rate: float | None = None
) -> list[Condition]:
    """DST's conditions of one of the paper's models that have runs."""
    dataset = "mnist" if model in MNIST_MODELS else "cifar10"
    return dst_conditions(results, dataset, model, alpha=alpha, learning_rate=learning_rate)


def stated(results: Results, model: str, *, alpha: float, learning_rate: float | None = None) -> Condition:
    """The condition that the paper states. Raises NotRunError where it has no runs."""
    for condition in measured(results, model, alpha=alpha, learning_rate=learning_rate):
        return condition
    dataset = "mnist" if model in MNIST_MODELS else "cifar10"
    every = dst_conditions(results, dataset, model, alpha=alpha, learning_rate=learning_rate, done=False)
    raise NotRunError(without_results(every).removeprefix("not run"))


def twin_of(results: Results, condition: Condition) -> Condition | None:
    """Its dense baseline, where that has runs."""
    twin = dense_twin(condition, results.conditions)
    return twin if twin is not None and len(twin.done) else None


def by_alpha(results: Results, model: str) -> list[Condition]:
    """DST's conditions of a model that differ only in alpha, by alpha.

    On CIFAR-10 at the learning rate of Figure 3.
    """
    found = measured(results, model, learning_rate=None if model in MNIST_MODELS else LEARNING_RATE)
    return sorted((c for c in found if c.alpha is not None), key=lambda c: c.alpha or 0.0)


def testable(conditions: Sequence[Condition]) -> list[Condition]:
    """Those with two finished seeds or more, which a t test needs; all of them where none has."""
    return [c for c in conditions if len(c.done) > 1] or list(conditions)


def above_dense(results: Results, condition: Condition) -> pd.DataFrame:
    """Sparse minus dense test accuracy by epoch, one column per seed that both have.

    Raises NotRunError where they have no seed in common.
    """
    twin = twin_of(results, condition)
    if twin is None:
        raise NotRunError
    sparse, dense = (by_epoch(results.tables, c, "test_accuracy") for c in (condition, twin))
    both = sparse.columns.intersection(dense.columns)
    if both.empty:
        raise NotRunError
    return (sparse[both] - dense[both]).dropna()


def first_epoch(reached: pd.Series) -> int | None:
    """The first epoch at which it is true."""
    return int(reached.index[reached][0]) if reached.any() else None


def mean_of(condition: Condition, column: str) -> float:
    return float(condition.done[column].mean())


def kept(condition: Condition, epoch: str = COUNTED) -> str:
    """The percentage kept as tables write it: the mean and its deviation, or the median where seeds differ widely."""
    return percentage(condition.summary(DENSITY[epoch], scale=100))


def with_records(condition: Condition, curves: Sequence[pd.DataFrame]) -> tuple[Condition, list[pd.DataFrame]]:
    """The condition and the curves with those seeds only that have every curve.

    Raises NotRunError where no seed has.
    """
    common = of_common_seeds(curves)
    if common[0].empty:
        raise NotRunError("no run has all the records that it needs")
    run_of = zip(condition.done["seed"], condition.done["run_id"], strict=True)
    return condition.only({run_id for seed, run_id in run_of if seed in common[0]}), common


def several(values: Iterable[float], form: str = ".2f") -> str:
    """Numbers of the seeds as a reader sees them: `0.10, 0.12, 0.11`."""
    return ", ".join(format(float(value), form) for value in values)
