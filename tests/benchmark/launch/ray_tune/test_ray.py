"""Grids on a real Ray: the local launcher's bits, whatever dies on the way."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grids
import pytest

from benchmark.launch.ray_tune.trial import unseen
from benchmark.run_folder.attempts import ended, folder_of, numbers
from benchmark.run_folder.files import read_json
from benchmark.training.execution import Execution

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
pytestmark = [needs_ray, pytest.mark.usefixtures("one_thread")]
METHODS = ["dense", "dst", "set"]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three cells of some seconds each."""
    folder = tmp_path_factory.mktemp("a füll grid")
    return grids.write_suite(folder / "grid.py", {"lenet-300-100": 150}, methods=METHODS)


@pytest.fixture(scope="module")
def undisturbed(suite: str, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> dict[str, Any]:
    return grids.train_alone(suite, tmp_path_factory.mktemp("alone"))


def start(suite: str, out: Path, *options: str, workers: int = 2) -> subprocess.Popen[str]:
    command = ("run", "--suite", suite, "--out", out, "--launcher", "ray", "--no-mlflow", *options)
    return grids.start(*command, "--workers", str(workers), checkpoint_seconds=0.1)


def family(pid: int) -> list[int]:
    """A process and its descendants that run."""
    return [pid, *(member for child in grids.children(pid) for member in family(child))]


def driver_of(process: subprocess.Popen[str]) -> int:
    """The child that talks to Ray."""
    (driver,) = (
        child
        for child in grids.children(process.pid)
        if b"ray_tune.driver" in Path(f"/proc/{child}/cmdline").read_bytes()
    )
    return driver


def wait_until_gone(pids: list[int]) -> None:
    grids.wait_for(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in pids), "the end of Ray's processes")


def wait_for_a_checkpoint(out: Path) -> None:
    before = set(grids.checkpoints(out))
    grids.wait_for(lambda: set(grids.checkpoints(out)) - before, "a further checkpoint")


