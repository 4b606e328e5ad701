"""Fixtures for the benchmark's tests. They lie here, as `tests` on the import path would hide the packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from grids import MIXED, Bench, Finished, Grid, finish, start

import methods.registry
from benchmark import data, models
from benchmark.cli import main


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Bench]:
    """Runs the command line in this process: torch is imported once. What suites register is forgotten after."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> Finished:
        monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capfd.readouterr()
        return Finished(int(ended.value.code or 0), captured.out, captured.err)

    with methods.registry.temporary(), models.plug_ins.temporary(), data.plug_ins.temporary():
        yield run


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As many threads as a worker has, and as it, no denormal numbers: the bits are a worker's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_num_threads(before)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """grids.MIXED, run once, to be read only."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "mixed.py").write_text(MIXED)
    suite = str(folder / "mixed.py")
    return Grid(
        suite, folder / "runs", finish(start("run", "--suite", suite, "--out", folder / "runs", "--workers", "1"))
    )


@pytest.fixture(scope="session")
def cifar10_dir(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the real CIFAR-10, unpacked once from the pieces in BENCH_TEST_DATA."""
    pieces = [data_dir / f"cifar10-{number}.xz" for number in (1, 2)]
    tool = data_dir.parent / "tools" / "cifar10"
    for needed in (*pieces, tool):
        if not needed.is_file():
            pytest.skip(f"{needed} is missing")
    folder = tmp_path_factory.mktemp("cifar10")
    command = [sys.executable, str(tool), "unpack", str(folder), *map(str, pieces)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder
