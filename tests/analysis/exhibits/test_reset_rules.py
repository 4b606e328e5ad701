"""The exhibit of the suite `resets`: conditions that differ only in what is reset."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import suite_rows

from analysis.build import exhibits
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.output.exhibit import Written
from analysis.output.plotting import save
from benchmark import suites
from benchmark.spec import RunSpec

Rows = list[dict[str, Any]]
DENSITIES = {"layer": 0.02, "never": 0.0, "once": 0.04, "empty_units": 0.05, "recurrent_too": 0.06}


def rule(spec: RunSpec) -> str:
    if spec.method["reset_density"] is None:
        return "never"
    return str(spec.method.get("reset_rule", "layer"))


def made(specs: list[RunSpec]) -> tuple[Rows, Rows]:
    """Rows and layers: without any reset, seed 1 ends with an empty layer and seed 2 with nothing."""
    rows, layers = [], []
    for spec in specs:
        never = rule(spec) == "never"
        density = 0.01 * (2 - spec.seed) if never else DENSITIES[rule(spec)]
        row = suite_rows.done(spec, accuracy=90.0, density=density, threshold_resets=0 if never else 4 + spec.seed)
        rows.append(row)
        kept = (100, 0 if never and spec.seed else 5)
        layers += suite_rows.layers(row, {"fc1.weight": kept, "fc2.weight": (100, 7)})
    return rows, layers


def built(folder: Path, rows: Rows, layers: Rows) -> tuple[Written, list[dict[str, str]]]:
    results = Results(load([suite_rows.write(folder / "in", rows, layers=layers)]))
    written = exhibits(results)["reset-rules"](folder)
    path = folder / "reset-rules.csv"
    return written, list(csv.DictReader(path.open())) if path.exists() else []


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.output.exhibit.save", lambda figure, out, name: plt.close(figure) or [])


@pytest.mark.usefixtures("no_pictures")
def test_a_seed_whose_layers_are_not_recorded_counts_as_neither(tmp_path: Path) -> None:
    rows, layers = made([spec for spec in suites.load("resets").specs if spec.model.name == "lenet-300-100"])
    seeds = {row["run_id"]: row["seed"] for row in rows}
    built(tmp_path, rows, [layer for layer in layers if seeds[layer["run_id"]] != 2])
    text = (tmp_path / "reset-rules.md").read_text()
    assert "| 1 of 2 |" in text
    assert "of 3 |" not in text


@pytest.mark.usefixtures("no_pictures")
def test_every_cell_of_the_suite_is_in_it_with_its_rule(tmp_path: Path) -> None:
    rows, layers = made(list(suites.load("resets").specs))
    written, lines = built(tmp_path, rows, layers)
    assert set(written.run_ids) == {row["run_id"] for row in rows}
    at_1e_3 = [(line["model"], line["reset"]) for line in lines if float(line["alpha"]) == 1e-3]
    assert at_1e_3 == [
        ("lenet-300-100", "published"),
        ("lenet-300-100", "never"),
        ("lenet-5-caffe", "published"),
        ("lenet-5-caffe", "never"),
        ("lenet-5-caffe", "once"),
        ("lenet-5-caffe", "empty_units"),
        ("lstm-a", "published"),
        ("lstm-a", "recurrent_too"),
        ("lstm-b", "published"),
        ("lstm-b", "recurrent_too"),
    ]
    for line in lines:
        never = line["reset"] == "never"
        assert int(line["seeds_with_an_empty_layer"]) == (2 if never else 0)
        assert float(line["threshold_resets_mean"]) == (0 if never else 5)
        if not never:
            assert float(line["remaining_percent_mean"]) == pytest.approx(
                100 * DENSITIES[line["reset"].replace("published", "layer")]
            )


def test_a_seed_that_keeps_nothing_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a logarithmic axis a density of 0 would be no point."""
    drawn: list[Any] = []

    def keep(figure: Any, out: Path, name: str) -> Any:
        drawn.extend(y for axis in figure.axes for line in axis.lines for y in line.get_ydata())
        return save(figure, out, name)

    monkeypatch.setattr("analysis.output.exhibit.save", keep)
    rows, layers = made([s for s in suites.load("resets").specs if s.model.name == "lenet-300-100"])
    built(tmp_path, rows, layers)
    assert min(drawn) == 0.01
    assert sum(y == 0.01 for y in drawn) == 7  # seed 2, without any reset, at seven alphas


@pytest.mark.usefixtures("no_pictures")
def test_a_rule_that_was_run_by_itself_is_compared_with_nothing(tmp_path: Path) -> None:
    rows, layers = made([s for s in suites.load("resets").specs if rule(s) == "once"])
    written, lines = built(tmp_path, rows, layers)
    assert (written.files, written.remark, lines) == ((), "not run", [])


@pytest.mark.usefixtures("no_pictures")
def test_another_estimator_or_share_is_no_rule(tmp_path: Path) -> None:
    specs = [s for s in suites.load("resets").specs if s.model.name == "lenet-300-100"]
    other = [
        dataclasses.replace(s, method={**s.method, **changed})
        for s in specs
        for changed in ({"estimator": "straight_through"}, {"reset_density": 0.02})
    ]
    rows, layers = made([*specs, *dict.fromkeys(other)])
    written, _ = built(tmp_path, rows, layers)
    assert set(written.run_ids) == {spec.run_id for spec in specs}
