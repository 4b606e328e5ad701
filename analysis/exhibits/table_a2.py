"""Appendix A.2: one threshold per layer, per row or per weight.

They are compared in the three ways of the suite `thresholds`. The paper says in words what they
give, and prints no numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from analysis.data.conditions import Condition, Results, Summary
from analysis.data.paired import against, log_density_ratio
from analysis.data.selection import left_out
from analysis.output.exhibit import Makers, Written, write_table
from analysis.output.numbers import WIDE, factor, percentage, points, with_seeds
from analysis.output.table import Row, Table
from analysis.paper import printed
from analysis.statistics.small_samples import Comparison

SHAPES = ("scalar", "vector", "matrix")
MODELS = ("lenet-300-100", "lenet-5-caffe", "vgg16")  # of the suite `thresholds`
CAPTION = "Scalar, vector and matrix thresholds (appendix A.2, which prints no numbers), as measured here; last epoch"
NOTES = (
    f"Accuracy and remaining ratio: mean ± sample standard deviation over n seeds, last epoch. {WIDE} Against vector: "
    "at the default alpha, paired by seed, with the 95 % t interval; the remaining percentage as a ratio.",
    "Equal alpha: the default of A.1 for every shape. Equal penalty: alpha times (vector thresholds) / (thresholds of "
    "the shape), so that all start with the same penalty. Matched density: the alphas run here at which Remaining / "
    "vector's is nearest to 1, from above and from below.",
    "Overhead: thresholds trained beside the parameters, in percent of the dense network's parameters. After training "
    "none is kept.",
)


MEASURED = ("Accuracy (%)", "Remaining (%)", "Accuracy − vector's [95 %]", "Remaining / vector's [95 %]")
HEADS = ("Architecture", "Compared at", "Threshold", "alpha", *MEASURED, "Thresholds", "Overhead in training (%)")


@dataclass(frozen=True)
class Line:
    """One shape in one comparison. condition: None where nothing is run."""

    model: str
    compared_at: str
    shape: str
    alpha: float | None
    condition: Condition | None
    vector: Condition | None


def makers(results: Results) -> Makers:
    return {"tableA2": partial(_write, results)}


def lines(conditions: Sequence[Condition]) -> list[Line]:
    """Every line of the table, run or not, by model."""
    found = []
    targets = [*printed.targets("table1"), *printed.targets("table2")]
    every = printed.layer_sizes()
    for model in MODELS:
        sizes = every[model]
        default = next(target.alpha for target in targets if target.model == model and target.alpha)
        own = {shape: [c for c in conditions if c.model == model and _shape(c) == shape] for shape in SHAPES}
        vector = _at(own["vector"], default)
        found += [Line(model, "equal alpha", shape, default, _at(own[shape], default), vector) for shape in SHAPES]
        for shape in ("scalar", "matrix"):
            alpha = (default or 0.0) * sizes.rows / sizes.thresholds(shape)
            found.append(Line(model, "equal penalty per weight", shape, alpha, _at(own[shape], alpha), vector))
        for shape in ("scalar", "matrix"):
            for side, condition in matched(own[shape], vector).items():
                alpha_run = None if condition is None else condition.alpha
                found.append(Line(model, f"matched density, {side}", shape, alpha_run, condition, vector))
    return found


def matched(conditions: Sequence[Condition], vector: Condition | None) -> dict[str, Condition | None]:
    """The conditions whose density, as a ratio to the vector's, is nearest to 1 from above and from below."""
    if vector is None:
        return {"above": None, "below": None}
    known = [(log_density_ratio(c, vector).difference, c) for c in conditions]
    above = min((pair for pair in known if pair[0] >= 0), key=lambda pair: pair[0], default=(0, None))
    below = max((pair for pair in known if pair[0] < 0), key=lambda pair: pair[0], default=(0, None))
    return {"above": above[1], "below": below[1]}


def _shape(condition: Condition) -> str:
    """The shape of thresholds of a condition that A.2's comparison can use, else nothing."""
    rate = printed.RATES["table2"] if condition.dataset == "cifar10" else None
    usable = (
        condition.method == "dst"
        and condition.dataset in printed.DATASETS
        and condition.protocol == "paper"
        and set(condition.variant) <= {"threshold"}
        and condition.whole_data
        and rate in (None, condition.learning_rate)
    )
    return str(condition.spec["method"].get("threshold", "vector")) if usable else ""


