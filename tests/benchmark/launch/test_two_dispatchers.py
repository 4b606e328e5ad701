"""Two terminals that run the same command share the grid."""

from __future__ import annotations

import csv
from pathlib import Path

import grids
import pytest

MODELS = {"lenet-300-100": 20, "lenet-5-caffe": 20}
METHODS = ["dense", "dst", "set", "static"]
CHANGES = ("--seeds", "7", "--set", "optimizer.epochs=5")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[grids.Finished]]:
    """A grid of eight cells, trained by two commands of one worker each at the same time."""
    folder = tmp_path_factory.mktemp("shared")
    suite = grids.write_suite(folder / "grid.py", MODELS, methods=METHODS)
    command = ("run", "--suite", suite, "--out", folder / "runs", "--workers", "1", *CHANGES)
    processes = [grids.start(*command) for _ in range(2)]
    return folder / "runs", [grids.finish(process) for process in processes]


def test_both_end_well_and_see_every_cell_done(shared: tuple[Path, list[grids.Finished]]) -> None:
    out, finished = shared
    for command in finished:
        assert (command.code, command.stderr) == (0, "")
        assert command.stdout.count("1/1") == 2 * len(METHODS)
    assert [row["status"] for row in rows(out)] == ["done"] * 8


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_seeds_replace_the_suites_and_only_changed_fields_depart(shared: tuple[Path, list[grids.Finished]]) -> None:
    assert {(row["seed"], row["departs"]) for row in rows(shared[0])} == {("7", "optimizer.epochs=5 (suite: 20)")}


def test_each_cell_is_trained_once(shared: tuple[Path, list[grids.Finished]]) -> None:
    out, _ = shared
    assert len(grids.cells(out)) == 8
    assert all(taken == [1] for taken in grids.attempts(out).values())


def test_both_do_some_of_the_work(shared: tuple[Path, list[grids.Finished]]) -> None:
    _, finished = shared
    trained = [command.stdout.count(" s of training") for command in finished]
    assert sum(trained) == 8
    assert min(trained) >= 1
