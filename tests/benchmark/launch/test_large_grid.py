"""A grid of 10,000 cells fits in memory, and nothing of it is lost on the way to the tables."""

from __future__ import annotations

import collections
import csv
from pathlib import Path

import large_grid
import pytest

LIMIT_BYTES = 500 * 10**6


@pytest.mark.slow
@pytest.mark.rare
def test_ten_thousand_cells_are_planned_reported_and_tabled_in_half_a_gigabyte(tmp_path: Path) -> None:
    suite, out = large_grid.write_suite(tmp_path / "stubs.py", large_grid.CELLS), tmp_path / "runs"
    half = large_grid.CELLS // 2
    specs = large_grid.build(suite, out, done=half)

    def command(verb: str, *words: str) -> str:
        cost = large_grid.cost("-m", "benchmark", verb, "--out", out, *words)
        assert (cost.code, cost.stderr) == (0, "")
        assert cost.peak_bytes < LIMIT_BYTES, verb
        return cost.stdout

    assert f"{large_grid.CELLS} cells; {half} done, {half} pending" in command("status")
    assert command("plan", "--suite", suite).startswith(f"suite stubs: {large_grid.CELLS} cells")
    large_grid.build(suite, out, begin=half)
    assert f"{large_grid.CELLS} of them ended before" in command("run", "--no-mlflow", "--suite", suite)
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run_id"] for row in rows] == [spec.run_id for spec in specs]
    assert {row["status"] for row in rows} == {"done"}
    with (out / "traces.csv").open(newline="") as file:
        traced = collections.Counter(row["run_id"] for row in csv.DictReader(file))
    assert len(traced) == large_grid.CELLS
    assert len(set(traced.values())) == 1
