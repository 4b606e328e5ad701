"""Several processes train one cell as one does: the same data, the same masks, the same bits after any fault."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grids
import pytest
import torch
import torch.distributed as dist

from benchmark import data, models, results
from benchmark.models import Entry
from benchmark.run_folder.attempts import ended, folder_of
from benchmark.run_folder.files import read_json
from benchmark.spec import Data, Model, Optimizer, RunSpec, SpecError, check_processes, from_dict, replace_fields
from benchmark.suites import cell
from benchmark.training.engine import Engine
from benchmark.training.environment import drift
from benchmark.training.execution import Execution
from benchmark.training.follower import follow
from benchmark.training.loop import Training, digest, train_epoch
from benchmark.training.peers import Peers
from benchmark.training.prepare import prepare_training
from benchmark.training.process_group import Group, join

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
PIXELS = Data(name="synthetic", shape=(3, 8, 8), train_limit=330, test_limit=50, augment="crop-flip")
TINY = Entry("benchmark.models.wide_resnet:WideResNet", "with batch normalisation", {"depth": 10, "width": 1})
LOSS_TOLERANCE = 1e-5  # relative, each of 22 steps
KINK_TOLERANCE = 1e-3  # where an input of a ReLU is so near to 0 that rounding decides, as seen with sparse_momentum
MASK_TOLERANCE = 1e-3  # entries that may differ after them: |w| and t, or two momenta, can be as near as rounding
SUITE = """
import os
import methods
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

SGD = Optimizer(lr=0.02, momentum=0.9, batch_size=32, micro_batch_size=8, epochs={epochs})
GIVEN = dict(data=Data(name="synthetic", shape=(1, 16, 16), train_limit=330, test_limit=64), optimizer=SGD)


class Breaks(methods.Method):
    name, version, reference, density_promise = "breaks", 1, "none", "dense"

    def after_step(self, ctx):
        if ctx.step == 5 and os.environ.get("RANK", "0") in {ranks}:
            raise RuntimeError("the hook broke\\nand has more to say")


methods.register("breaks", f"{{__name__}}:Breaks")


def suite():
    return [cell(m, model=Model(name="lenet-5-caffe"), step_records=1, **h, **GIVEN) for m, h in {methods}]
