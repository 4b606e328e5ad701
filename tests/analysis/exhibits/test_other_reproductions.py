"""Another reproduction's numbers stand beside ours of the same setting and as many epochs, and of no other."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import synthetic

from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.exhibits import other_reproductions
from analysis.paper import printed
from analysis.paper.other_reproductions import reported

LENET = "lenet-300-100"


def cell(seed: int, kept: float, **given: Any) -> dict[str, Any]:
    return synthetic.cell(LENET, "dst", seed, kept=kept, accuracy=97.0 + seed, **given)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    rows = []
    for seed in range(2):
        rows += [
            cell(seed, 0.08, alpha=5e-4),
            cell(seed, 0.03, alpha=5e-4, epochs=60, protocol=""),
            cell(seed, 0.5, alpha=1e-3, epochs=60, protocol=""),
            cell(seed, 0.6, alpha=5e-4, epochs=60, protocol="", estimator="straight_through"),
            cell(seed, 0.7, alpha=5e-4, epochs=40, protocol=""),
        ]
    return Results(load([synthetic.write(tmp_path / "runs", rows)]))


def test_ours_are_of_the_same_alpha_estimator_and_epochs(results: Results) -> None:
    found = {
        line.reported.epochs: line
        for line in other_reproductions.lines(results.conditions)
        if line.reported.model == LENET
    }
    assert sorted(found) == [20, 60]
    for epochs, density in ((20, 0.08), (60, 0.03)):
        ours = found[epochs].ours
        assert ours is not None
        assert ours.by_seed("density") == {0: pytest.approx(density), 1: pytest.approx(density)}
    others = [line for line in other_reproductions.lines(results.conditions) if line.reported.model != LENET]
    assert others
    assert all(line.ours is None for line in others)


def test_the_table_has_the_paper_once_each_network_and_says_what_is_not_run(results: Results, tmp_path: Path) -> None:
    written = other_reproductions.makers(results)[other_reproductions.NAME](tmp_path)
    assert written.table is not None
    cells = [row.cells for row in written.table.rows]
    networks = dict.fromkeys(run.model for run in reported())
    assert [row[0] for row in cells if row[2] == "paper"] == [printed.architecture(model) for model in networks]
    assert [row[3] for row in cells if row[2] == "another reproduction"] == [str(run.epochs) for run in reported()]
    ours = [row for row in cells if row[2] == "ours"]
    assert [row[6] for row in ours] == ["8.00 ± 0.00", "3.00 ± 0.00"] + ["not run"] * (len(reported()) - 2)
    assert written.finding.startswith("2 of 8 reported runs have runs of ours beside them.")
    with (tmp_path / f"{other_reproductions.NAME}.csv").open() as file:
        records = list(csv.DictReader(file))
    assert [float(record["reported_density_percent"]) for record in records] == [r.density_percent for r in reported()]
    assert records[0]["reported_accuracy"] == ""
    assert records[1]["n"] == "2"


def test_every_reported_run_has_a_printed_number_and_the_papers_alpha() -> None:
    for line in other_reproductions.lines(()):
        assert line.target is not None
        assert line.target.alpha in (None, line.reported.alpha)
        assert line.reported.source
