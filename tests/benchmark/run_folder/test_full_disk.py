"""A disk that fills up during a run: one line, exit code 1, and the same bits once there is room."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grids
import pytest
from grids import Grid
from one_cell import Runner, make_spec

from benchmark.run_folder.attempts import STALE_SECONDS, Observer, folder_of
from benchmark.run_folder.storage import DiskFullError
from benchmark.spec import Optimizer
from benchmark.training.cell import execute
from benchmark.training.execution import Execution
from benchmark.training.publish import Outcome

SIZE_BYTES = 24 * 2**20
SLOW, RARE = (pytest.mark.slow,), (pytest.mark.slow, pytest.mark.rare)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("suite") / "grid.py"
    return grids.write_suite(path, {"lenet-300-100": 3}, methods=["dense", "dst", "set"])


@pytest.fixture(scope="module")
def undisturbed(suite: str, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> dict[str, Any]:
    return grids.train_alone(suite, tmp_path_factory.mktemp("alone"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    options = ["-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, free_bytes: int) -> Path:
    """Leaves so many bytes free."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - free_bytes)
    return ballast


@pytest.mark.parametrize(
    "free_bytes",
    [
        pytest.param(2 * 2**20, id="2048 KiB"),
        *[
            pytest.param(kib * 2**10, id=f"{kib} KiB", marks=marks)
            for marks, sizes in ((SLOW, (0, 24, 512)), (RARE, (8, 40, 64, 96, 1280)))
            for kib in sizes
        ],
    ],
)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on_after(
    free_bytes: int, suite: str, disk: Path, undisturbed: dict[str, Any], bench: grids.Bench
) -> None:
    command = ("run", "--suite", suite, "--out", disk / "runs", "--workers", "1")
    (disk / "runs").mkdir()
    ballast = fill(disk, free_bytes)
    full = bench(*command)
    assert full.code == 1
    assert "no space left under" in full.error
    assert str(disk) in full.error
    ballast.unlink()
    freed = bench(*command)
    assert (freed.code, freed.stderr) == (0, "")
    assert grids.bits(disk / "runs") == undisturbed


@pytest.mark.parametrize(
    ("epoch", "checkpoint_seconds"),
    [
        pytest.param(1, 1e9, id="append"),
        pytest.param(1, 0, id="checkpoint", marks=pytest.mark.slow),
        pytest.param(4, 1e9, id="last checkpoint", marks=pytest.mark.slow),
    ],
)
def test_no_room_at_a_chosen_write_is_said_and_the_cell_goes_on_after(
    epoch: int, checkpoint_seconds: float, disk: Path, tmp_path: Path, one_thread: None
) -> None:
    """The disk fills once an epoch was recorded: the next write to it fails."""
    each_step = Optimizer(lr=0.05, momentum=0.9, batch_size=4, epochs=4)  # an append of several pages
    spec, out = dataclasses.replace(make_spec(), optimizer=each_step, step_records=4), disk / "runs"
    execution = Execution(out=out, data_dir=out, checkpoint_seconds=checkpoint_seconds)

    now = [0.0]
    observer = Observer(clock=lambda: now[0])

    def run(report: Callable[[dict[str, Any]], object]) -> Outcome:
        return execute(spec, execution, observer=observer, report=report, stop=threading.Event())

    with pytest.raises(DiskFullError, match="no space left under"):
        run(lambda record: fill(disk, 0) if record.get("epoch") == epoch else None)
    ((cell, _),) = grids.attempts(out).items()
    attempt = folder_of(out / "cells" / cell, 1)
    records = (attempt / "metrics.jsonl").read_text().count("train_seconds")
    assert records == epoch, "the next record is not there, or cut off"
    (disk / "ballast").unlink()
    assert run(lambda _: None) == Outcome("busy"), "there was no room for its end, and its process lives on"
    now[0] += STALE_SECONDS
    assert run(lambda _: None) == Outcome("done")
    alone = Runner(tmp_path / "alone", spec)
    assert alone.run() == Outcome("done")
    assert grids.bits(out) == grids.bits(alone.execution.out)


@pytest.mark.slow
def test_a_mirror_without_room_is_one_line_and_whole_after(grid: Grid, disk: Path) -> None:
    """In processes of their own: what MLflow holds open keeps the disk."""
    copy = grid.copy(disk / "runs")
    for free_bytes in (0, 2**20):
        ballast = fill(disk, free_bytes)
        full = grids.finish(grids.start("sync", "--out", copy.out))
        assert full.code == 1
        assert "MLflow at sqlite:" in full.error
        ballast.unlink()
    assert grids.finish(grids.start("sync", "--out", copy.out)).code == 0
    export = grids.start("export", "--from", "mlflow", "--out", copy.out, "--to", disk / "again")
    assert grids.finish(export).code == 0
    assert grids.tables(disk / "again") == grids.tables(copy.out)


def test_tables_without_room_are_one_line_and_the_old_ones_stay(bench: grids.Bench, grid: Grid, disk: Path) -> None:
    copy = grid.copy(disk / "runs")
    before = (copy.out / "results.csv").read_bytes()
    ballast = fill(disk, 0)
    for command in (("export",), ("run", "--suite", copy.suite)):
        full = bench(*command, "--out", copy.out)
        assert full.code == 1
        assert f"no space left under {copy.out}" in full.error
    ballast.unlink()
    assert (copy.out / "results.csv").read_bytes() == before
    assert not list(copy.out.glob(".*.tmp"))
    assert bench("export", "--out", copy.out).code == 0
