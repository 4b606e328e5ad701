"""The saw-tooth of resets: which way the density seems to drift from epoch to epoch."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
import pytest
import suite_rows

from analysis.build import exhibits
from analysis.data.comparable import Group
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.exhibits.threshold_resets import Saw, falls_and_rises, finding, saws
from benchmark import suites


def saw(folder: Path, every: float, epochs: int = 20) -> Saw:
    """A network that is reset once in so many epochs, and prunes evenly from 90 % down to 2 % in between."""
    spec = next(s for s in suites.load("mnist").specs if s.method.get("alpha") == 1e-3 and "caffe" in s.model.name)
    row = suite_rows.done(spec, accuracy=99.0, density=0.02)
    (condition,) = Results(load([suite_rows.write(folder, [row])])).conditions
    resets = [int(epoch / every + 1e-9) - int((epoch - 1) / every + 1e-9) for epoch in range(1, epochs + 1)]
    since = [(epoch / every) % 1 for epoch in range(1, epochs + 1)]
    rows = pd.DataFrame({
        "run_id": row["run_id"], "seed": 0, "epoch": range(1, epochs + 1), "resets": resets,
        "density_percent": [90 - 88 * share for share in since], "test_accuracy": 99.0,
    })  # fmt: skip
    return Saw(Group("LeNet-5-Caffe", (condition,)), condition, rows)


@pytest.mark.parametrize(("every", "drift"), [(0.9, "fall"), (0.54, "rise")])
def test_the_drift_over_epochs_is_that_of_the_epochs(tmp_path: Path, every: float, drift: str) -> None:
    """Reset every 0.9 epochs, each epoch ends a ninth of the way later; every 0.54 epochs, a seventh earlier."""
    found = saw(tmp_path, every)
    changes = list(itertools.pairwise(found.epochs["density_percent"][found.epochs["resets"].cumsum() > 0]))
    falls, rises = (sum(sign * after < sign * before for before, after in changes) for sign in (1, -1))
    assert falls_and_rises(found) == (falls, rises)
    assert (falls > rises) == (drift == "fall")
    said = f"seems to {drift} over several epochs: from one epoch's end to the next it falls {falls} times and rises "
    assert f"{said}{rises} times." in finding([found])


def test_an_alpha_with_resets_but_without_traces_is_not_said_to_be_without_resets(tmp_path: Path) -> None:
    """Of three alphas of LeNet-5-Caffe: one is drawn, one was reset and has no traces, one was never reset."""
    specs = [s for s in suites.load("mnist").specs if s.model.name == "lenet-5-caffe" and s.seed == 0]
    specs = [s for s in specs if s.method.get("alpha") in (2.5e-4, 5e-4, 1e-3)]
    rows = [
        suite_rows.done(spec, accuracy=99.0, density=0.02) | {"threshold_resets": resets}
        for spec, resets in zip(specs, (4, 3, 0), strict=True)
    ]
    recorded = {"density": [0.02] * 20, "threshold_resets": [0, 4] + [4] * 18, "test_accuracy": [99.0] * 20}
    traces = suite_rows.records(rows[0], recorded)
    results = Results(load([suite_rows.write(tmp_path / "in", rows, traces=traces)]))
    written = exhibits(results)["mnist-lenet-5-caffe-resets"](tmp_path)
    quiet, reset = (f"alpha {float(row['alpha']):g}" for row in (rows[2], rows[1]))
    assert written.remark == f"no reset at {quiet}; resets, but no traces.csv, at {reset}"


def test_resets_more_than_an_epoch_apart_need_no_explanation(tmp_path: Path) -> None:
    assert "seems to" not in finding([saw(tmp_path, 2.5)])


def test_a_seed_without_the_record_of_resets_is_not_drawn(tmp_path: Path) -> None:
    specs = [s for s in suites.load("mnist").specs if s.model.name == "lenet-5-caffe" and s.method.get("alpha") == 1e-3]
    rows = [suite_rows.done(s, accuracy=99.0, density=0.02) | {"threshold_resets": 4} for s in specs if s.seed < 3]
    recorded = {"density": [0.02] * 20, "threshold_resets": [0, 4] + [4] * 18, "test_accuracy": [99.0] * 20}
    parts = [recorded, {name: recorded[name] for name in ("density", "test_accuracy")}, recorded]
    traces = [line for row, part in zip(rows, parts, strict=True) for line in suite_rows.records(row, part)]
    results = Results(load([suite_rows.write(tmp_path, rows, traces=traces)]))
    (condition,) = results.conditions
    (found,) = saws(results.tables, Group("LeNet-5-Caffe", (condition,)))
    assert found.seeds == [0, 2]
