"""Stopped, killed and interrupted runs save what they can, say so in their exit code, and go on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grids
import pytest
from one_cell import make_spec

from benchmark.launch.base import Event
from benchmark.launch.local import LocalLauncher
from benchmark.run_folder import attempts
from benchmark.run_folder.attempts import folder_of, numbers
from benchmark.run_folder.files import read_json
from benchmark.training.execution import Execution

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small_suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("suite") / "small.py"
    return grids.write_suite(path, {"lenet-300-100": 40}, methods=["dst"])


@pytest.mark.slow
def test_a_cell_survives_a_dead_worker_an_interruption_and_a_kill(
    small_suite: str, tmp_path: Path, bench: grids.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CHECKPOINT_SECONDS", "0.1")
    out = tmp_path / "disturbed"
    command = ("run", "--suite", small_suite, "--out", out)

    def kill_the_worker_then_interrupt() -> None:
        grids.wait_for_a_checkpoint(out)
        os.kill(*worker_of(out), signal.SIGKILL)
        grids.wait_for_a_checkpoint(out)
        os.kill(os.getpid(), signal.SIGINT)

    with grids.meanwhile(kill_the_worker_then_interrupt):
        interrupted = bench(*command)
    assert interrupted.code == 130
    assert "its worker died (signal 9); another one goes on with it" in interrupted.stdout
    assert "stopping: running cells save their state" in interrupted.stdout

    killed = grids.start(*command, checkpoint_seconds=0.1)
    grids.wait_for_a_checkpoint(out)
    grids.kill_all(killed)
    last = bench(*command)
    assert (last.code, last.stderr) == (0, "")
    assert "resumed at step" in last.stdout
    assert ends(out) == [None, "interrupted", None, "done"]
    assert grids.bits(out) == grids.train_alone(small_suite, tmp_path / "alone")


@pytest.mark.slow
def test_a_signal_saves_the_state_and_has_its_exit_code(small_suite: str, tmp_path: Path) -> None:
    out, numbers_sent = tmp_path / "stopped", (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    command = ("run", "--suite", small_suite, "--out", out)
    for number in numbers_sent:
        process = grids.start(*command, checkpoint_seconds=0.1)
        grids.wait_for_a_checkpoint(out)
        process.send_signal(number)
        stopped = grids.finish(process)
        assert (stopped.code, stopped.stderr) == (128 + number, "")
    last = grids.finish(grids.start(*command))
    assert (last.code, ends(out)) == (0, ["interrupted"] * 4 + ["done"])
    assert grids.bits(out) == grids.train_alone(small_suite, tmp_path / "alone")


@pytest.mark.slow
def test_a_worker_that_gets_a_stop_signal_saves_the_state_and_another_one_goes_on(
    small_suite: str, tmp_path: Path
) -> None:
    out = tmp_path / "told"
    process = grids.start("run", "--suite", small_suite, "--out", out, checkpoint_seconds=0.1)
    for attempt, number in enumerate((signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT), 1):
        saved = f"cells/*/attempts/{attempt:04d}/checkpoint-*.json"
        grids.wait_for(lambda saved=saved: list(out.glob(saved)), f"a checkpoint of attempt {attempt}")
        os.kill(*worker_of(out), number)
    done = grids.finish(process)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.count("its worker was asked to stop; another one goes on with it") == 4
    assert ends(out) == ["interrupted"] * 4 + ["done"]
    assert grids.bits(out) == grids.train_alone(small_suite, tmp_path / "alone")


@pytest.mark.slow
def test_a_second_interrupt_ends_everything_at_once(small_suite: str, tmp_path: Path) -> None:
    process = grids.start("run", "--suite", small_suite, "--out", tmp_path, checkpoint_seconds=0.1)
    grids.wait_for_a_checkpoint(tmp_path)
    workers = grids.children(process.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # it cannot save its state
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)  # of a scheduler that sends several
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    stopped = grids.finish(process)
    assert (stopped.code, stopped.stderr) == (130, "")
    assert not any(Path(f"/proc/{worker}/cwd").exists() for worker in workers)


def test_a_worker_ends_at_once_at_its_second_interrupt() -> None:
    command = [sys.executable, "-m", "benchmark.launch.worker"]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    grids.wait_for(lambda: catches(worker.pid, signal.SIGUSR2), "the worker's handlers")
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        worker.send_signal(number)
        time.sleep(0.1)
    assert worker.poll() is None
    worker.send_signal(signal.SIGINT)
    assert worker.wait(grids.WAIT_SECONDS) == 130


def launched(out: Path) -> tuple[LocalLauncher, Iterator[Event]]:
    """A cell that a worker, which still starts, has been given."""
    launcher = LocalLauncher(Execution(out=out, data_dir=out), workers=1)
    launcher.submit([make_spec()])
    events = launcher.events()
    assert next(events).kind == "started"
    return launcher, events


def test_a_stop_while_a_worker_starts_is_no_death(tmp_path: Path) -> None:
    launcher, events = launched(tmp_path)
    launcher.stop()
    assert list(events) == []
    assert not grids.cells(tmp_path)


def test_no_other_worker_goes_on_with_the_cell_of_one_that_dies_after_a_stop(tmp_path: Path) -> None:
    others = set(grids.children(os.getpid()))  # of earlier tests
    launcher, events = launched(tmp_path)
    launcher.stop()
    (worker,) = set(grids.children(os.getpid())) - others
    os.kill(worker, signal.SIGKILL)
    (warning,) = events
    assert warning.payload == {"warning": "its worker died (signal 9); the same command goes on"}


def catches(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


def ends(out: Path) -> list[str | None]:
    """How each attempt at the folder's only cell ended."""
    (only,) = grids.cells(out)
    found = [attempts.ended(folder_of(only, number)) for number in numbers(only)]
    return [end and end["status"] for end in found]


def worker_of(out: Path) -> tuple[int]:
    taken = grids.cells(out)[0]
    return (read_json(folder_of(taken, numbers(taken)[-1]) / "owner.json")["pid"],)
