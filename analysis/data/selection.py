"""Which conditions an exhibit shows, and notes on those that it leaves out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from analysis.data.conditions import PROTOCOLS, Condition, Results, seeds
from analysis.paper import printed
from analysis.paper.printed import Target


@dataclass(frozen=True)
class Match:
    """A condition of ours beside a printed row.

    basis: "stated" (the alpha or the density that the paper prints) or "nearest" (the alpha run
    here whose remaining percentage is nearest). decides: whether the printed number's verdict is on
    it.
    """

    condition: Condition
    label: str
    protocol: str
    basis: str
    decides: bool = False


def dst_of(results: Results, dataset: str) -> list[Condition]:
    """DST as published on a data set; on the paper's data sets only in one of the protocols."""
    own = [c for c in results.conditions if (c.dataset, c.method) == (dataset, "dst") and len(c.rows)]
    return [c for c in own if (c.follows_protocol if dataset in printed.DATASETS else c.as_published)]


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


def printed_and_ours(name: str, conditions: Sequence[Condition]) -> list[tuple[Target, list[Match]]]:
    """Every row of a printed table, in the paper's order, with our conditions beside it."""
    chosen = as_stated(name, conditions)
    return [(target, matching(target, chosen)) for target in printed.targets(name)]


def matching(target: Target, conditions: Sequence[Condition]) -> list[Match]:
    """Our conditions beside a printed row, in each protocol.

    They are at the stated alpha or density and, for methods with an alpha, at the one whose last
    epoch's remaining percentage is nearest to the printed one on a log scale.
    """
    same = [c for c in conditions if (c.model, c.method) == (target.model, target.method) and len(c.rows)]
    chosen: dict[int, Match] = {}
    for protocol in PROTOCOLS:
        of = [c for c in same if c.protocols[0] == protocol]
        suffix = ", official protocol" if protocol == "official" else ""
        for c in of:
            if _close(c.alpha, target.alpha) or _close(c.density, (target.density_percent or 0) / 100):
                chosen[id(c)] = Match(c, c.label + suffix, protocol, "stated")
        nearest = _nearest(target, [c for c in of if c.alpha is not None])
        if nearest is not None:
            label = f"{nearest.label}, nearest remaining{suffix}"
            chosen.setdefault(id(nearest), Match(nearest, label, protocol, "nearest"))
    return _decided(target, list(chosen.values()))


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


def left_out_counts(results: Results, shown: Sequence[Condition]) -> list[str]:
    """How many cells are in no mean: of these conditions, or departing from them."""
    counts = sum((Counter(c.lost()) for c in shown), Counter[str]())
    kinds = {(c.dataset, c.model, c.method, c.alpha) for c in shown}
    departing = sum(c.departing for c in results.conditions if (c.dataset, c.model, c.method, c.alpha) in kinds)
    text = ", ".join(f"{cells} {why}" for why, cells in (counts + Counter(departing=departing)).items())
    return [f"left out: {text}"] if text else []


def left_out(conditions: Iterable[Condition]) -> list[str]:
    """A note for every condition with cells in no mean: diverged, failed or departing."""
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
        counts += Counter({**condition.lost(), "departing from the suite": condition.departing})
    texts = [f"{cells} {why}" for why, cells in sorted(counts.items())]
    return [f"In no mean of any exhibit: cells that are {', '.join(texts)}."] if texts else []


def _decided(target: Target, matches: list[Match]) -> list[Match]:
    """Marks the match that the verdict is on.

    That is the paper's protocol at the stated alpha, or at the nearest where the paper states none.
    Numbers that the paper quotes from others get no verdict.
    """
    basis = "nearest" if target.alpha is None else "stated"
    own = [m for m in matches if m.protocol == "paper" and m.basis == basis and target.origin == "measured"]
    first = max(own, key=lambda match: len(match.condition.done), default=None)
    return [replace(match, decides=match is first) for match in matches]


def _nearest(target: Target, conditions: Sequence[Condition]) -> Condition | None:
    wanted = target.density_percent
    found = [(100 * c.done["density"].mean(), c) for c in conditions if len(c.done)]
    distances = [(abs(math.log(has / wanted)), c) for has, c in found if wanted and has > 0]
    return min(distances, key=lambda pair: pair[0])[1] if distances else None


def _close(ours: float | None, stated: float | None) -> bool:
    return ours is not None and stated is not None and math.isclose(ours, stated, rel_tol=1e-6)
