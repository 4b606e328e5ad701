"""What the waiting command does about jobs that end, and cells that they leave. SLURM is a stand-in."""

from __future__ import annotations

import collections
import dataclasses
import errno
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grids
import pytest

from benchmark import suites
from benchmark.launch.base import Event, LaunchError
from benchmark.launch.slurm import folder_watch, jobs
from benchmark.launch.slurm import launcher as slurm_launcher
from benchmark.launch.slurm import queue as slurm_queue
from benchmark.launch.slurm.launcher import SlurmLauncher
from benchmark.launch.slurm.profile import Profile
from benchmark.launch.slurm.queue import SlurmError, State
from benchmark.run_folder.attempts import Attempt, Observer, claim, mark_ended, numbers
from benchmark.spec import RunSpec
from benchmark.training.execution import Execution


@dataclass
class Cluster:
    """A run folder of three cells, and a SLURM with the jobs 1, 2, … in the order of their submission."""

    out: Path
    specs: list[RunSpec]
    states: dict[str, State] = field(default_factory=lambda: collections.defaultdict(lambda: State("PENDING")))
    submitted: int = 0

    def command(self, cells_per_job: int = 1) -> SlurmLauncher:
        """A command that has submitted the cells, or adopted their jobs."""
        execution = Execution(out=self.out, data_dir=self.out)
        profile = Profile(time_minutes=5, cells_per_job=cells_per_job)
        launcher = SlurmLauncher(execution, profile, workers=1, detach=False)
        launcher.submit(self.specs)
        return launcher

    def sbatch(self, folder: Path, parameters: Any, tasks: list[Any], *, python: Any) -> list[tuple[str, str]]:
        self.submitted += len(tasks)
        return [(str(self.submitted - at), str(folder / "log")) for at in reversed(range(len(tasks)))]

    def cells(self) -> list[list[int]]:
        """The cells of each job, by their places in the suite."""
        places = {spec.run_id: at for at, spec in enumerate(self.specs)}
        return [[places[run_id] for run_id in job.cells] for job in jobs.read(self.out)]

    def folder(self, at: int) -> Path:
        return self.out / "cells" / self.specs[at].run_id

    def begin(self, at: int, job: str, monkeypatch: pytest.MonkeyPatch) -> Attempt:
        """An attempt of a job, which this process trains."""
        with monkeypatch.context() as patch:
            patch.setenv("SLURM_JOB_ID", job)
            attempt = claim(self.folder(at), Observer(dead_jobs=list(self.states)))
        assert attempt is not None
        return attempt


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    suite = grids.write_suite(tmp_path / "grid.py", {"lenet-300-100": 2}, methods=["dst"])
    (spec,) = suites.load(suite).specs
    (tmp_path / "runs").mkdir()
    found = Cluster(tmp_path / "runs", [dataclasses.replace(spec, seed=seed) for seed in range(3)])
    monkeypatch.setattr(slurm_launcher, "_sbatch", found.sbatch)
    monkeypatch.setattr(slurm_queue, "states", lambda wanted: {job: found.states[job] for job in wanted})
    monkeypatch.setattr(slurm_queue, "max_array_size", lambda: 1001)
    return found


def ends(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.run_id, event.payload["status"]) for event in events if event.kind == "end"]


def test_a_cell_that_failed_in_a_job_that_still_runs_is_submitted_again(cluster: Cluster) -> None:
    """As --retry-failed asks for; the job's other cells stay in it."""
    cluster.command(cells_per_job=3)
    mark_ended(cluster.folder(0), "the hook broke")
    launcher = cluster.command(cells_per_job=3)
    assert cluster.cells() == [[0, 1, 2], [0]]
    assert launcher.adopted == 1
    cluster.states["1"] = State("COMPLETED")
    assert ends(list(launcher._ask_queue())) == []


