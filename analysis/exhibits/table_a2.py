"""Appendix A.2: one threshold a layer, one a row, one a weight; compared in the three ways of the suite `thresholds`.

The paper says in words what they give, and prints no numbers.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis import paper
from analysis.exhibit import Maker, Results, Written, write_layout
from analysis.layout import Layout
from analysis.render import factor, points, reading
from analysis.settings import Setting, Summary
from analysis.stats import Comparison, against_fixed, paired
from analysis.tables import left_out

SHAPES = ("scalar", "vector", "matrix")
ARCHITECTURES = Path(__file__).with_name("architectures.csv")
CAPTION = "Scalar, vector and matrix thresholds (appendix A.2, which prints no numbers), as measured here; last epoch"
NOTES = (
    "Accuracy and remaining ratio: mean ± sample standard deviation over n seeds, last epoch. Against vector: at the "
    "default alpha; accuracy paired by seed, with the 95 % t interval; remaining as ratio, likewise.",
    "Equal alpha: the default of A.1 for every shape. Equal penalty: alpha times (vector thresholds) / (thresholds of "
    "the shape), so that the penalty at the start is the same in all. Matched density: the alphas run here whose "
    "remaining ratio comes nearest to the vector's from above and from below.",
    "Overhead: thresholds trained beside the parameters, in percent of the dense network's parameters; after training "
    "none is kept.",
)


@dataclass(frozen=True)
class Architecture:
    """Facts of a model that results tables do not hold: maskable layers, their output units and weights, parameters."""

    layers: int
    rows: int
    weights: int
    parameters: int

    def thresholds(self, shape: str) -> int:
        return {"scalar": self.layers, "vector": self.rows, "matrix": self.weights}[shape]


@dataclass(frozen=True)
class Line:
    """One shape in one comparison. setting: None where nothing is run."""

    model: str
    compared_at: str
    shape: str
    alpha: float | None
    setting: Setting | None
    vector: Setting | None


def makers(results: Results) -> dict[str, Maker]:
    return {"tableA2": lambda out: _table(results, out)}


def architectures() -> dict[str, Architecture]:
    """By model, those that the suite compares; tests hold them against the models themselves."""
    with ARCHITECTURES.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {row.pop("model"): Architecture(**{name: int(value) for name, value in row.items()}) for row in rows}


def lines(settings: Sequence[Setting]) -> list[Line]:
    """Every line of the table, run or not, a model at a time."""
    found = []
    for model, architecture in architectures().items():
        printed = [*paper.targets("table1"), *paper.targets("table2")]
        default = next(target.alpha for target in printed if target.model == model and target.alpha)
        own = {shape: [s for s in settings if s.model == model and _shape(s) == shape] for shape in SHAPES}
        vector = _at(own["vector"], default)
        found += [Line(model, "equal alpha", shape, default, _at(own[shape], default), vector) for shape in SHAPES]
        for shape in ("scalar", "matrix"):
            alpha = (default or 0.0) * architecture.rows / architecture.thresholds(shape)
            found.append(Line(model, "equal penalty a weight", shape, alpha, _at(own[shape], alpha), vector))
        for shape in ("scalar", "matrix"):
            for side, setting in matched(own[shape], vector).items():
                alpha_run = None if setting is None else setting.alpha
                found.append(Line(model, f"matched density, {side}", shape, alpha_run, setting, vector))
    return found


def matched(settings: Sequence[Setting], vector: Setting | None) -> dict[str, Setting | None]:
    """The settings whose mean density is nearest to the vector's, from above and from below."""
    if vector is None or not len(vector.done):
        return {"above": None, "below": None}
    wanted = vector.summary("density").mean
    known = [(s.summary("density").mean, s) for s in settings if len(s.done)]
    above = min((pair for pair in known if pair[0] >= wanted), key=lambda pair: pair[0], default=(0, None))
    below = max((pair for pair in known if pair[0] < wanted), key=lambda pair: pair[0], default=(0, None))
    return {"above": above[1], "below": below[1]}


def _shape(setting: Setting) -> str:
    """The shape of thresholds of a cell that A.2's comparison can use, else nothing."""
    rate = paper.RATES["table2"] if setting.dataset == "cifar10" else None
    usable = (
        setting.method == "dst"
        and setting.dataset in paper.DATASETS
        and setting.protocols[:1] == ("paper",)
        and setting.estimator_as_published
        and setting.whole_data
        and rate in (None, setting.spec["optimizer"]["lr"])
    )
    return str(setting.spec["method"].get("threshold", "vector")) if usable else ""


def _at(settings: Sequence[Setting], alpha: float | None) -> Setting | None:
    close = [s for s in settings if alpha and s.alpha and math.isclose(s.alpha, alpha, rel_tol=1e-6) and len(s.rows)]
    return max(close, key=lambda s: len(s.done), default=None)


