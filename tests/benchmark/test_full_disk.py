"""A disk that fills up during a run: one line, exit code 1, and the same bits once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grids
import pytest
from grids import Grid

SIZE_BYTES = 24 * 2**20


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
            pytest.param(kib * 2**10, id=f"{kib} KiB", marks=pytest.mark.slow)
            for kib in (0, 8, 24, 40, 64, 96, 512, 1280)
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