"""
DST, SET, BREAKS = ("dst", {"alpha": 2e-3}), ("set", {"density": 0.2}), ("breaks", {})


def spec(method: str, *, model: str = "lenet-300-100", micro: int | None = 8, **given: Any) -> RunSpec:
    optimizer = Optimizer(lr=0.05, momentum=0.9, batch_size=32, epochs=2, micro_batch_size=micro)
    return cell(method, data=PIXELS, model=Model(name=model), optimizer=optimizer, **given)


def write_suite(path: Path, *methods: tuple[str, dict[str, Any]], epochs: int = 3, ranks: str = "01") -> str:
    path.write_text(SUITE.format(methods=list(methods), epochs=epochs, ranks=tuple(ranks)))
    return str(path)


def history(training: Training) -> list[tuple[float, str]]:
    """Loss so far and digest of weights, thresholds, masks and momentum after each step of all epochs."""
    steps: list[tuple[float, str]] = []

    def note() -> None:
        state = (training.model, training.optimizer.state_dict(), training.attached.state_dict())
        steps.append((float(training.loss_sum), digest(*state)))

    while training.epoch < training.epochs:
        train_epoch(training, note)
    return steps


# --- two processes, step by step --------------------------------------------------------------


def everything() -> list[RunSpec]:
    conv = [spec(*one, model="tiny") if len(one) == 1 else spec(one[0], model="tiny", **one[1]) for one in METHODS]
    others = [spec("dst", model=model, alpha=2e-3) for model in ("lstm-a", "lenet-300-100")]
    return [*conv, *others, spec("sparse_momentum", model="lstm-a", density=0.2)]


METHODS = [DST, SET, ("sparse_momentum", {"density": 0.2}), ("dsr", {"density": 0.2}), ("static", {"density": 0.2})]


def prepared(of: RunSpec, group: Group | None = None) -> Training:
    execution = Execution(out=Path(), data_dir=Path())
    return prepare_training(of, execution, group or Group(), Engine(of, "cpu"))


def train_rank(rank: int, port: int, trees: list[dict[str, Any]], folder: Path) -> None:
    torch.set_num_threads(1)
    models.CATALOGUE["tiny"] = TINY
    store = dist.TCPStore("127.0.0.1", port, is_master=rank == 0, wait_for_workers=False)
    group = join(store, rank=rank, size=2, address="127.0.0.1")
    assert group is not None
    found = []
    for tree in trees:
        training = prepared(from_dict(tree), group)
        found.append((history(training), training.attached.masks(), training.examples, training.train_cpu_seconds))
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()


@pytest.mark.slow
def test_two_processes_hold_the_same_bits_after_every_step_and_train_as_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.CATALOGUE, "tiny", TINY)
    specs = everything()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    arguments = [(rank, port, [one.to_dict() for one in specs], tmp_path) for rank in (0, 1)]
    processes = [spawn.Process(target=train_rank, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    leader, follower = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for one, led, followed in zip(specs, leader, follower, strict=True):
        assert len(led[0]) == 22
        assert led[0] == followed[0], one.label
        alone = prepared(one)
        expected = history(alone)
        tolerance = KINK_TOLERANCE if one.method["name"] == "sparse_momentum" else LOSS_TOLERANCE
        assert [loss for loss, _ in led[0]] == pytest.approx([loss for loss, _ in expected], rel=tolerance)
        masks = alone.attached.masks()
        differing = sum(int((mask ^ led[1][name]).sum()) for name, mask in masks.items())
        assert differing <= MASK_TOLERANCE * sum(mask.numel() for mask in masks.values()), one.label
        assert led[2] == alone.examples == 660
        assert led[3] == followed[3] > 0  # the CPU seconds of both


# --- micro-batches in one process ---------------------------------------------------------------


@pytest.mark.parametrize("model", ["lenet-5-caffe", "lstm-a"])
def test_micro_batches_add_up_to_the_whole_batch(model: str) -> None:
    """Without batch normalisation; an epoch of 330 ends with 10 examples, in passes of 8 and 2."""
    wide = dataclasses.replace(PIXELS, shape=(1, 16, 16))
    whole, parts = (dataclasses.replace(spec("dst", model=model, micro=m, alpha=2e-3), data=wide) for m in (None, 8))
    one, many = prepared(whole), prepared(parts)
    losses = [[loss for loss, _ in history(training)] for training in (one, many)]
    assert losses[1] == pytest.approx(losses[0], rel=LOSS_TOLERANCE)
    for name, threshold in one.attached.thresholds().items():
        torch.testing.assert_close(many.attached.thresholds()[name], threshold, rtol=1e-3, atol=1e-5)


def test_batch_statistics_are_the_mean_over_the_passes_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass starts from the statistics before the step, so a step moves them once, whatever the passes."""
    monkeypatch.setitem(models.CATALOGUE, "tiny", TINY)
    live, twin = (prepared(spec("dense", model="tiny", micro=16)) for _ in range(2))
    images, labels = next(iter(live.batches(0)))
    before = {name: buffer.clone() for name, buffer in twin.model.named_buffers()}
    after = []
    for start in (0, 16):
        for name, buffer in twin.model.named_buffers():
            buffer.copy_(before[name])
        twin.model.train()(images[start : start + 16])
        after.append({name: buffer.clone() for name, buffer in twin.model.named_buffers()})
    live.model.train()
    live.gradient.backward(images, labels, step=0, examples=32)
    for name, buffer in live.model.named_buffers():
        expected = (after[0][name].double() + after[1][name].double()) / 2
        torch.testing.assert_close(buffer, expected.to(buffer.dtype))
        assert not name.endswith("num_batches_tracked") or int(buffer) == 1


