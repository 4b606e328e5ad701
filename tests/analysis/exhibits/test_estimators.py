"""The exhibit of the suite `estimators`: pairs that differ only in the estimator."""

from __future__ import annotations

import csv
import dataclasses
import math
import statistics
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import suite_rows

from analysis.build import exhibits
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.output.exhibit import Written
from benchmark import suites


def made() -> list[dict[str, Any]]:
    """A row for each cell of the suite; straight-through keeps twice as much, and is 0.3 points above."""
    rows = []
    for spec in suites.load("estimators").specs:
        other = spec.method["estimator"] != "long_tailed"
        share = 0.02 * (1 + other) * (1 + spec.seed / 100)
        rows.append(suite_rows.done(spec, accuracy=95 + 0.3 * other + 0.1 * spec.seed, density=share))
    return rows


def built(folder: Path, rows: list[dict[str, Any]]) -> tuple[Written, list[dict[str, str]]]:
    results = Results(load([suite_rows.write(folder / "in", rows)]))
    written = exhibits(results)["estimators"](folder)
    path = folder / "estimators.csv"
    if not path.exists():
        return written, []
    with path.open() as file:
        return written, list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.output.exhibit.save", lambda figure, out, name: plt.close(figure) or [])


def test_every_cell_of_the_suite_is_in_it_beside_its_pair(tmp_path: Path) -> None:
    rows = made()
    written, lines = built(tmp_path, rows)
    assert set(written.run_ids) == {row["run_id"] for row in rows}
    assert [(x["model"], float(x["alpha"]), x["estimator"]) for x in lines] == [
        (model, alpha, estimator)
        for model, alphas in (
            *((lenet, (5e-4, 1e-3)) for lenet in ("lenet-300-100", "lenet-5-caffe")),
            ("lstm-a", (1e-3, 2e-3)),
            ("vgg16", (5e-6, 1e-5)),
        )
        for alpha in alphas
        for estimator in ("long_tailed", "straight_through")
    ]
    for line in lines:
        other = line["estimator"] == "straight_through"
        assert float(line["test_accuracy_mean"]) == pytest.approx(95.1 + 0.3 * other)
        assert float(line["remaining_percent_mean"]) == pytest.approx(
            statistics.fmean(2 * (1 + other) * (1 + seed / 100) for seed in range(3))
        )
        compared = [line["accuracy_against_long_tailed"], line["log_remaining_against_long_tailed"]]
        assert [float(x) if x else None for x in compared] == (
            pytest.approx([0.3, math.log(2)]) if other else [None, None]
        )


def test_an_estimator_without_its_pair_is_compared_with_nothing(tmp_path: Path) -> None:
    written, lines = built(tmp_path, [row for row in made() if '"straight_through"' in row["spec"]])
    assert (written.files, written.remark, lines) == ((), "not run", [])


def test_cells_without_the_reset_or_in_no_protocol_are_no_pair(tmp_path: Path) -> None:
    kept = made()
    specs = [s for s in suites.load("estimators").specs if s.model.name == "lenet-300-100"]
    other = [dataclasses.replace(s, method={**s.method, "reset_density": None}) for s in specs]
    short = {s.run_id: dataclasses.replace(s.optimizer, epochs=5) for s in specs}
    other += [dataclasses.replace(s, protocol=(), optimizer=short[s.run_id]) for s in specs]
    written, _ = built(tmp_path, [*kept, *(suite_rows.done(s, accuracy=50.0, density=0.5) for s in other)])
    assert set(written.run_ids) == {row["run_id"] for row in kept}


@pytest.mark.parametrize("name", suites.NAMES)
def test_every_exhibit_that_a_suite_names_is_built_from_its_cells(name: str, tmp_path: Path) -> None:
    _, named = suites.describe()[name]
    rows = [suite_rows.done(spec, accuracy=90.0, density=0.1) for spec in suites.load(name).specs]
    found = exhibits(Results(load([suite_rows.write(tmp_path, rows)])))
    assert set(named) <= set(found)
