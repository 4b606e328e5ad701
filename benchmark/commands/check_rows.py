"""Checks a row of a results table that somebody sent, by itself and with its layers and records.

Each problem is one line that says what is wrong and what to do.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from benchmark.commands import published
from benchmark.commands.row_numbers import HIGHEST, number
from benchmark.messages import LONGEST, shown
from benchmark.results import MEASURED, NEEDED, SEPARATOR, STATUSES, TIMES, Row
from benchmark.spec import FILE_NAME
from methods.registry import method_class

COMMIT = re.compile(r"[0-9a-f]{7,40}(-dirty)?|unknown(-dirty)?")
TEXTS = ("device", "departs", "error", "commit", "suite", "protocol")
FLOPS = ("train_flops", "inference_flops", "executed_flops")
LAST = ("test_top5_accuracy", "nonzero_density", "threshold_resets")  # columns that hold the last epoch's record
SUMMED = "mask_flips"  # the column that adds up the records; earlier versions recorded fewer names
OF_A_UNIT = 0.25  # the share of the target density by which methods that remove whole units may miss it
EXPORT = "export the cell again from its run folder"

Layers = Mapping[str, tuple[float, float]]


@dataclass
class Records:
    """The records of one cell in traces.csv.

    values: by (epoch, step, name); step is None in records of an epoch.
    """

    values: dict[tuple[float, float | None, str], float] = field(default_factory=dict)

    def by_epoch(self) -> dict[str, list[float]]:
        """The values that were recorded once per epoch, in order, by name."""
        found: dict[str, dict[float, float]] = {}
        for (epoch, step, name), value in self.values.items():
            if step is None:
                found.setdefault(name, {})[epoch] = value
        return {name: [values[epoch] for epoch in sorted(values)] for name, values in found.items()}

    def untimed(self) -> dict[tuple[float, float | None, str], float]:
        """The values without times, which differ between two trainings of one cell."""
        return {key: value for key, value in self.values.items() if not re.search("seconds|time", key[2])}


def problems(row: Row, layers: Layers, records: Records) -> Iterator[str]:
    """What is wrong with the row of a cell."""
    if damage := published.damage(row):
        yield f"{damage}: {EXPORT}"
        return
    values: dict[str, float] = {}
    for name in ("alpha", "density_target", "seed", *MEASURED):
        try:
            values[name] = number(row[name])
        except ValueError as error:
            yield f"{name}: {error}: {EXPORT}"
    yield from _of_texts(row)
    if row["status"] == "done" and len(values) == len(MEASURED) + 3:
        method = json.loads(row["spec"])["method"]["name"]
        found = [_measured(row, values), _densities(method, values, layers), _flops(method, values, layers)]
        yield from (f"{problem}: {EXPORT}" for some in (*found, _recorded(values, records)) for problem in some)


def _of_texts(row: Row) -> Iterator[str]:
    if row["status"] not in STATUSES:
        yield f"status is {shown(row['status'])}: it must be one of {', '.join(STATUSES)}"
    for name in TEXTS:
        if not row[name].isprintable():
            yield f"{name} has characters that do not print, {shown(row[name])}: remove them"
        elif name not in ("departs", "suite", "protocol") and len(row[name]) > LONGEST:
            yield f"{name} has {len(row[name])} characters: at most {LONGEST} are read, so shorten it"
    for name in ("suite", "protocol"):
        if not all(FILE_NAME.fullmatch(part) for part in row[name].split(SEPARATOR) if part):
            yield f"{name} is {shown(row[name])}: it must be names of A-Z a-z 0-9 . _ - joined by '{SEPARATOR}'"
    if row["status"] == "done" and not row["device"]:
        yield "device is empty: say what the cell was trained on"
    if row["status"] == "done" and not COMMIT.fullmatch(row["commit"]):
        yield f"commit is {shown(row['commit'])}: it must be a commit's hexadecimal digits, or unknown"


def _measured(row: Row, values: Mapping[str, float]) -> Iterator[str]:
    """The range of each column, and which of two columns is the larger one."""
    for name in NEEDED:
        if math.isnan(values[name]):
            yield f"{name} of a done cell is empty"
    for name, highest in HIGHEST.items():
        if not 0 <= values[name] <= highest and not math.isnan(values[name]):
            yield f"{name} is {values[name]:g}, which is not in [0, {highest:g}]"
    for low_name, high_name in (
        ("test_accuracy", "best_test_accuracy"),
        ("test_accuracy", "test_top5_accuracy"),
        ("min_density", "density"),
        ("nonzero_density", "density"),
    ):
        if values[low_name] > values[high_name]:
            yield f"{low_name} is {values[low_name]:g}, above {high_name}, {values[high_name]:g}"
    wanted = json.loads(row["spec"])["optimizer"]["epochs"]
    if values["epochs"] < wanted or values["epochs"] % 1 > 0:
        yield f"epochs is {values['epochs']:g}, but its spec trains {wanted}"
    for name in TIMES:
        if values[name] <= 0:
            yield f"{name} is {values[name]:g}: it must be above 0"


def _densities(method: str, values: Mapping[str, float], layers: Layers) -> Iterator[str]:
    weights, kept = (sum(counts) for counts in zip(*layers.values(), strict=True)) if layers else (math.nan, math.nan)
    density, target = values["density"], values["density_target"]
    if layers and not math.isclose(kept / weights, density, rel_tol=1e-9):
        yield f"density is {density:g}, but its layers keep {kept:g} of {weights:g} weights"
    promise = promised(method)
    if promise == "dense" and density != 1:
        yield f"density is {density:g}, but {method} keeps every weight"
    if promise in ("exact", "final") and not math.isnan(target):
        of_units = method_class(method).granularity == "unit"
        off = OF_A_UNIT * target if of_units else len(layers) / weights if layers else 0.01 * target
        if abs(density - target) > off:
            yield f"density is {density:g}, but {method} promises its density_target, {target:g}"


def _flops(method: str, values: Mapping[str, float], layers: Layers) -> Iterator[str]:
    """A dense step costs three forward passes, other steps cost less. A pass uses every kept weight."""
    train, inference, executed = (values[name] for name in FLOPS)
    for name in FLOPS:
        nothing_is_kept = name == "inference_flops" and values["density"] == values[name] == 0
        if values[name] <= 0 and not nothing_is_kept:
            yield f"{name} is {values[name]:g}: it must be above 0"
            return
    if train > executed:
        yield f"train_flops is {train:g}, above executed_flops, {executed:g}, which dense kernels need"
    if promised(method) == "dense":
        if train < executed:
            yield f"train_flops is {train:g}, but {method} needs all executed_flops, {executed:g}"
        passes = 3 * inference * values["epochs"]
        if passes and train % passes > 0:  # nan, where a table lacks a column, is no problem
            yield f"train_flops is {train:g}, no multiple of 3 x inference_flops x epochs"
    if inference < (least := 2 * sum(kept for _, kept in layers.values())):
        yield f"inference_flops is {inference:g}, but the kept weights need {least:g}"


def _recorded(values: Mapping[str, float], records: Records) -> Iterator[str]:
    """The row's numbers are those of the epochs in traces.csv."""
    series = records.by_epoch()
    accuracies, densities = series.get("test_accuracy", []), series.get("density", [])
    if not records.values:
        return
    if not accuracies or len(accuracies) != len(densities):
        counts = f"test_accuracy of {len(accuracies)} epochs and density of {len(densities)}"
        yield f"traces.csv has {counts}: it must have both of every epoch"
        return
    if len(accuracies) != values["epochs"] and not math.isnan(values["epochs"]):
        yield f"epochs is {values['epochs']:g}, but traces.csv has test_accuracy of {len(accuracies)} epochs"
        return
    recorded = {
        "test_accuracy": accuracies[-1],
        "best_test_accuracy": max(accuracies),
        "density_at_best_test_accuracy": densities[accuracies.index(max(accuracies))],
        "density": densities[-1],
        "min_density": min(densities),
        "test_accuracy_at_min_density": accuracies[densities.index(min(densities))],
    }
    others = {name: series[name] for name in (*LAST, SUMMED) if len(series.get(name, ())) == len(accuracies)}
    recorded |= {name: sum(found) if name == SUMMED else found[-1] for name, found in others.items()}
    for name, value in recorded.items():
        if not math.isnan(values[name]) and values[name] != value:
            yield f"{name} is {values[name]!r}, but traces.csv says {value!r}"


def promised(method: str) -> str:
    """A method's density_promise; empty if the method is not installed."""
    try:
        return method_class(method).density_promise
    except ValueError:
        return ""
