"""Small grids for the tests, how they are run, and what has to be equal between two runs of the same cells."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import suites
from benchmark.run_folder.attempts import Observer, folder_of, numbers
from benchmark.run_folder.result import result_of
from benchmark.training.cell import execute
from benchmark.training.execution import Execution

WAIT_SECONDS = 120.0
SUITE = """
import methods
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

DATA = Data(name="synthetic", shape=(1, 16, 16), train_limit=320, test_limit=64)


def suite():
    specs = []
    for model, epochs in {models}.items():
        for method in {methods}:
            hyperparameters = methods.create(method).hyperparameters()
            given = {{k: v for k, v in dict(alpha=2e-3, density=0.2).items() if k in hyperparameters}}
            optimizer = Optimizer(lr=0.02, momentum=0.9, batch_size=32, epochs=epochs)
            given |= dict(data=DATA, model=Model(name=model), optimizer=optimizer, step_records=2)
            specs.append(cell(method, protocol=(), **given))
    return specs
"""

MIXED = '''
import dataclasses
import os

import methods
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

DESCRIPTION = "cells that end well, one that diverges, one whose method breaks"
EXHIBITS = ("table1",)
DATA = Data(name="synthetic", shape=(1, 8, 8), train_limit=64, test_limit=32)
MODEL = Model(name="lenet-300-100")
SGD = Optimizer(lr=0.05, momentum=0.9, batch_size=16, epochs=2)


class Broken(methods.Method):
    """Breaks in its second epoch, until it is mended."""

    name = "broken"
    version = 1
    reference = "none"
    density_promise = "dense"

    def after_step(self, ctx):
        if ctx.step == 5 and "BENCH_TEST_MENDED" not in os.environ:
            raise RuntimeError("the hook broke\\nand has more to say")


methods.register("broken", f"{__name__}:Broken")


def suite():
    mad = dataclasses.replace(SGD, lr=1e30)
    return [
        cell("dense", data=DATA, model=MODEL, optimizer=mad, protocol=()),
        cell("broken", data=DATA, model=MODEL, optimizer=SGD, protocol=("paper",)),
        cell("dense", data=DATA, model=MODEL, optimizer=SGD),
        cell("dst", data=DATA, model=MODEL, optimizer=SGD, alpha=1e-3, step_records=1),
        cell("static", data=DATA, model=MODEL, optimizer=SGD, density=0.1, protocol=("official",)),
    ]
'''
LINE = MIXED[: MIXED.index("raise RuntimeError")].count("\n") + 1
HOOK_BROKE = f"method 'broken', after_step (mixed.py, line {LINE}): RuntimeError: the hook broke"


@dataclass(frozen=True)
class Finished:
    """How one command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """The one line on standard error."""
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self.stderr
        assert "Traceback" not in self.stderr + self.stdout
        assert lines[0].startswith("error: ")
        return lines[0]


@dataclass(frozen=True)
class Grid:
    """A grid that has been run: its suite file, its folder, and how the command ended."""

    suite: str
    out: Path
    finished: Finished

    def copy(self, folder: Path) -> Grid:
        """The same grid in a folder that may be changed."""
        shutil.copytree(self.out, folder)
        return Grid(self.suite, folder, self.finished)


Bench = Callable[..., Finished]


def write_suite(path: Path, models: dict[str, int], *, methods: str | list[str] = "methods.available()") -> str:
    """A suite file of methods, an expression, on models, name -> epochs of ten steps. Returns its path."""
    path.write_text(SUITE.format(models=models, methods=methods))
    return str(path)


def train_alone(suite: str, out: Path, *, seeds: Sequence[int] | None = None) -> dict[str, Any]:
    """The bits of a suite's cells, trained one after the other in this process, undisturbed."""
    specs = suites.load(suite).specs
    execution = Execution(out=out, data_dir=out)
    for spec in specs if seeds is None else suites.with_seeds(specs, seeds):
        outcome = execute(spec, execution, observer=Observer(), report=lambda _: None, stop=threading.Event())
        assert outcome.status == "done"
    return bits(out)


def start(
    *arguments: str | Path, checkpoint_seconds: float = 30.0, package: str = "benchmark", **options: Any
) -> subprocess.Popen[str]:
    """The command line as a process of its own."""
    environment = {**os.environ, "BENCH_CHECKPOINT_SECONDS": str(checkpoint_seconds)}
    command = [sys.executable, "-m", package, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def finish(process: subprocess.Popen[str]) -> Finished:
    stdout, stderr = process.communicate(timeout=600)
    return Finished(process.returncode, stdout, stderr)


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.005)
    raise AssertionError(f"waited {WAIT_SECONDS:.0f} s for {what}")


def children(pid: int) -> list[int]:
    """Ids of a process's children that run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            found += [int(stat.parent.name)] if int(parent) == pid and state != "Z" else []
    return found


def kill_all(process: subprocess.Popen[str], workers: list[int] | None = None) -> None:
    """kill -9 of a dispatcher and its workers, which live in sessions of their own. To find them takes milliseconds."""
    workers = children(process.pid) if workers is None else workers
    process.kill()
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not any(Path(f"/proc/{worker}/cwd").exists() for worker in workers), "the workers' end")


def cells(out: Path) -> list[Path]:
    return sorted((out / "cells").glob("*"))


def attempts(out: Path) -> dict[str, list[int]]:
    """run id -> numbers of its attempts."""
    return {cell.name: numbers(cell) for cell in cells(out)}


def checkpoints(out: Path) -> list[Path]:
    """The manifest of every checkpoint in the folder."""
    while True:
        with contextlib.suppress(FileNotFoundError):  # a folder that goes while it is searched
            return sorted(out.glob("cells/*/attempts/*/checkpoint-*.json"))


def wait_for_a_checkpoint(out: Path) -> None:
    before = set(checkpoints(out))
    wait_for(lambda: set(checkpoints(out)) - before, "a further checkpoint")


def tables(out: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of results.csv, traces.csv and layers.csv, in order, without what a clock says."""
    found = {}
    for name in ("results.csv", "traces.csv", "layers.csv"):
        with (out / name).open(newline="") as file:
            rows = [_timeless(row) for row in csv.DictReader(file)]
        found[name] = [row for row in rows if "seconds" not in row.get("name", "")]
    return found


def bits(out: Path) -> dict[str, Any]:
    """What must not depend on how often a grid was disturbed: run id -> state, measurements and records."""
    return {cell.name: _cell_bits(cell) for cell in cells(out)}


def _cell_bits(cell: Path) -> dict[str, Any]:
    result = result_of(cell)
    assert result is not None, f"{cell} has no result"
    published = (cell / "metrics.jsonl").read_bytes()
    assert published == (folder_of(cell, result["attempt"]) / "metrics.jsonl").read_bytes()
    return {
        "status": result["status"],
        "state_sha256": result["state_sha256"],
        "layers": result["layers"],
        "measured": _timeless(result["measured"]),
        "metrics": [_timeless(json.loads(line)) for line in published.splitlines()],
    }


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if "seconds" not in name and "time" not in name}


@contextlib.contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Run an action in a thread beside the block; its failure is the block's."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


def rows(out: Path) -> dict[str, dict[str, str]]:
    """run id -> its row of results.csv"""
    with (out / "results.csv").open(newline="") as file:
        return {row["run_id"]: row for row in csv.DictReader(file)}
