"""What changed between a stop and the next run is refused by name, or accepted and flagged in every table."""

from __future__ import annotations

import collections
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import grids
import pytest
from one_cell import Runner, make_spec

from benchmark import results
from benchmark.commands import suite_changes
from benchmark.run_folder.attempts import numbers
from benchmark.run_folder.files import read_json, sealed, write_json
from benchmark.spec import RunSpec
from benchmark.suites import Suite

SUITE = """
import sys
sys.path.insert(0, {tests!r})
from one_cell import make_spec


def suite():
    return [make_spec()]
"""
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A folder whose only cell was stopped in its third epoch of four, and its suite file."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "grid.py").write_text(SUITE.format(tests=str(Path(__file__).parents[1])))
    out = folder / "runs"
    results.prepare(out)
    results.remember(out, "grid", [], [make_spec()])
    assert Runner(out, make_spec()).run(stop_after=2).status == "interrupted"
    return folder


def written_in(out: Path, **environment: Any) -> None:
    """As if the checkpoints came from another environment: changed, and sealed again."""
    for manifest in grids.checkpoints(out):
        document = read_json(manifest)
        write_json(manifest, sealed({**document, "environment": document["environment"] | environment}))


@pytest.mark.slow
def test_another_environment_is_refused_by_name_or_flagged(stopped: Path, tmp_path: Path, bench: grids.Bench) -> None:
    shutil.copytree(stopped, tmp_path / "copy")
    out = tmp_path / "copy" / "runs"
    command = ("run", "--suite", tmp_path / "copy" / "grid.py", "--out", out)
    written_in(out, threads=2, torch="2.12.0", data="synthetic-0")
    refused = bench(*command)
    assert refused.code == 2
    differences = ("torch: 2.12.0 -> ", "threads: 2 -> 1", "data: synthetic-0 -> synthetic-1")
    assert all(text in refused.error for text in (*differences, "--accept-drift", make_spec().run_id))
    assert [row["status"] for row in results.rows(out)] == ["pending"]
    accepted = bench(*command, "--accept-drift")
    assert (accepted.code, accepted.stderr) == (0, "")
    flagged(out, [f"drift: {difference}" for difference in differences], tmp_path)


def flagged(out: Path, departs: list[str], tmp_path: Path) -> None:
    """The tables, the summary and the exhibits say so, and no mean counts the cell."""
    (row,) = [row for row in grids.tables(out)["results.csv"] if row["departs"]]
    assert all(text in row["departs"] for text in departs)
    from analysis import build
    from analysis.data import read

    built = build.build(read.load([out]), tmp_path / "exhibits", only=["synthetic"])
    text = next((path.read_text() for path in built[0].files if path.suffix == ".md"), built[0].remark)
    assert "1 resumed in a changed environment or suite (drift)" in text
    assert "Left out of every mean: lenet-300-100 dst alpha 0.01" in text


@pytest.mark.slow
def test_a_changed_suite_is_refused_by_name_or_its_old_cells_are_flagged(
    stopped: Path, tmp_path: Path, bench: grids.Bench
) -> None:
    shutil.copytree(stopped, tmp_path / "copy")
    suite, out = tmp_path / "copy" / "grid.py", tmp_path / "copy" / "runs"
    suite.write_text(suite.read_text().replace("make_spec()]", "make_spec(epochs=1)]"))
    command = ("run", "--suite", suite, "--out", out)
    refused = bench(*command)
    assert refused.code == 2
    assert "suite grid was changed since" in refused.error
    assert "(lenet-300-100 dst alpha=0.01 seed=0: optimizer.epochs: 4 -> 1)" in refused.error
    assert [row["departs"] for row in results.rows(out)] == [""]
    accepted = bench(*command, "--accept-drift")
    assert (accepted.code, accepted.stderr) == (0, "")
    flagged(out, ["drift: suite: optimizer.epochs: 4 -> 1"], tmp_path)
    assert bench(*command).code == 0, "once accepted, accepted"


@pytest.mark.slow
def test_more_cells_other_seeds_and_changed_fields_are_no_change_of_the_suite(
    stopped: Path, tmp_path: Path, bench: grids.Bench
) -> None:
    shutil.copytree(stopped, tmp_path / "copy")
    suite, out = tmp_path / "copy" / "grid.py", tmp_path / "copy" / "runs"
    assert bench("run", "--suite", suite, "--out", out, "--seeds", "3", "--set", "optimizer.epochs=1").code == 0
    assert bench("run", "--suite", suite, "--out", out, "--seeds", "3").code == 0
    suite.write_text(suite.read_text().replace("[make_spec()]", "[make_spec(), make_spec(epochs=2)]"))
    assert bench("run", "--suite", suite, "--out", out).code == 0
    assert {row["departs"] for row in results.rows(out)} == {"", "optimizer.epochs=1 (suite: 4)"}
    assert numbers(out / "cells" / make_spec().run_id) == [1, 2]


def cells_of(count: int, **optimizer: Any) -> list[RunSpec]:
    """Cells of different alpha, with other values of the optimizer."""
    spec = make_spec()
    changed = dataclasses.replace(spec, optimizer=dataclasses.replace(spec.optimizer, **optimizer))
    return [
        dataclasses.replace(changed, method={**spec.method, "alpha": (number + 1) / 1000}) for number in range(count)
    ]


def accepted(out: Path, before: list[RunSpec], now: list[RunSpec]) -> list[list[str]]:
    """How the cells that a folder lists depart, after the suite was changed and the drift accepted."""
    (out / "suites").mkdir(parents=True)
    results.remember(out, "grid", (), before)
    suite_changes.check(out, Suite("grid", "", (), tuple(now), own=tuple(now)), accept=True)
    return [entry["departs"] for entry in read_json(out / "suites" / "grid.json")["cells"]]


def test_every_old_cell_says_how_it_differs_from_a_cell_of_the_suite_that_is_like_it(tmp_path: Path) -> None:
    before = [*cells_of(3), *cells_of(2, lr=0.1), *cells_of(4, epochs=2)[3:]]
    departs = accepted(tmp_path, before, [*cells_of(3, epochs=2), *cells_of(2, lr=0.2)])
    assert departs == [
        *3 * [["drift: suite: optimizer.epochs: 4 -> 2"]],
        *2 * [["drift: suite: optimizer.lr: 0.1 -> 0.2"]],
        ["drift: suite: method.alpha: 0.004 -> 0.001"],
    ]


def test_the_work_of_accepting_a_changed_suite_grows_with_its_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: collections.Counter[str] = collections.Counter()
    for name in ("fields", "_changes"):
        real = getattr(suite_changes, name)

        def counted(*given: Any, real: Any = real, name: str = name) -> Any:
            calls[name] += 1
            return real(*given)

        monkeypatch.setattr(suite_changes, name, counted)
    counts = []
    for size in (10, 20):
        calls.clear()
        accepted(tmp_path / str(size), cells_of(size), cells_of(size, epochs=2))
        counts.append(sum(calls.values()))
    assert counts[1] < 3 * counts[0]
