"""Eight terminals run one grid of 200 cells; one of them is frozen past its heartbeat's limit and wakes up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grids
import pytest

from benchmark.run_folder import attempts
from benchmark.run_folder.attempts import STALE_SECONDS, folder_of, numbers
from benchmark.run_folder.files import read_json
from benchmark.run_folder.result import result_of

DISPATCHERS = 8
METHODS = ["dense", "dst", "set", "dsr", "sparse_momentum"]
SEEDS = 40
pytestmark = [pytest.mark.slow, pytest.mark.rare, pytest.mark.usefixtures("one_thread")]


@contextlib.contextmanager
def dispatchers(folder: Path, *arguments: str) -> Iterator[list[subprocess.Popen[str]]]:
    """The same command in several sessions: a stopped process in a group that is left alone gets it hung up.

    What they print goes to files: a full pipe would stop one.
    """
    found = []
    try:
        for number in range(DISPATCHERS):
            with (folder / f"log-{number}").open("w") as log, (folder / f"errors-{number}").open("w") as errors:
                found.append(grids.start(*arguments, stdout=log, stderr=errors, start_new_session=True))
        yield found
    finally:
        for process in found:
            if process.poll() is None:
                grids.kill_all(process)


def freeze(out: Path, process: subprocess.Popen[str]) -> tuple[list[int], Path]:
    """Stop a dispatcher and its worker while it has a cell: the processes, and its attempt."""
    while True:
        stopped = [process.pid, *grids.children(process.pid)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        for cell in grids.cells(out):
            attempt = folder_of(cell, max(numbers(cell), default=0))
            owner = read_json(attempt / "owner.json") or {}
            if owner.get("pid") in stopped and (attempt / "metrics.jsonl").exists() and not begun_to_end(cell):
                return stopped, attempt
        wake(stopped)
        time.sleep(0.05)


def begun_to_end(cell: Path) -> bool:
    return (cell / "metrics.jsonl").exists() or (cell / "result.json").exists()


def wake(stopped: list[int]) -> None:
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)


def test_each_cell_is_done_once_whoever_freezes(tmp_path: Path) -> None:
    suite, out = grids.write_suite(tmp_path / "grid.py", {"lenet-300-100": 2}, methods=METHODS), tmp_path / "runs"
    seeds = ("--seeds", f"0-{SEEDS - 1}")
    with dispatchers(tmp_path, "run", "--suite", suite, "--out", str(out), "--workers", "1", *seeds) as running:
        grids.wait_for(lambda: len(list(out.glob("cells/*/result.json"))) >= 20, "twenty cells")
        stopped, attempt = freeze(out, running[0])
        since = time.monotonic()
        others = running[1:]
        alone = grids.train_alone(suite, tmp_path / "alone", seeds=range(SEEDS))
        for process in others:
            assert process.wait(timeout=STALE_SECONDS + grids.WAIT_SECONDS) == 0
        assert time.monotonic() - since >= STALE_SECONDS
        cell = attempt.parents[1]
        result = (cell / "result.json").read_bytes()
        assert (result_of(cell) or {})["attempt"] == numbers(cell)[-1] == 2
        before = {path: path.stat().st_mtime_ns for path in out.glob("cells/**/*")}
        wake(stopped)
        assert running[0].wait(timeout=grids.WAIT_SECONDS) == 0
    assert {(tmp_path / f"errors-{number}").read_text() for number in range(DISPATCHERS)} == {""}
    # done: it was frozen after its last look at who has the cell, and found the other one's result when it woke up
    assert (attempts.ended(attempt) or {})["status"] in ("superseded", "done")
    assert (cell / "result.json").read_bytes() == result
    changed = {path for path, at in before.items() if path.exists() and path.stat().st_mtime_ns != at}
    assert all(path == attempt or attempt in path.parents for path in changed), "it wrote only into its own attempt"
    rows = grids.tables(out)["results.csv"]
    assert sorted(row["run_id"] for row in rows) == sorted(alone)
    assert {row["status"] for row in rows} == {"done"}
    assert grids.bits(out) == alone
