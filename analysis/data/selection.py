"""Which conditions an exhibit shows, and notes on those that it leaves out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from analysis.data.conditions import OLDER, Condition, Results, seeds
from analysis.paper import printed


def dst_of(results: Results, dataset: str) -> list[Condition]:
    """DST as published on a whole data set; on the paper's data sets only in one of the protocols."""
    own = [c for c in results.conditions if (c.dataset, c.method) == (dataset, "dst") and len(c.rows)]
    return [c for c in own if (c.follows_protocol if dataset in printed.DATASETS else c.whole_data and c.as_published)]


def dst_conditions(
    results: Results,
    dataset: str,
    model: str,
    *,
    alpha: float | None = None,
    learning_rate: float | None = None,
    done: bool = True,
) -> list[Condition]:
    """DST's conditions of a model in one protocol, by alpha.

    The protocol is the paper's, unless only others have finished runs. done: only conditions with
    finished runs.
    """
    found = [
        c
        for c in dst_of(results, dataset)
        if c.model == model
        and (alpha is None or c.alpha == alpha)
        and (learning_rate is None or c.learning_rate == learning_rate)
    ]
    finished = [c for c in found if len(c.done)]
    protocol = "paper" if not finished or any("paper" in c.protocols for c in finished) else "official"
    return [c for c in (finished if done else found) if protocol in c.protocols]


def one_each_alpha(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """Where several conditions share an alpha, the one with most finished seeds; by alpha."""
    chosen: dict[float, Condition] = {}
    for condition in conditions:
        alpha = condition.alpha or 0.0
        if alpha not in chosen or len(condition.done) > len(chosen[alpha].done):
            chosen[alpha] = condition
    return tuple(chosen[alpha] for alpha in sorted(chosen))


def lowest_middle_highest(conditions: Sequence[Condition]) -> list[Condition]:
    """Three of them, where there are more than three."""
    if len(conditions) <= 3:
        return list(conditions)
    return [conditions[0], conditions[len(conditions) // 2], conditions[-1]]


def of_table(name: str, conditions: Iterable[Condition]) -> list[Condition]:
    """The conditions of a printed table's data sets and models, whatever protocol they follow."""
    rows = printed.targets(name)
    datasets, models = {target.dataset for target in rows}, {target.model for target in rows}
    return [c for c in conditions if c.dataset in datasets and c.model in models]


def as_stated(name: str, conditions: Iterable[Condition]) -> list[Condition]:
    """Those of a printed table in one of the protocols, at the learning rate of the table."""
    rate = printed.RATES.get(name)
    return [c for c in of_table(name, conditions) if c.follows_protocol and rate in (None, c.learning_rate)]


def protocol_note(condition: Condition) -> str:
    """For a title: which protocol, where it is not the paper's."""
    return "official protocol, " if condition.protocols == ("official",) else ""


def count(conditions: Sequence[Condition]) -> str:
    """n=3, n=2/3, or n=1 to 3 where conditions differ."""
    counts = sorted({(len(c.done), len(c.rows)) for c in conditions})
    if len(counts) > 1 and counts[0][0] < counts[-1][0]:
        return f"n={counts[0][0]} to {counts[-1][0]}"
    return seeds(*counts[-1])


def incomplete(conditions: Iterable[Condition]) -> list[str]:
    """Which conditions lack seeds."""
    return [f"{c.name}: {c.seeds}" for c in conditions if len(c.done) < len(c.rows)]


def without_results(conditions: Iterable[Condition]) -> str:
    """What stands in place of their numbers: `not run`, how cells were lost (`5 diverged`), or `not recorded`."""
    every = list(conditions)
    counts = sum((Counter(c.lost()) for c in every), Counter[str]())
    lost = ", ".join(f"{cells} {status}" for status, cells in counts.items())
    return lost or ("not recorded" if any(len(c.done) for c in every) else "not run")


def left_out_counts(results: Results, shown: Sequence[Condition]) -> list[str]:
    """How many cells are in no mean: of these conditions, departing from them, or of earlier versions."""
    counts = sum((Counter(c.lost()) for c in shown), Counter[str]())
    kinds = {_kind(c) for c in shown}
    departing = sum(c.departing for c in results.conditions if _kind(c) in kinds)
    counts += Counter({"departing": departing, OLDER: sum(len(c.older) for c in shown)})
    text = ", ".join(f"{cells} {why}" for why, cells in counts.items())
    return [f"left out: {text}"] if text else []


def _kind(condition: Condition) -> tuple[str, str, str, str]:
    """What a cell has in common with those that it departs from: other fields may differ."""
    return condition.dataset, condition.model, condition.method, condition.label


def left_out(conditions: Iterable[Condition]) -> list[str]:
    """A note for every condition with cells in no mean: diverged, failed, departing or of an earlier version."""
    notes = []
    for condition in conditions:
        counts = {**condition.lost(), **condition.departures()}
        if counts:
            what = ", ".join(f"{cells} {why}" for why, cells in counts.items())
            notes.append(f"Left out of every mean: {condition.name}: {what}.")
    return notes


def lost_note(results: Results) -> list[str]:
    """A note of how many cells are in no mean, and why; empty where there are none."""
    counts = Counter[str]()
    for condition in results.conditions:
        others = {"departing from the suite": condition.departing, OLDER: len(condition.older)}
        counts += Counter({**condition.lost(), **others})
    texts = [f"{cells} {why}" for why, cells in sorted(counts.items())]
    return [f"Cells in no mean of any exhibit: {', '.join(texts)}."] if texts else []