def test_ten_passes_count_as_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times a tenth is less than 1 in floating point, and a count of batches is a whole number."""
    monkeypatch.setitem(models.CATALOGUE, "tiny", TINY)
    of = spec("dense", model="tiny")
    live = prepared(
        dataclasses.replace(of, optimizer=dataclasses.replace(of.optimizer, batch_size=100, micro_batch_size=10))
    )
    images, labels = next(iter(live.batches(0)))
    live.model.train()
    for step in range(3):
        live.gradient.backward(images, labels, step=step, examples=100)
    counts = [int(buffer) for name, buffer in live.model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts == [3] * len(counts) != []


def test_processes_share_a_batch_in_order_and_augmented_alike() -> None:
    dataset = data.load(PIXELS, data_dir=Path(), device=CPU)
    whole = list(dataset.train_batches(batch_size=32, seed=3, epoch=1))
    halves = [
        list(dataset.train_batches(batch_size=32, seed=3, epoch=1, share=share)) for share in (slice(16), slice(16, 32))
    ]
    for (images, labels), (first, some), (second, rest) in zip(whole, *halves, strict=True):
        assert torch.equal(images, torch.cat([first, second]))
        assert torch.equal(labels, torch.cat([some, rest]))
    assert len(halves[1][-1][1]) == 0


def test_a_micro_batch_size_is_identity_and_none_changes_no_run_id() -> None:
    assert "micro_batch_size" not in spec("dense", micro=None).canonical_json
    assert spec("dense", micro=8).run_id != spec("dense", micro=None).run_id


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimizer.micro_batch_size", 5, "optimizer.micro_batch_size is 5: it must divide optimizer.batch_size, 32"),
        ("optimizer.micro_batch_size", 0, "optimizer.micro_batch_size is 0"),
        ("model.hidden_state", "carried", "takes a batch in one pass"),
    ],
)
def test_micro_batches_that_cannot_be_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        replace_fields(spec("dense", model="lstm-a"), {field: value})


def test_passes_that_processes_cannot_share_equally_are_refused_with_what_to_give() -> None:
    check_processes(spec("dense", micro=8), 4)
    with pytest.raises(SpecError, match="3 processes cannot share 4 forward passes a step"):
        check_processes(spec("dense", micro=8), 3)
    with pytest.raises(SpecError, match=r"2 processes cannot share 1 .* --set optimizer.micro_batch_size=SIZE"):
        check_processes(spec("dense", micro=None), 2)


def test_another_number_of_processes_is_drift_and_none_recorded_is_not() -> None:
    assert drift({"processes": 2}, {"processes": 1}) == ["processes: 2 -> 1"]
    assert drift({}, {"processes": 2}) == []


# --- who is who ---------------------------------------------------------------------------------


def test_a_run_that_processes_cannot_share_ends_before_it_begins(tmp_path: Path, bench: grids.Bench) -> None:
    suite = grids.write_suite(tmp_path / "whole.py", {"lenet-300-100": 1}, methods=["dense"])
    refused = bench("run", "--suite", suite, "--out", tmp_path / "runs", "--processes-per-cell", "2")
    assert (refused.code, refused.stdout) == (2, "")
    assert "2 processes cannot share 1 forward passes a step" in refused.error
    assert not grids.cells(tmp_path / "runs")


def test_a_peer_that_falls_silent_or_ends_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.training.peers.SILENCE_SECONDS", 0.3)
    monkeypatch.setattr("benchmark.training.peers.PING_SECONDS", 0.05)
    for mute in (True, False):
        lost = threading.Event()
        ours, theirs = socket.socketpair()
        Peers([ours], lost.set)
        alive = threading.Event()
        if not mute:
            Peers([theirs], alive.set)
            assert not lost.wait(0.6)
            theirs.shutdown(socket.SHUT_RDWR)
        assert lost.wait(2)


# --- whole cells, by the command line --------------------------------------------------------------


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_suite(tmp_path_factory.mktemp("suite") / "two.py", DST, SET, epochs=8)


@pytest.fixture(scope="module")
def undisturbed(suite: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The bits of the suite's cells, each trained by two processes that nothing disturbed."""
    out = tmp_path_factory.mktemp("undisturbed")
    finished = grids.finish(grids.start(*command(suite, out)))
    assert (finished.code, finished.stderr) == (0, "")
    return grids.bits(out)


def command(suite: str, out: Path) -> tuple[str | Path, ...]:
    return ("run", "--suite", suite, "--out", out, "--workers", "1", "--processes-per-cell", "2")