@pytest.mark.slow
def test_a_grid_on_ray_has_the_bits_of_cells_trained_alone_in_one_attempt_each(
    suite: str, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "with ü, 'quotes' & 🌱"
    process = start(suite, out)
    wait_for_a_checkpoint(out)
    processes = family(driver_of(process))
    assert len(processes) > 4, "a driver, Ray's own processes, and cells' workers"
    finished = grids.finish(process)
    assert (finished.code, finished.stderr) == (0, "")
    assert finished.stdout.count(" 1/1 ") == len(METHODS)
    assert grids.bits(out) == undisturbed
    assert set(map(tuple, grids.attempts(out).values())) == {(1,)}
    wait_until_gone(processes)


@pytest.mark.slow
@pytest.mark.rare
def test_a_grid_survives_its_driver_then_its_launcher_then_an_interruption(
    suite: str, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    process = start(suite, out)
    wait_for_a_checkpoint(out)
    first = family(driver_of(process))
    os.kill(first[0], signal.SIGKILL)  # survived without a second command
    wait_until_gone(first)
    wait_for_a_checkpoint(out)
    second = family(driver_of(process))
    process.kill()
    process.communicate()
    wait_until_gone(second)

    begun = attempts_of(out)
    process = start(suite, out)
    wait_for_a_checkpoint(out)
    process.send_signal(signal.SIGINT)
    stopped = grids.finish(process)
    assert (stopped.code, stopped.stderr) == (130, "")
    ends = [ended(attempt) for attempt in attempts_of(out) - begun]
    assert "interrupted" in [end and end["status"] for end in ends]
    assert None not in ends

    last = grids.finish(start(suite, out))
    assert (last.code, last.stderr) == (0, "")
    assert "resumed at step" in last.stdout
    assert grids.bits(out) == undisturbed


def attempts_of(out: Path) -> set[Path]:
    """Every attempt at a cell so far."""
    return {folder_of(cell, number) for cell in grids.cells(out) for number in numbers(cell)}


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each, on this machine."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "disabled")
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        yield nodes
        nodes.shutdown()


@pytest.mark.slow
@pytest.mark.rare
def test_a_dead_node_loses_no_cell(suite: str, undisturbed: dict[str, Any], tmp_path: Path, cluster: Any) -> None:
    out = tmp_path / "runs"
    raylets = [process.process.pid for process in next(iter(cluster.worker_nodes)).all_processes["raylet"]]
    process = start(suite, out, "--ray-address", cluster.address)

    def cell_of_the_node() -> list[str]:
        members = {member for raylet in raylets for member in family(raylet)}
        return [cell for cell, pid in at_work(out) if pid in members]

    (hit,) = grids.wait_for(cell_of_the_node, "a checkpoint of a cell on the second node")
    for pid in [member for raylet in raylets for member in family(raylet)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    finished = grids.finish(process)
    assert (finished.code, finished.stderr) == (0, "")
    assert "its trial died" in finished.stdout
    assert "resumed at step" in finished.stdout
    assert {cell: len(taken) for cell, taken in grids.attempts(out).items()} == {
        cell: 1 + (cell == hit) for cell in undisturbed
    }
    assert grids.bits(out) == undisturbed


def at_work(out: Path) -> list[tuple[str, int]]:
    """Cells that have a checkpoint and no result, with the process that has them."""
    begun = [manifest.parent for manifest in grids.checkpoints(out)]
    owners = [(folder.parents[1], read_json(folder / "owner.json")) for folder in begun]
    return list({(cell.name, owner["pid"]) for cell, owner in owners if not (cell / "result.json").exists()})


def test_what_a_worker_does_not_see_is_named(tmp_path: Path) -> None:
    plugin = tmp_path / "suite.py"
    execution = Execution(out=tmp_path, data_dir=tmp_path, device="cpu", plugins=(plugin,))
    sign = tmp_path / "ray" / "sign"
    assert f"does not see {sign}: --out must lie on storage that every worker sees" in str(unseen(execution, sign))
    sign.mkdir(parents=True)
    assert f"does not see {plugin}: --suite must lie" in str(unseen(execution, sign))
    plugin.touch()
    assert unseen(execution, sign) is None


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "gpus", "share"), [(1, 1, 1), (4, 1, 1 / 4), (3, 2, 1 / 2), (2, 8, 1)])
def test_so_many_cells_fit_on_the_gpus(workers: int, gpus: int, share: float) -> None:
    from benchmark.launch.ray_tune.driver import gpu_share  # importing Ray takes seconds

    assert gpu_share(workers, gpus) == share


def test_without_ray_the_extra_to_install_is_named(
    suite: str, bench: grids.Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    finished = bench("run", "--suite", suite, "--out", tmp_path / "runs", "--launcher", "ray")
    assert finished.code == 2
    assert finished.error == "error: --launcher ray needs Ray: pip install 'sparse-training-bench[ray]'"


@pytest.mark.parametrize(
    ("address", "fragment"),
    [
        ("127.0.0.1:1", "no Ray cluster answers (Connection refused)"),
        ("somewhere", "write HOST:PORT"),
        ("a..b:5", "the host is no host name"),
        (":6379", "write HOST:PORT"),
        ("127.0.0.1:²", "write HOST:PORT"),
        ("127.0.0.1:99999999", "write HOST:PORT"),
        (f"{'a' * 70}.b:6379", "the host is no host name"),
    ],
)
def test_an_address_without_a_cluster_is_one_line(
    address: str, fragment: str, suite: str, bench: grids.Bench, tmp_path: Path
) -> None:
    finished = bench("run", "--suite", suite, "--out", tmp_path, "--launcher", "ray", "--ray-address", address)
    assert finished.code == 2
    assert f"--ray-address {address}: {fragment}" in finished.error