def _at(conditions: Sequence[Condition], alpha: float | None) -> Condition | None:
    close = [c for c in conditions if alpha and c.alpha and math.isclose(c.alpha, alpha, rel_tol=1e-6) and len(c.rows)]
    return max(close, key=lambda c: len(c.done), default=None)


def _write(results: Results, out: Path) -> Written:
    found = lines(results.conditions)
    rows: list[Row] = []
    before = ("", "")
    for line in found:
        model = printed.architecture(line.model) if line.model != before[0] else ""
        at = line.compared_at if (line.model, line.compared_at) != before else ""
        run_ids = [run_id for c in (line.condition, line.vector) if c is not None for run_id in c.run_ids]
        rows.append(Row((model, at, line.shape, *_cells(line)), tuple(run_ids), starts=bool(at)))
        before = (line.model, line.compared_at)
    used = {id(c): c for line in found for c in (line.condition, line.vector) if c is not None}
    notes = (*NOTES, *left_out(used.values()))
    table = Table("tableA2", CAPTION, HEADS, tuple(rows), notes, labels=3, measured=MEASURED)
    return write_table(table, [_record(line) for line in found], out, finding=_finding(found))


def against_vector(line: Line) -> tuple[Comparison, Comparison]:
    """Accuracy minus the vector's, and the log ratio of the densities, both paired by seed."""
    if line.condition is None or line.vector is None or line.condition is line.vector:
        nothing = Comparison(math.nan, math.nan, math.nan)
        return nothing, nothing
    return against(line.condition, line.vector)


def _cells(line: Line) -> tuple[str, ...]:
    alpha = "" if line.alpha is None else f"{line.alpha:.3g}"
    count, share = _overhead(line)
    overhead = (f"{count:,}", f"{share:.3g}")
    if line.condition is None or not len(line.condition.done):
        return (alpha, "not run", "not run", "", "", *overhead)
    accuracy, remaining = against_vector(line)
    return (
        alpha, with_seeds(line.condition.summary("test_accuracy")),
        with_seeds(line.condition.summary("density", scale=100)), points(accuracy), factor(remaining), *overhead,
    )  # fmt: skip


def _overhead(line: Line) -> tuple[int, float]:
    sizes = printed.layer_sizes()[line.model]
    count = sizes.thresholds(line.shape)
    return count, 100 * count / sizes.parameters


def _record(line: Line) -> dict[str, Any]:
    count, share = _overhead(line)
    accuracy, remaining = against_vector(line)
    condition = line.condition
    nothing = Summary(math.nan, math.nan, 0, 0)
    numbers: dict[str, Any] = {}
    for name, column, scale in (("accuracy", "test_accuracy", 1.0), ("remaining", "density", 100.0)):
        value = condition.summary(column, scale=scale) if condition is not None else nothing
        numbers |= {f"{name}_mean": value.mean, f"{name}_sd": value.sd, f"{name}_n": value.n}
    for name, comparison in (("accuracy_against_vector", accuracy), ("log_remaining_against_vector", remaining)):
        low, high = comparison.interval()
        numbers |= {name: comparison.difference, f"{name}_low": low, f"{name}_high": high}
    return {
        "model": line.model, "compared_at": line.compared_at, "threshold": line.shape, "alpha": line.alpha,
        "expected": 0 if condition is None else len(condition.rows), **numbers, "thresholds": count,
        "overhead_percent": share, "run_ids": "" if condition is None else ";".join(condition.run_ids),
    }  # fmt: skip


def _finding(found: Sequence[Line]) -> str:
    parts = []
    for model in dict.fromkeys(line.model for line in found):
        at = [line for line in found if line.model == model and line.compared_at == "equal alpha"]
        numbers = [_numbers(line.shape, c) for line in at if (c := line.condition) is not None and len(c.done)]
        shares = ", ".join(f"{line.shape} {_overhead(line)[1]:.3g} %" for line in at)
        text = "; ".join(numbers) or "not run"
        parts.append(f"{printed.architecture(model)} at equal alpha: {text} (overhead in training: {shares})")
    return ". ".join(parts) + "."


def _numbers(shape: str, condition: Condition) -> str:
    accuracy, remaining = condition.summary("test_accuracy").mean, condition.summary("density", scale=100)
    return f"{shape} {accuracy:.2f} % with {percentage(remaining)} % remaining"
