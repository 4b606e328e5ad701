"""The claims of appendix A.3: the ranges of weights, thresholds and Q at the end of training."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from analysis.data.conditions import Condition, Results
from analysis.exhibits.claims.claim import Outcome, claim, judge, several
from analysis.exhibits.claims.evidence import Answer

PREMISE = (
    "Only cells trained with l2 regularisation, the paper's reason, are judged. On MNIST A.1 names none, and the cells "
    "have none"
)
ALMOST_ALL = 0.95
Row = Mapping[str, float]


@claim(
    "weights-in-1",
    section="A.3",
    claim="With l2 regularisation, all weights lie within [-1; 1]",
    paper=(
        '"Since we add l2 regularization in the training process, all the elements in W are distributed within [-1,1]"'
    ),
    tested_by=f"largest weight magnitude at the end at most 1, every DST cell of a protocol. {PREMISE}",
)
def weights_within_one(results: Results) -> Outcome:
    return _by_cell(
        results, ["weight_max"], lambda row: row["weight_max"] <= 1, lambda rows: _span(rows, "weight_max"), decay=True
    )


@claim(
    "thresholds-in-1",
    section="A.3",
    claim="Almost all thresholds lie within [0; 1]",
    paper='"almost all the elements in the vector threshold are distributed within [0,1]"',
    tested_by=(
        "at least 95 % of the thresholds at the end (ours), every DST cell of a protocol. Older runs recorded only the "
        "lowest and the highest, which show the claim where both lie within and otherwise decide nothing"
    ),
)
def thresholds_within_one(results: Results) -> Outcome:
    def answer(row: Row) -> Answer:
        if not math.isnan(row["threshold_share_in_0_1"]):
            return row["threshold_share_in_0_1"] >= ALMOST_ALL
        return True if row["threshold_min"] >= 0 and row["threshold_max"] <= 1 else None

    def numbers(rows: Sequence[Row]) -> str:
        shares = [row["threshold_share_in_0_1"] for row in rows]
        known = [100 * share for share in shares if not math.isnan(share)]
        share = f", {min(known):.1f} to {max(known):.1f} % within in {len(known)} of them" if known else ""
        return f"from {min(r['threshold_min'] for r in rows):.2f} to {max(r['threshold_max'] for r in rows):.2f}{share}"

    return _by_cell(results, ["threshold_min", "threshold_max"], answer, numbers)


@claim(
    "q-in-1",
    section="A.3",
    claim="With l2 regularisation, all elements of Q lie within [-1; 1]",
    paper='"Regarding the process of getting Q, all the elements in Q are within [-1,1]"',
    tested_by=(
        "lowest and highest Q, the magnitude of W minus t, at the end within [-1; 1], every DST cell of a protocol; "
        f"for older runs, which did not record Q, as far as the extremes of W and t decide it. {PREMISE}"
    ),
)
def q_within_one(results: Results) -> Outcome:
    def answer(row: Row) -> Answer:
        if not math.isnan(row["q_min"]):
            return row["q_min"] >= -1 and row["q_max"] <= 1
        if row["threshold_max"] <= 1 and row["weight_max"] - row["threshold_min"] <= 1:
            return True
        return False if row["weight_max"] - row["threshold_max"] > 1 else None

    def numbers(rows: Sequence[Row]) -> str:
        known = [row for row in rows if not math.isnan(row["q_min"])]
        if not known:
            return "not recorded"
        return f"from {min(row['q_min'] for row in known):.2f} to {max(row['q_max'] for row in known):.2f}"

    return _by_cell(results, ["threshold_min", "threshold_max", "weight_max"], answer, numbers, decay=True)


COLUMNS = ("weight_max", "threshold_min", "threshold_max", "threshold_share_in_0_1", "q_min", "q_max")


def _by_cell(
    results: Results,
    needed: list[str],
    answer: Callable[[Row], Answer],
    numbers: Callable[[Sequence[Row]], str],
    *,
    decay: bool = False,
) -> Outcome:
    """A unit is a cell that has the needed columns. decay: judge only those trained with weight decay."""
    held: list[Answer] = []
    used: list[Condition] = []
    shown: dict[str, list[Row]] = defaultdict(list)
    for condition in _published(results):
        rows = _rows(condition, needed)
        decayed = condition.spec["optimizer"].get("weight_decay", 0.0) > 0
        if decayed or not decay:
            held += [answer(row) for row in rows]
        used += [condition] if rows else []
        shown[condition.model + (", without l2" if decay and not decayed else "")] += rows
    said = [f"{name}: {numbers(rows)} in {len(rows)} cells" for name, rows in shown.items() if rows]
    return judge(held, "; ".join(said), used)


def _published(results: Results) -> list[Condition]:
    """DST as published on the paper's networks, in one of the protocols and with runs."""
    every = [c for c in results.conditions if c.method == "dst" and c.widths is None]
    return [c for c in every if c.follows_protocol and len(c.done)]


def _rows(condition: Condition, needed: list[str]) -> list[Row]:
    table = condition.done.reindex(columns=list(COLUMNS)).apply(pd.to_numeric, errors="coerce").astype(float)
    return [dict(zip(COLUMNS, row, strict=True)) for row in table.dropna(subset=needed).itertuples(index=False)]


def _span(rows: Sequence[Row], name: str) -> str:
    values = [row[name] for row in rows]
    return f"largest {several([min(values)])} to {several([max(values)])}"