def test_a_cell_that_is_given_up_ends_and_gets_no_fourth_job(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.specs = cluster.specs[:1]
    launcher = cluster.command()
    for job in ("1", "2", "3"):
        cluster.begin(0, job, monkeypatch)
        cluster.states[job] = State("FAILED", "1:0")
        events = list(launcher._ask_queue())
    assert ends(events) == [(cluster.specs[0].run_id, "failed")]
    assert launcher._watch.open == []
    assert len(cluster.cells()) == 3


def test_a_node_on_which_no_cell_begins_fails_none(cluster: Cluster) -> None:
    """SLURM gives it one job after the other, as they end at once. Other nodes train the other cells."""
    launcher, counts = cluster.command(), []
    for job in ("1", "4", "5"):
        cluster.states[job] = State("FAILED", "1:0", "n1")
        events = list(launcher._ask_queue())
        counts.append(cluster.submitted)
        launcher._not_before = dict.fromkeys(launcher._not_before, 0.0)
        list(launcher._ask_queue())
    assert counts == [3, 4, 5], "each further job waits"
    assert cluster.cells() == [[0], [1], [2], [0], [0]]
    (event,) = events
    assert (event.payload["status"], event.payload["code"]) == ("refused", 2)
    assert "3 SLURM jobs in a row ended on n1 before they began a cell, job 5 as FAILED (1:0)" in event.payload["error"]
    assert f"see {jobs.read(cluster.out)[-1].log}" in event.payload["error"]
    assert not cluster.folder(0).exists(), "it is pending"
    assert len(launcher._watch.open) == 2


def test_cells_that_a_node_did_not_begin_are_one_error(cluster: Cluster) -> None:
    launcher = cluster.command()
    cluster.states = collections.defaultdict(lambda: State("FAILED", "1:0", "n1"))
    for _ in range(3):
        launcher._not_before.clear()
        events = list(launcher._ask_queue())
        launcher._not_before.clear()
        list(launcher._ask_queue())
    assert len(events) == 3
    assert len({event.payload["error"] for event in events}) == 1


def test_a_submission_that_slurm_refuses_is_tried_again_after_minutes(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = cluster.command()
    tried: list[object] = []

    def refuse(folder: Path, *_: object, **__: object) -> None:
        tried.append(folder)
        raise SlurmError("SLURM did not take the jobs (QOSMaxSubmitJobPerUserLimit)")

    monkeypatch.setattr(slurm_launcher, "_sbatch", refuse)
    cluster.begin(0, "1", monkeypatch)
    cluster.states["1"] = State("TIMEOUT")
    for _ in range(3):
        list(launcher._patiently(launcher._ask_queue()))
        waits = launcher._not_before[cluster.specs[0].run_id] - time.monotonic()
        list(launcher._ask_queue())
        launcher._not_before.clear()
    assert len(tried) == 3
    assert 400 < waits < 500
    assert len(list((cluster.out / "slurm").iterdir())) == 1, "that of the first array"


def test_jobs_that_cannot_be_written_down_are_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(jobs, "append", full)
    with pytest.raises(
        LaunchError, match=r"jobs\.jsonl cannot be written \(No space left on device\).* SLURM jobs 1, 2, 3"
    ):
        cluster.command()


def test_of_two_commands_one_submits_the_cell_of_a_dead_job(cluster: Cluster) -> None:
    first, second = cluster.command(), cluster.command()
    cluster.states["1"] = State("TIMEOUT")
    for launcher in (first, second):
        list(launcher._ask_queue())
        launcher._not_before.clear()
    for launcher in (first, second):
        list(launcher._ask_queue())
    assert cluster.cells() == [[0], [1], [2], [0]]
    assert "4" in second._jobs


def test_a_job_that_another_worker_made_needless_is_no_death(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = cluster.command()
    cluster.begin(0, "77", monkeypatch)
    cluster.states["1"] = State("COMPLETED", nodes="n1")
    (event,) = launcher._ask_queue()
    assert event.payload["warning"].endswith("another worker has the cell")
    assert (launcher._deaths, launcher._in_vain, len(cluster.cells())) == ({}, {}, 3)


def test_storage_that_does_not_answer_is_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cell's folder cannot be read; the others are followed."""
    launcher = cluster.command()
    mark_ended(cluster.folder(1), "the hook broke")

    def stale(cell: Path) -> list[int]:
        if cell == cluster.folder(0):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(cell))
        return numbers(cell)

    monkeypatch.setattr(folder_watch, "numbers", stale)
    looks = [list(launcher._patiently(launcher._watch.poll())) for _ in range(2)]
    assert ends(looks[0]) == [(cluster.specs[1].run_id, "failed")]
    assert "Stale file handle" in looks[0][-1].payload["warning"]
    assert looks[1] == [], "it is said once"
    assert len(launcher._watch.open) == 2


def test_a_cell_that_has_left_a_job_does_not_come_back_into_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It failed in job 1, which trains the others still, and its next job died."""
    cluster.command(cells_per_job=3)
    mark_ended(cluster.folder(0), "the hook broke")
    launcher = cluster.command(cells_per_job=3)
    cluster.begin(0, "2", monkeypatch)
    cluster.states["2"] = State("TIMEOUT")
    list(launcher._ask_queue())
    assert cluster.cells() == [[0, 1, 2], [0], [0]]
