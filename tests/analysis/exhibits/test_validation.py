"""The exhibit of the suite `validation`: two runs of one training, and the epoch that one chooses for the other."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import synthetic

from analysis.build import exhibits
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.exhibits.validation import READINGS, pairs
from analysis.output.exhibit import Written
from benchmark.suites import validation

ROOT = Path(__file__).resolve().parents[3]
Row = dict[str, Any]
HELD_OUT = (90.0, 97.0, 96.0)  # by epoch
TEST = (91.0, 95.0, 96.5)
DENSITY = (0.9, 0.4, 0.3)


def cells(seeds: range = range(2), **data: Any) -> list[Row]:
    return [
        synthetic.cell("lenet-300-100", "dst", seed, epochs=3, alpha=5e-4, protocol="", sections={"data": data})
        for seed in seeds
    ]


def traces(rows: list[Row], accuracies: tuple[float, ...], densities: tuple[float, ...] = DENSITY) -> list[Row]:
    return [
        {"run_id": row["run_id"], "epoch": epoch, "step": "", "name": name, "value": value + row["seed"] / 100}
        for row in rows
        for name, values in (("test_accuracy", accuracies), ("density", densities))
        for epoch, value in enumerate(values, start=1)
    ]


def made(folder: Path, rows: list[Row], lines: list[Row]) -> tuple[Results, Written]:
    synthetic.write(folder / "in", rows)
    synthetic.save(folder / "in/traces.csv", ("run_id", "epoch", "step", "name", "value"), lines)
    results = Results(load([folder / "in"]))
    return results, exhibits(results)["validation"](folder)


def test_the_epoch_is_chosen_on_the_held_out_examples_and_read_on_the_test_set(tmp_path: Path) -> None:
    held_out, test = cells(validation=5_000), cells(train_limit=55_000)
    _, written = made(tmp_path, [*held_out, *test], [*traces(held_out, HELD_OUT), *traces(test, TEST)])
    with (tmp_path / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["reading"] for row in rows] == [*READINGS, *READINGS]
    first = {row["reading"]: row for row in rows[:3]}
    assert [first[reading]["epoch"] for reading in READINGS] == ["2", "3", "3"]
    chosen = {name: float(first[READINGS[0]][name]) for name in ("held_out_accuracy", "test_accuracy", "density")}
    assert chosen == {"held_out_accuracy": 97.0, "test_accuracy": 95.0, "density": 0.4}
    assert set(written.run_ids) == {row["run_id"] for row in (*held_out, *test)}
    expected = "The best epoch on the test set is above the chosen one by: Lenet-300-100 1.50 ± 0.00 points (n=2)."
    assert written.finding == expected
    text = (tmp_path / "validation.md").read_text()
    assert f"| {READINGS[0]} | 2, 2 | 95.00 ± 0.01 (n=2) | 40.50 ± 0.71 (n=2) | 97.69 ± 0.14 | 2.48 ± 0.21 |" in text


def test_two_runs_of_other_densities_are_not_one_training(tmp_path: Path) -> None:
    held_out, test = cells(range(1), validation=5_000), cells(range(1), train_limit=55_000)
    lines = [*traces(held_out, HELD_OUT), *traces(test, TEST, (0.9, 0.4, 0.30001))]
    results, written = made(tmp_path, [*held_out, *test], lines)
    assert [pair.seeds for pair in pairs(results)] == [()]
    assert written.remark.endswith("1 left out, whose two runs differ")
    assert written.is_empty


@pytest.mark.parametrize("kind", [{"validation": 5_000}, {"train_limit": 55_000}, {}])
def test_one_of_the_two_runs_shows_nothing(kind: dict[str, int], tmp_path: Path) -> None:
    rows = cells(**kind)
    _, written = made(tmp_path, rows, traces(rows, TEST))
    assert written.remark == "not run"


def test_the_page_says_what_the_committed_table_says() -> None:
    kept: dict[str, list[float]] = {}
    accuracies: list[float] = []
    with (ROOT / "paper_figures/validation.csv").open() as file:
        for row in csv.DictReader(file):
            if row["reading"] == READINGS[0]:
                kept.setdefault(row["model"], []).append(100 * float(row["density"]))
                accuracies += [float(row["test_accuracy"])] if row["model"] == "lstm-a" else []
    first, second, third = (kept[name] for name in ("lenet-300-100", "lenet-5-caffe", "lstm-a"))
    page = " ".join((ROOT / "REPRODUCIBILITY.md").read_text().split())
    assert f"keeps {fmean(first):.2f} ± {stdev(first):.2f} % on LeNet-300-100" in page
    assert f"and {min(second):.2f} to {max(second):.2f} % on LeNet-5-Caffe." in page
    reached = f"{fmean(accuracies):.2f} ± {stdev(accuracies):.2f} %"
    assert f"{fmean(third):.2f} ± {stdev(third):.2f} %, printed 1.93 %, but at {reached}, printed 98.70 %" in page
    assert "(n=3 each)" in page
    assert [len(first), len(second), len(third)] == [3, 3, 3]


def test_the_suite_has_pairs_for_the_exhibit(tmp_path: Path) -> None:
    """Each network of Table 1 and seed once."""
    rows = [synthetic.pending_row(spec, ("validation",)) for spec in validation.suite()]
    measured = {"test_accuracy": 97.0, "best_test_accuracy": 97.0, "density": 0.3, "epochs": 3}
    done = [row | measured | {"status": "done", "density_at_best_test_accuracy": 0.3} for row in rows]
    results, _ = made(tmp_path, done, traces(done, TEST))
    assert [(pair.condition.model, len(pair.seeds)) for pair in pairs(results)] == [
        (name, 3) for name in ("lenet-300-100", "lenet-5-caffe", "lstm-a", "lstm-b")
    ]