def _table(results: Results, out: Path) -> Written:
    found = lines(results.settings)
    body: list[tuple[str, ...]] = []
    starts: list[int] = []
    before = ("", "")
    for line in found:
        model = paper.ARCHITECTURES[line.model] if line.model != before[0] else ""
        at = line.compared_at if (line.model, line.compared_at) != before else ""
        starts += [len(body)] if at else []
        body.append((model, at, line.shape, *_cells(line)))
        before = (line.model, line.compared_at)
    heads = (
        "Architecture", "Compared at", "Threshold", "alpha", "Accuracy (%)", "Remaining (%)",
        "Accuracy − vector's [95 %]", "Remaining / vector's [95 %]", "Thresholds", "Overhead in training (%)",
    )  # fmt: skip
    used = {id(s): s for line in found for s in (line.setting, line.vector) if s is not None}
    notes = (*NOTES, *left_out(used.values()))
    shown = Layout("tableA2", CAPTION, heads, tuple(body), notes, labels=3, starts=tuple(starts))
    run_ids = [run_id for s in used.values() for run_id in s.done["run_id"]]
    return write_layout(shown, [_record(line) for line in found], out, run_ids=run_ids, finding=_finding(found))


def against_vector(line: Line) -> tuple[Comparison, Comparison]:
    """Accuracy minus the vector's, and the logarithm of the densities' ratio, both paired by seed."""
    if line.setting is None or line.vector is None or line.setting is line.vector:
        nothing = Comparison(math.nan, math.nan, math.nan)
        return nothing, nothing
    accuracies = (s.by_seed("test_accuracy") for s in (line.setting, line.vector))
    logs = ({k: math.log(v) for k, v in s.by_seed("density").items() if v > 0} for s in (line.setting, line.vector))
    return against_fixed(paired(*accuracies), 0.0), against_fixed(paired(*logs), 0.0)


def _cells(line: Line) -> tuple[str, ...]:
    alpha = "" if line.alpha is None else f"{line.alpha:.3g}"
    count, share = _overhead(line)
    overhead = (f"{count:,}", f"{share:.3g}")
    if line.setting is None or not len(line.setting.done):
        return (alpha, "not run", "not run", "", "", *overhead)
    accuracy, remaining = against_vector(line)
    return (
        alpha, reading(line.setting.summary("test_accuracy")), reading(line.setting.summary("density", scale=100)),
        points(accuracy), factor(remaining), *overhead,
    )  # fmt: skip


def _overhead(line: Line) -> tuple[int, float]:
    architecture = architectures()[line.model]
    count = architecture.thresholds(line.shape)
    return count, 100 * count / architecture.parameters


def _record(line: Line) -> dict[str, Any]:
    count, share = _overhead(line)
    accuracy, remaining = against_vector(line)
    setting = line.setting
    nothing = Summary(math.nan, math.nan, 0, 0)
    numbers: dict[str, Any] = {}
    for name, column, scale in (("accuracy", "test_accuracy", 1.0), ("remaining", "density", 100.0)):
        value = setting.summary(column, scale=scale) if setting is not None else nothing
        numbers |= {f"{name}_mean": value.mean, f"{name}_sd": value.sd, f"{name}_n": value.n}
    for name, comparison in (("accuracy_against_vector", accuracy), ("log_remaining_against_vector", remaining)):
        low, high = comparison.interval()
        numbers |= {name: comparison.difference, f"{name}_low": low, f"{name}_high": high}
    return {
        "model": line.model, "compared_at": line.compared_at, "threshold": line.shape, "alpha": line.alpha,
        "expected": 0 if setting is None else len(setting.rows), **numbers, "thresholds": count,
        "overhead_percent": share, "run_ids": "" if setting is None else ";".join(setting.done["run_id"]),
    }  # fmt: skip


def _finding(found: Sequence[Line]) -> str:
    parts = []
    for model in dict.fromkeys(line.model for line in found):
        at = [line for line in found if line.model == model and line.compared_at == "equal alpha"]
        run = [_told(line.shape, line.setting) for line in at if line.setting is not None and len(line.setting.done)]
        shares = ", ".join(f"{line.shape} {_overhead(line)[1]:.3g} %" for line in at)
        told = "; ".join(run) if run else "not run"
        parts.append(f"{paper.ARCHITECTURES[model]} at equal alpha: {told} (overhead in training: {shares})")
    return ". ".join(parts) + "."


def _told(shape: str, setting: Setting) -> str:
    accuracy, remaining = setting.summary("test_accuracy").mean, setting.summary("density", scale=100).mean
    return f"{shape} {accuracy:.2f} % with {remaining:.2f} % remaining"
