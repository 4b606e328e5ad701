"""What changed between two result sets: cells, statuses, numbers, machines and commits."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from analysis.data.conditions import Condition, conditions, label, spec_without_seed
from analysis.data.read import Tables
from analysis.statistics.small_samples import Comparison, against_sample
from benchmark.results import MEASURED, TIMES

NUMBERS = ("test_accuracy", "best_test_accuracy", "density", "density_at_best_test_accuracy")
WHERE = ("device", "commit", "departs")
NOISE = 2.0  # standard deviations over seeds


@dataclass(frozen=True)
class Change:
    """One difference between A and B.

    kind: what sort; cell: of which run or condition; what: the status or the column; a, b: the
    values as text; note: how large it is.
    """

    kind: str
    cell: str
    what: str
    a: str
    b: str
    note: str = ""


def compare(a: Tables, b: Tables) -> tuple[list[Change], dict[str, int]]:
    """Every change from A to B, and counts: cells in each set, in both, bit-identical in both."""
    left, right = (tables.results.set_index("run_id", drop=False) for tables in (a, b))
    both = [run_id for run_id in left.index if run_id in right.index]
    only_a = [run_id for run_id in left.index if run_id not in right.index]
    only_b = [run_id for run_id in right.index if run_id not in left.index]
    found = [Change("only in A", _name(left.loc[i]), "status", left.loc[i, "status"], "") for i in only_a]
    found += [Change("only in B", _name(right.loc[i]), "status", "", right.loc[i, "status"]) for i in only_b]
    before, after = conditions(a.results), conditions(b.results)
    spread = _spread([*before, *after])
    found += _of_places(left.loc[both], right.loc[both])
    identical = 0
    for run_id in both:
        changes = list(_of_cell(left.loc[run_id], right.loc[run_id], spread))
        identical += not changes and left.loc[run_id, "status"] == "done"
        found += changes
    found += _of_conditions(before, after)
    counted = {"in A": len(left), "in B": len(right), "in both": len(both), "bit-identical": identical}
    return found, counted | {"only in A": len(only_a), "only in B": len(only_b), "changes": len(found)}


def text(found: Sequence[Change], counted: Mapping[str, int]) -> str:
    """One table for people, and a line of counts before it."""
    counts = ", ".join(f"{count} {name}" for name, count in counted.items() if name != "changes")
    if not found:
        return f"cells: {counts}\nno difference\n"
    rows = [("change", "cell or condition", "what", "A", "B", "how much"), *(tuple(asdict(c).values()) for c in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join([f"cells: {counts}", *lines, ""])


def document(found: Sequence[Change], counted: Mapping[str, int]) -> str:
    """The same as JSON."""
    return json.dumps({"cells": dict(counted), "changes": [asdict(change) for change in found]}, indent=1) + "\n"


def _of_cell(a: pd.Series, b: pd.Series, spread: Mapping[tuple[str, str], float]) -> Iterable[Change]:
    name = _name(a)
    if a["status"] != b["status"]:
        yield Change("status", name, "status", a["status"], b["status"])
    elif a["status"] == "done":
        for column in (column for column in MEASURED if column not in TIMES):
            if not _same(a[column], b[column]):
                sd = spread.get((spec_without_seed(a["spec"]), column), math.nan) if column in NUMBERS else math.nan
                yield Change("number", name, column, _text(a[column]), _text(b[column]), _noise(a, b, column, sd))


def _of_places(a: pd.DataFrame, b: pd.DataFrame) -> Iterable[Change]:
    """Device, commit and departures of cells that are done in both; equal changes on one line."""
    done = (a["status"] == "done") & (b["status"] == "done")
    for column in WHERE:
        pairs = [(x, y) for x, y in zip(a.loc[done, column], b.loc[done, column], strict=True) if x != y]
        for (x, y), count in sorted(Counter(pairs).items()):
            yield Change("environment", f"{count} of {int(done.sum())} cells", column, x, y)


def _noise(a: pd.Series, b: pd.Series, column: str, sd: float) -> str:
    difference = b[column] - a[column]
    if math.isnan(difference):
        return ""
    if math.isnan(sd):
        return f"{difference:+.4g}"
    place = "beyond" if abs(difference) > NOISE * sd else "within"
    return f"{difference:+.4g}: {place} seed noise ({NOISE:g} x {sd:.2g})"


def _of_conditions(a: Sequence[Condition], b: Sequence[Condition]) -> Iterable[Change]:
    """Changed means of the conditions that both have, with Welch's 95 % interval of B minus A."""
    known = {condition.key: condition for condition in b}
    for before in a:
        after = known.get(before.key)
        if after is None or not len(before.done) or not len(after.done):
            continue
        for column in NUMBERS:
            old, new = before.summary(column), after.summary(column)
            if (old.mean, old.n) != (new.mean, new.n):
                a_mean, b_mean = (f"{value.mean:.6g} (n={value.n})" for value in (old, new))
                yield Change(
                    "mean", f"{before.dataset} {before.name}", column, a_mean, b_mean, _beyond(before, after, column)
                )


def _beyond(a: Condition, b: Condition, column: str) -> str:
    old, new = a.summary(column), list(b.by_seed(column).values())
    if old.n < 2:
        comparison = Comparison(b.summary(column).mean - old.mean, math.nan, math.nan)
    else:
        comparison = against_sample(new, old.mean, sd=old.sd, n=old.n)
    low, high = comparison.interval()
    if math.isnan(low):
        return f"{comparison.difference:+.4g}"
    place = "within" if low <= 0 <= high else "beyond"
    return f"{comparison.difference:+.4g} [{low:+.4g}, {high:+.4g}]: {place} seed noise"


def _spread(found: Iterable[Condition]) -> dict[tuple[str, str], float]:
    """(spec without seed, column) -> standard deviation over seeds; of A where it has several."""
    known: dict[tuple[str, str], float] = {}
    for condition in found:
        for column in NUMBERS:
            sd = condition.summary(column).sd
            if not math.isnan(sd):
                known.setdefault((condition.key, column), sd)
    return known


def _name(row: pd.Series) -> str:
    words = (row["run_id"], row["dataset"], row["model"], row["method"], label(json.loads(row["spec"])))
    return " ".join(filter(None, [*words, f"seed {row['seed']:g}"]))


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _text(value: Any) -> str:
    return "" if value != value else repr(float(value))
