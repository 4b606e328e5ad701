"""What counts as progress of a SLURM job: only what happened since the job began, or was submitted.

The job's own function runs on real run folders, in a process of its own; `scontrol` is a stand-in.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import grids
import pytest
from grids import Bench

from benchmark import results, suites
from benchmark.launch.slurm import jobs
from benchmark.launch.slurm.folder_watch import FolderWatch
from benchmark.launch.slurm.jobs import ClusterJob
from benchmark.launch.slurm.launcher import SlurmLauncher
from benchmark.launch.slurm.profile import Profile
from benchmark.launch.slurm.queue import State
from benchmark.run_folder.attempts import Observer, claim, ended, folder_of, mark_ended, numbers
from benchmark.spec import RunSpec
from benchmark.training.execution import Execution

JOB = "import json, sys; from benchmark.launch.slurm.task import run_cells; run_cells(json.load(sys.stdin))"
AGAIN = "the job goes back into the queue"
SOON = "from benchmark.launch.slurm import task; task.PATIENCE_SECONDS = 1.5"
STUCK = "before any cell got further"


@dataclass(frozen=True)
class Cell:
    """One cell of many steps, its run folder, and the jobs that train it."""

    suite: Path
    out: Path
    spec: RunSpec

    @property
    def folder(self) -> Path:
        return self.out / "cells" / self.spec.run_id

    def job(self, *, before: int, retry_failed: bool = False) -> subprocess.Popen[str]:
        """A job that was submitted after the attempt `before`."""
        execution = Execution(out=self.out, data_dir=self.out, plugins=(self.suite,), retry_failed=retry_failed)
        task = {
            "execution": execution.to_dict(),
            "specs": [self.spec.to_dict()],
            "before": {self.spec.run_id: before},
            "workers": 1,
            "probe": str(self.out),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", JOB],
            env=os.environ | {"SLURM_JOB_ID": "7", "BENCH_CHECKPOINT_SECONDS": "0.2"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(task))
        process.stdin.close()
        process.stdin = None
        return process

    def saves(self, attempt: int) -> None:
        """Wait until the attempt has a checkpoint."""
        folder = folder_of(self.folder, attempt)
        grids.wait_for(lambda: list(folder.glob("checkpoint-*.json")), "a checkpoint")

    def train_and_end(self, status: str) -> None:
        """Attempt 1 saves steps and is interrupted; attempt 2 is the mark of how its job ended."""
        process = self.job(before=0)
        self.saves(1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        mark_ended(self.folder, f"its SLURM job was {status}", status=status)
        assert numbers(self.folder) == [1, 2]


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cell:
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text("#!/bin/sh\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}")
    suite = Path(grids.write_suite(tmp_path / "grid.py", {"lenet-300-100": 20_000}, methods=["dst"]))
    (spec,) = suites.load(str(suite)).specs
    (tmp_path / "runs").mkdir()
    return Cell(suite, tmp_path / "runs", spec)


@pytest.mark.slow
@pytest.mark.parametrize("status", [pytest.param("cancelled", marks=pytest.mark.rare), "failed"])
def test_steps_saved_after_a_cancellation_or_a_failure_are_progress(cell: Cell, status: str) -> None:
    cell.train_and_end(status)
    process = cell.job(before=2, retry_failed=status == "failed")
    cell.saves(3)
    process.send_signal(signal.SIGUSR2)
    printed, _ = process.communicate(timeout=120)
    assert AGAIN in printed, printed
    assert (ended(folder_of(cell.folder, 3)) or {})["status"] == "interrupted"


@pytest.mark.slow
def test_a_job_that_is_stopped_before_it_trains_does_not_come_back(cell: Cell) -> None:
    cell.train_and_end("cancelled")
    process = cell.job(before=2)
    assert process.stdout is not None
    assert "started" in process.stdout.readline(), "its worker begins to import torch"
    process.send_signal(signal.SIGUSR2)
    printed, _ = process.communicate(timeout=120)
    assert STUCK in printed, printed
    assert not list(cell.folder.glob("attempts/000[3-9]/checkpoint-*"))


@pytest.mark.slow
def test_a_cell_that_failed_in_a_job_is_not_tried_again_when_the_job_comes_back(cell: Cell) -> None:
    cell.train_and_end("failed")
    process = cell.job(before=1, retry_failed=True)
    process.communicate(timeout=120)
    assert (process.returncode, numbers(cell.folder)) == (0, [1, 2])


@pytest.mark.slow
def test_a_job_whose_cells_others_train_says_so_once_and_ends(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = claim(cell.folder, Observer())
    assert attempt is not None
    monkeypatch.setattr(sys.modules[__name__], "JOB", JOB.replace("run_cells(", f"{SOON}; run_cells("))
    process = cell.job(before=0)
    printed, _ = process.communicate(timeout=30)
    attempt.end("interrupted")
    started, waiting, last = printed.splitlines()
    assert (started.split()[-1], waiting.split()[-1]) == ("started", "waiting")
    assert last == f"other workers have {cell.spec.run_id}: this job is not needed and ends"
    assert process.returncode == 0


# --- what `status` says of jobs ------------------------------------------------------------------


@pytest.fixture
def run_id(cell: Cell) -> str:
    """A cell that job 1 left when it was cancelled; job 2 has it now."""
    mark_ended(cell.folder, "its SLURM job 1 was cancelled", status="cancelled")
    known = [ClusterJob("1", (cell.spec.run_id,), "log"), ClusterJob("2", (cell.spec.run_id,), "log")]
    if "before" in ClusterJob.__dataclass_fields__:
        known[1].before[cell.spec.run_id] = 1
    jobs.append(cell.out, known)
    return cell.spec.run_id


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[str, State]:
    """What SLURM says of the jobs 1 and 2."""
    said = {"1": State("CANCELLED"), "2": State("PENDING")}
    monkeypatch.setattr(jobs.slurm_queue, "states", lambda wanted: {job: said[job] for job in wanted})
    return said


def test_the_job_that_has_a_cancelled_cell_again_is_listed(cell: Cell, run_id: str, states: dict[str, State]) -> None:
    assert [(job.job, state.name) for job, state in jobs.settle(cell.out)] == [("2", "PENDING")]


def test_a_cell_between_two_starts_of_its_job_is_not_cancelled_by_its_earlier_job(
    cell: Cell, run_id: str, states: dict[str, State]
) -> None:
    mark_ended(cell.folder, "", status="interrupted")  # job 2 met its time limit, and waits to start again
    assert [job.job for job, _ in jobs.settle(cell.out)] == ["2"]
    assert jobs.final_status(cell.out, run_id) is None


def test_a_cell_is_cancelled_with_its_newest_job(cell: Cell, run_id: str, states: dict[str, State]) -> None:
    states["2"] = State("CANCELLED")
    jobs.settle(cell.out)
    assert jobs.final_status(cell.out, run_id) == {"status": "cancelled", "error": "its SLURM job 2 was cancelled"}
    assert jobs.settle(cell.out) == []


def test_a_cell_belongs_to_the_job_that_began_it_though_another_was_submitted_last(
    cell: Cell, run_id: str, states: dict[str, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commands have submitted it at the same time."""
    jobs.append(cell.out, [ClusterJob("3", (run_id,), "log", {run_id: 1})])
    states |= {"2": State("CANCELLED"), "3": State("COMPLETED")}
    monkeypatch.setenv("SLURM_JOB_ID", "2")
    mark_ended(cell.folder, "", status="interrupted")
    monkeypatch.delenv("SLURM_JOB_ID")
    jobs.settle(cell.out)
    assert jobs.final_status(cell.out, run_id) == {"status": "cancelled", "error": "its SLURM job 2 was cancelled"}


