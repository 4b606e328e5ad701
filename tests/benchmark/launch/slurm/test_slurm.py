"""Grids on a real SLURM cluster of two nodes: whatever happens to jobs and nodes, the bits are the same."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grids
import pytest
from grids import Bench
from slurm_grids import Submit, Submitted, assert_same_bits, cluster, slurm, wait_for

from benchmark.launch.slurm import launcher as slurm_launcher
from benchmark.launch.slurm import queue as slurm_queue
from benchmark.launch.slurm.queue import State

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

# --- one grid after the other ----------------------------------------------------------------------


def test_arrays_are_split_and_cells_packed_into_jobs(submit: Submit, alone: dict[str, Any]) -> None:
    """Seven cells, two a job: four jobs, one more than an array may have here."""
    grid = submit("--workers", "2", seeds="0-6", sleep=0.01, keys={"cells_per_job": 2, "cpus_per_task": 2})
    finished = grid.finish()
    assert_same_bits(grid, finished, alone)
    assert {number for taken in grids.attempts(grid.out).values() for number in taken} == {1}
    arrays = [job.partition("_")[0] for job in grid.jobs()]
    assert (len(arrays), len(set(arrays))) == (4, 2)
    assert finished.stdout.count("% remaining") == 7


def test_preempted_cells_are_queued_again(submit: Submit, alone: dict[str, Any]) -> None:
    grid = submit(sleep=0.05).at_work()
    slurm("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    finished = grid.finish()
    assert_same_bits(grid, finished, alone)
    assert "resumed at step" in finished.stdout
    assert len(grid.jobs()) == 1, "SLURM had the job all the time"


@pytest.mark.rare
def test_a_power_cut_of_a_node_moves_its_cells_to_another(submit: Submit, alone: dict[str, Any]) -> None:
    grid = submit(sleep=0.05).at_work()
    node = grid.owner()["host"]
    cluster("down", node)
    try:
        finished = grid.finish()
    finally:
        cluster("up", node)
    assert_same_bits(grid, finished, alone)
    assert grid.ends() == [None, "done"]
    assert grid.owner()["host"] != node


@pytest.mark.rare
def test_a_controller_that_is_down_costs_nothing(submit: Submit, alone: dict[str, Any]) -> None:
    """The cells end while nobody can ask about them."""
    grid = submit(sleep=0.03).at_work()
    cluster("down", "slurmctld")
    time.sleep(20)
    cluster("up", "slurmctld")
    finished = grid.finish()
    assert_same_bits(grid, finished, alone)
    assert grid.ends() == ["done"]
    assert "squeue: " in finished.stdout
    assert "; waiting for it" in finished.stdout


def test_a_folder_that_the_nodes_do_not_see_is_named(
    nodes: None, suite: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_launcher, "PAUSE_SECONDS", 0.0)
    (tmp_path / "runs").mkdir()
    for node in ("n1", "n2"):
        cluster("exec", node, "mount", "-t", "tmpfs", "none", str(tmp_path / "runs"))
    finished = bench(*Submitted(suite, tmp_path).command())
    for node in ("n1", "n2"):
        cluster("exec", node, "umount", str(tmp_path / "runs"))
    assert finished.code == 2
    assert "before they began a cell" in finished.error
    assert "does every node see that folder?" in finished.error


@pytest.mark.rare  # two minutes: the least time limit that SLURM knows is one
def test_a_time_limit_puts_the_job_back_into_the_queue(submit: Submit, alone: dict[str, Any]) -> None:
    grid = submit(sleep=0.2, keys={"time_minutes": 1})
    finished = grid.finish()
    assert_same_bits(grid, finished, alone)
    assert "resumed at step" in finished.stdout
    assert grid.ends()[0] == "interrupted", "its state was saved in time"
    assert len(grid.jobs()) == 1
    assert "the job goes back into the queue" in next(grid.out.glob("slurm/*/*_log.out")).read_text()


def test_a_job_that_nobody_knows_has_ended(nodes: None) -> None:
    assert slurm_queue.states(["1", "2_7"]) == {"1": State("UNKNOWN"), "2_7": State("UNKNOWN")}
    assert State("UNKNOWN").ended


# --- several at once, as they mostly wait ------------------------------------------------------------


@pytest.fixture(scope="module")
def storm(nodes: None, suite: str, alone: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Storm:
    """Four grids of a cell, each of which meets its own trouble."""
    names = ("left", "requeued", "killed", "cancelled")
    found = Storm(*(Submitted(suite, tmp_path_factory.mktemp(name), sleep=0.1).start() for name in names))
    found.disturb()
    return found


@dataclass
class Storm:
    left: Submitted
    requeued: Submitted
    killed: Submitted
    cancelled: Submitted
    finished: dict[str, grids.Finished] = field(default_factory=dict)

    def disturb(self) -> None:
        assert self.left.at_work().process is not None
        self.left.process.send_signal(signal.SIGINT)
        self.finished["interrupted"] = self.left.finish()
        self.left.start()
        slurm("scontrol", "requeue", self.requeued.at_work().jobs()[0])
        slurm("scancel", self.cancelled.at_work().jobs()[0])
        kill_the_task(self.killed.at_work())
        for name in ("left", "requeued", "killed", "cancelled"):
            self.finished[name] = getattr(self, name).finish()


def kill_the_task(grid: Submitted) -> None:
    """kill -9 of the job's first process, the one that submitit started."""
    owner = grid.owner()
    script = f"kill -9 $(ps -o ppid= -p {owner['pid']})"
    cluster("exec", owner["host"], "bash", "-c", script)