def at_work(out: Path) -> tuple[int, int]:
    """Process ids of the leader and the follower of the cell that has just written a checkpoint."""
    before = set(grids.checkpoints(out))
    new = grids.wait_for(lambda: set(grids.checkpoints(out)) - before, "a further checkpoint")
    leader = read_json(next(iter(new)).parent / "owner.json")["pid"]
    (follower,) = grids.children(leader)
    return leader, follower


def gone(*processes: int) -> bool:
    return not any(Path(f"/proc/{process}/cwd").exists() for process in processes)


@pytest.mark.slow
def test_a_killed_leader_and_a_killed_follower_end_the_other_and_the_cells_end_in_the_same_bits(
    suite: str, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    process = grids.start(*command(suite, tmp_path), checkpoint_seconds=0.05)
    for which in (0, 1):
        both = at_work(tmp_path)
        os.kill(both[which], signal.SIGKILL)
        killed = time.monotonic()
        grids.wait_for(lambda both=both: gone(*both), "the end of both")
        assert time.monotonic() - killed < 10
    finished = grids.finish(process)
    assert (finished.code, finished.stderr) == (0, "")
    assert finished.stdout.count("another one goes on with it") == 2
    assert finished.stdout.count("resumed at step") == 2
    assert grids.bits(tmp_path) == undisturbed


@pytest.mark.slow
def test_an_interruption_saves_at_a_step_boundary_of_all_processes(
    suite: str, undisturbed: dict[str, Any], tmp_path: Path, bench: grids.Bench
) -> None:
    process = grids.start(*command(suite, tmp_path), checkpoint_seconds=0.05)
    both = at_work(tmp_path)
    process.send_signal(signal.SIGINT)
    stopped = grids.finish(process)
    assert (stopped.code, stopped.stderr) == (130, "")
    grids.wait_for(lambda: gone(*both), "the end of both")
    (begun,) = grids.cells(tmp_path)
    assert (ended(folder_of(begun, 1)) or {})["status"] == "interrupted"

    alone = bench("run", "--suite", suite, "--out", tmp_path, "--where", "method=dst")
    assert alone.code == 2
    assert "processes: 2 -> 1" in alone.error
    last = grids.finish(grids.start(*command(suite, tmp_path)))
    assert (last.code, last.stderr) == (0, "")
    assert grids.bits(tmp_path) == undisturbed


@pytest.mark.slow
def test_torchrun_trains_each_cell_with_all_processes_and_writes_it_once(
    suite: str, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    line = [*torchrun, "-m", "benchmark", "run", "--suite", suite, "--out", str(tmp_path)]
    first = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("2 cells, 0 of them ended before") == 1
    assert grids.bits(tmp_path) == undisturbed
    assert grids.attempts(tmp_path) == {run_id: [1] for run_id in undisturbed}
    assert [row["status"] for row in results.rows(tmp_path)] == ["done", "done"]
    again = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "2 cells, 2 of them ended before" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "said"),
    [pytest.param("01", "method 'breaks'", marks=pytest.mark.rare), ("1", "process 1: method 'breaks'")],
)
def test_a_failure_of_all_or_of_one_process_is_a_row_and_the_next_cell_is_trained(
    broken: str, said: str, tmp_path: Path
) -> None:
    suite = write_suite(tmp_path / "breaks.py", BREAKS, DST, epochs=1, ranks=broken)
    finished = grids.finish(grids.start(*command(suite, tmp_path / "runs")))
    assert (finished.code, finished.stderr) == (1, "")
    rows = {row["method"]: row for row in results.rows(tmp_path / "runs")}
    assert (rows["breaks"]["status"], rows["dst"]["status"]) == ("failed", "done")
    error = rows["breaks"]["error"]
    assert re.search(rf"{said}, after_step \(breaks\.py, line \d+\): RuntimeError: the hook broke", error), error
    assert "\n" not in error


class _LeaderGone(Group):
    """A group whose leader ends while this follower waits."""

    def receive(self) -> Any:
        raise RuntimeError("Connection closed by peer")


def test_a_follower_ends_in_order_when_the_leader_has_ended_between_cells() -> None:
    follow(Execution(out=Path(), data_dir=Path()), _LeaderGone(rank=1, size=2))