@pytest.mark.parametrize(("state", "status"), [("RUNNING", "running"), ("NODE_FAIL", "pending")])
def test_a_cell_whose_job_has_died_is_pending(
    state: str, status: str, cell: Cell, states: dict[str, State], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    results.prepare(cell.out)
    results.remember(cell.out, "grid", (), [cell.spec])
    jobs.append(cell.out, [ClusterJob("2", (cell.spec.run_id,), "log")])
    monkeypatch.setenv("SLURM_JOB_ID", "2")
    assert claim(cell.folder, Observer()) is not None
    monkeypatch.delenv("SLURM_JOB_ID")
    states["2"] = State(state)
    assert [row["status"] for row in bench("status", "--out", cell.out, "--json").json["cells"]] == [status]


# --- what a look at the queue costs --------------------------------------------------------------


class CountedCells(tuple[str, ...]):
    """The cells of a job; counts how often somebody searches them."""

    searched: ClassVar[collections.Counter[str]] = collections.Counter()

    def __contains__(self, run_id: object) -> bool:
        self.searched["cells"] += 1
        return super().__contains__(run_id)


@pytest.mark.parametrize("ended", [False, True])
def test_the_work_of_a_look_at_the_queue_grows_with_the_cells(
    ended: bool, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job has one cell. The jobs wait, or all of them have ended."""
    state = State("TIMEOUT" if ended else "PENDING")
    monkeypatch.setattr(jobs.slurm_queue, "states", lambda wanted: dict.fromkeys(wanted, state))
    monkeypatch.setattr(SlurmLauncher, "_submit", lambda *_: None)
    counted: collections.Counter[str] = CountedCells.searched
    read: Any = FolderWatch.open

    def listed(watch: FolderWatch) -> list[str]:
        found: list[str] = read.fget(watch)
        counted["open"] += len(found)
        return found

    monkeypatch.setattr(FolderWatch, "open", property(listed))
    counts = []
    for size in (8, 16):
        execution = Execution(out=cell.out / str(size), data_dir=cell.out)
        launcher = SlurmLauncher(execution, Profile(time_minutes=5), workers=1, detach=False)
        specs = [dataclasses.replace(cell.spec, seed=seed) for seed in range(size)]
        launcher.submit(specs)
        launcher._jobs = {str(at): ClusterJob(str(at), CountedCells([s.run_id]), "log") for at, s in enumerate(specs)}
        counted.clear()
        assert len(list(launcher._ask_queue())) == (size if ended else 0)
        counts.append(counted.total())
    assert counts[1] <= 2 * counts[0]