def test_an_interrupted_dispatcher_leaves_its_jobs_and_the_next_one_adopts_them(
    storm: Storm, alone: dict[str, Any]
) -> None:
    assert storm.finished["interrupted"].code == 130
    assert "the jobs go on in SLURM" in storm.finished["interrupted"].stdout
    assert_same_bits(storm.left, storm.finished["left"], alone)
    assert len(storm.left.jobs()) == 1
    assert storm.left.ends() == ["done"]


def test_scontrol_requeue_loses_at_most_a_checkpoint_interval(storm: Storm, alone: dict[str, Any]) -> None:
    assert_same_bits(storm.requeued, storm.finished["requeued"], alone)
    assert "resumed at step" in storm.finished["requeued"].stdout
    assert len(storm.requeued.jobs()) == 1


def test_a_job_whose_process_is_killed_gets_another_one(storm: Storm, alone: dict[str, Any]) -> None:
    finished = storm.finished["killed"]
    assert_same_bits(storm.killed, finished, alone)
    assert "another job goes on with it" in finished.stdout
    assert len(storm.killed.jobs()) == 2


def test_a_cancelled_job_is_not_queued_again_and_its_cell_says_so(storm: Storm) -> None:
    finished = storm.finished["cancelled"]
    assert (finished.code, finished.stderr) == (1, "")
    (row,) = storm.cancelled.rows()
    job = storm.cancelled.jobs()[0]
    assert (row["status"], row["error"]) == ("cancelled", f"its SLURM job {job} was cancelled")
    assert len(storm.cancelled.jobs()) == 1


def test_a_cancelled_cell_is_run_by_the_same_command_given_again(storm: Storm, alone: dict[str, Any]) -> None:
    storm.cancelled.sleep = 0
    finished = storm.cancelled.start().finish()
    assert_same_bits(storm.cancelled, finished, alone)
    assert "resumed at step" in finished.stdout


def test_a_detached_grid_is_finished_by_status(submit: Submit, alone: dict[str, Any]) -> None:
    grid = submit("--detach", sleep=0.02)
    finished = grid.finish()
    assert (finished.code, finished.stderr) == (0, "")
    assert "'python -m benchmark status" in finished.stdout
    wait_for(lambda: grid.rows()[0]["status"] == "running", "the cell")
    wait_for(lambda: grid.rows()[0]["status"] == "done", "its end")
    assert_same_bits(grid, finished, alone)
