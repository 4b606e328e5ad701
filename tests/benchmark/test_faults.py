"""Killed, stopped and damaged runs end in the same bits as runs left alone, and say what they passed over."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grids
import pytest

import methods
from benchmark import attempts, cell, results
from benchmark.attempts import Observer, claim, folder_of, numbers
from benchmark.cell import Outcome, Place, execute
from benchmark.files import read_json, read_sealed, sealed, write_json
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell as spec_of

KILLS = 10
SEED = 20
EPOCHS = {"lenet-300-100": 60, "lenet-5-caffe": 30, "lstm-a": 16}
STEPS_PER_EPOCH = 10
pytestmark = pytest.mark.usefixtures("one_thread")
RESUMED = re.compile(r"^(\w+) .*: resumed at step (\d+)$", re.MULTILINE)


# --- kill -9, at any moment -------------------------------------------------------------------


@pytest.mark.slow
def test_ten_kills_of_every_method_on_every_kind_of_model_end_in_the_same_bits(tmp_path: Path) -> None:
    """Each kill waits until a cell that was never killed has a checkpoint, so that all of them get their turn."""
    suite, out = grids.write_suite(tmp_path / "grid.py", EPOCHS), tmp_path / "killed"
    alone = grids.finish(grids.start("run", "--suite", suite, "--out", tmp_path / "alone", "--workers", "2"))
    assert (alone.code, alone.stderr) == (0, "")

    command = ("run", "--suite", suite, "--out", out, "--workers", "2")
    moments, output, hit, kills = random.Random(SEED), "", set[str](), 0
    cells = {path.name for path in grids.cells(tmp_path / "alone")}
    while hit != cells and kills < 2 * len(cells):
        with (tmp_path / f"log-{kills}").open("w") as log:
            process = grids.start(*command, checkpoint_seconds=0.1, stdout=log)
            wait_for_another_cell(out, hit, process)
            time.sleep(moments.uniform(0, 0.3))
            at_work = running(out)
            grids.kill_all(process)
        hit |= at_work
        hit |= {name for name in cells if read_sealed(out / "cells" / name / "result.json") is not None}
        output += (tmp_path / f"log-{kills}").read_text()
        kills += 1
    last = grids.finish(grids.start(*command))
    assert (last.code, last.stderr) == (0, "")
    assert grids.bits(out) == grids.bits(tmp_path / "alone")

    assert kills >= KILLS
    resumed = {run_id for run_id, _ in RESUMED.findall(output + last.stdout)}
    fields = [json.loads((out / "cells" / run_id / "spec.json").read_text()) for run_id in resumed]
    assert {spec["method"]["name"] for spec in fields} == set(methods.available())
    assert {spec["model"]["name"] for spec in fields} == set(EPOCHS)
    steps = [int(step) for _, step in RESUMED.findall(output + last.stdout)]
    assert any(step % STEPS_PER_EPOCH for step in steps), "none in the middle of an epoch"


def running(out: Path) -> set[str]:
    """Cells that have a checkpoint and no result yet."""
    begun = {manifest.parents[2].name for manifest in grids.checkpoints(out)}
    return {name for name in begun if not (out / "cells" / name / "result.json").exists()}


def wait_for_another_cell(out: Path, hit: set[str], process: subprocess.Popen[str]) -> None:
    """Until a cell that is not in `hit` has a checkpoint, or the grid is over."""
    grids.wait_for(lambda: running(out) - hit or process.poll() is not None, "a checkpoint of another cell")


def wait_for_a_checkpoint(out: Path) -> None:
    before = set(grids.checkpoints(out))
    grids.wait_for(lambda: set(grids.checkpoints(out)) - before, "a further checkpoint")


@pytest.fixture(scope="module")
def small_suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("suite") / "small.py"
    return grids.write_suite(path, {"lenet-300-100": 40}, methods=["dst"])


def test_a_cell_survives_a_dead_worker_an_interruption_and_a_kill(
    small_suite: str, tmp_path: Path, bench: grids.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CHECKPOINT_SECONDS", "0.1")
    out = tmp_path / "disturbed"
    command = ("run", "--suite", small_suite, "--out", out)

    def kill_the_worker_then_interrupt() -> None:
        wait_for_a_checkpoint(out)
        os.kill(*worker_of(out), signal.SIGKILL)
        wait_for_a_checkpoint(out)
        os.kill(os.getpid(), signal.SIGINT)

    with grids.meanwhile(kill_the_worker_then_interrupt):
        interrupted = bench(*command)
    assert interrupted.code == 130
    assert "its worker died (signal 9); another one goes on with it" in interrupted.stdout
    assert "stopping: running cells save their state" in interrupted.stdout

    killed = grids.start(*command, checkpoint_seconds=0.1)
    wait_for_a_checkpoint(out)
    grids.kill_all(killed)
    last = bench(*command)
    assert (last.code, last.stderr) == (0, "")
    assert "resumed at step" in last.stdout
    assert ends(out) == [None, "interrupted", None, "done"]
    assert grids.bits(out) == grids.train_alone(small_suite, tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_a_signal_saves_the_state_and_has_its_exit_code(
    number: signal.Signals, code: int, small_suite: str, tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    command = ("run", "--suite", small_suite, "--out", out)
    process = grids.start(*command, checkpoint_seconds=0.1)
    wait_for_a_checkpoint(out)
    process.send_signal(number)
    stopped = grids.finish(process)
    assert (stopped.code, stopped.stderr) == (code, "")
    assert ends(out) == ["interrupted"]
    last = grids.finish(grids.start(*command))
    assert (last.code, ends(out)) == (0, ["interrupted", "done"])
    assert grids.bits(out) == grids.train_alone(small_suite, tmp_path / "alone")


@pytest.mark.slow
def test_a_second_signal_ends_everything_at_once(small_suite: str, tmp_path: Path) -> None:
    process = grids.start("run", "--suite", small_suite, "--out", tmp_path, checkpoint_seconds=0.1)
    wait_for_a_checkpoint(tmp_path)
    workers = grids.children(process.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # it cannot save its state
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    stopped = grids.finish(process)
    assert (stopped.code, stopped.stderr) == (130, "")
    assert not any(Path(f"/proc/{worker}/cwd").exists() for worker in workers)


def ends(out: Path) -> list[str | None]:
    """How each attempt at the folder's only cell ended."""
    (only,) = grids.cells(out)
    found = [attempts.ended(folder_of(only, number)) for number in numbers(only)]
    return [end and end["status"] for end in found]


def worker_of(out: Path) -> tuple[int]:
    taken = grids.cells(out)[0]
    return (read_json(folder_of(taken, numbers(taken)[-1]) / "owner.json")["pid"],)


# --- damaged checkpoints, in this process --------------------------------------------------------


def make_spec(seed: int = 0, epochs: int = 4) -> RunSpec:
    data = Data(name="synthetic", shape=(1, 8, 8), train_limit=128, test_limit=32)
    optimizer = Optimizer(lr=0.05, momentum=0.9, batch_size=32, epochs=epochs)
    model = Model(name="lenet-300-100")
    return spec_of("dst", data=data, model=model, optimizer=optimizer, seed=seed, alpha=1e-2, step_records=2)


class Runner:
    """Runs one cell of a folder in this process; keeps what it reports."""

    def __init__(self, out: Path, spec: RunSpec) -> None:
        self.spec, self.place = spec, Place(out, out, checkpoint_seconds=0)
        self.cell = self.place.cell(spec.run_id)
        self.reports: list[dict[str, Any]] = []

    def run(self, *, stop_after: int | None = None) -> Outcome:
        """stop_after: end with the first step after this epoch."""
        stop = threading.Event()

        def report(record: dict[str, Any]) -> None:
            self.reports.append(record)
            if stop_after is not None and record.get("epoch") == stop_after:
                stop.set()

        return execute(self.spec, self.place, observer=Observer(), report=report, stop=stop)

    @property
    def warnings(self) -> list[str]:
        return [record["warning"] for record in self.reports if "warning" in record]

    @property
    def resumed(self) -> list[int]:
        return [record["resumed"] for record in self.reports if "resumed" in record]

    def checkpoints(self, suffix: str = ".pt") -> list[Path]:
        """All generations, the newest last."""
        return sorted(self.cell.glob(f"attempts/*/checkpoint-*{suffix}"), key=lambda path: path.name)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Runner:
    """A cell stopped in its third epoch of four: generations at steps 8 and 9."""
    runner = Runner(tmp_path_factory.mktemp("stopped"), make_spec())
    assert runner.run(stop_after=2).status == "interrupted"
    assert [path.stem for path in runner.checkpoints()] == ["checkpoint-0000000008", "checkpoint-0000000009"]
    return runner


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> dict[str, Any]:
    runner = Runner(tmp_path_factory.mktemp("undisturbed"), make_spec())
    assert runner.run() == Outcome("done")
    return grids.bits(runner.place.out)


@pytest.fixture
def damaged(stopped: Runner, tmp_path: Path) -> Runner:
    """A copy of the stopped cell, to be damaged."""
    shutil.copytree(stopped.place.out, tmp_path / "copy")
    return Runner(tmp_path / "copy", stopped.spec)


def finish_and_compare(runner: Runner, undisturbed: dict[str, Any], *, resumed: list[int], named: list[Path]) -> None:
    """The cell ends in the same bits, from the expected step, with a warning for each file named."""
    assert runner.run() == Outcome("done")
    assert runner.resumed == resumed
    assert len(runner.warnings) == len(named)
    for warning, path in zip(runner.warnings, named, strict=True):
        assert str(path) in warning
        assert "\n" not in warning
    assert grids.bits(runner.place.out) == undisturbed


def test_an_undamaged_checkpoint_is_used_without_a_word(damaged: Runner, undisturbed: dict[str, Any]) -> None:
    finish_and_compare(damaged, undisturbed, resumed=[9], named=[])


@pytest.mark.parametrize("percent", [0, 10, 50, 99])
def test_a_truncated_checkpoint_is_passed_over_for_the_older_one(
    percent: int, damaged: Runner, undisturbed: dict[str, Any]
) -> None:
    newest = damaged.checkpoints()[-1]
    os.truncate(newest, newest.stat().st_size * percent // 100)
    finish_and_compare(damaged, undisturbed, resumed=[8], named=[newest])


@pytest.mark.parametrize("position", [0.0, 0.3, 0.6, 0.999])
def test_one_flipped_bit_in_a_checkpoint_is_detected(
    position: float, damaged: Runner, undisturbed: dict[str, Any]
) -> None:
    newest = damaged.checkpoints()[-1]
    flip_a_bit(newest, position)
    finish_and_compare(damaged, undisturbed, resumed=[8], named=[newest])


def flip_a_bit(path: Path, position: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 0x10
    path.write_bytes(content)


def test_a_damaged_or_missing_manifest_is_detected(damaged: Runner, undisturbed: dict[str, Any]) -> None:
    manifest = damaged.checkpoints(".json")[-1]
    document = read_json(manifest)
    manifest.write_text(json.dumps({**document, "steps": 7}))
    finish_and_compare(damaged, undisturbed, resumed=[8], named=[manifest.with_suffix(".pt")])
    assert manifest.name in damaged.warnings[0]


def test_with_both_generations_damaged_the_cell_starts_again(damaged: Runner, undisturbed: dict[str, Any]) -> None:
    older, newest = damaged.checkpoints()
    newest.with_suffix(".json").unlink()
    flip_a_bit(older, 0.5)
    finish_and_compare(damaged, undisturbed, resumed=[], named=[newest, older])


class Poison:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def poisoned(content: bytes, path: Path, *, archive: bool) -> bytes:
    """A poisoned pickle, bare or in the place of the one inside torch's archive."""
    poison = pickle.dumps(Poison(path), protocol=2)
    if not archive:
        return poison
    source, target = path.with_suffix(".source"), path.with_suffix(".target")
    source.write_bytes(content)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, poison if entry.endswith("data.pkl") else old.read(entry))
    return target.read_bytes()


@pytest.mark.parametrize("archive", [False, True], ids=["bare", "in an archive"])
@pytest.mark.parametrize("forged", [False, True], ids=["old manifest", "forged manifest"])
def test_a_poisoned_pickle_is_never_run(
    forged: bool, archive: bool, damaged: Runner, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    newest, trace = damaged.checkpoints()[-1], tmp_path / "trace"
    pickle.loads(pickle.dumps(Poison(trace)))
    trace.unlink()  # so the poison works
    content = poisoned(newest.read_bytes(), trace, archive=archive)
    newest.write_bytes(content)
    if forged:
        manifest = newest.with_suffix(".json")
        digest = hashlib.sha256(content).hexdigest()
        write_json(manifest, sealed({**read_json(manifest), "bytes": len(content), "content_sha256": digest}))
    finish_and_compare(damaged, undisturbed, resumed=[8], named=[newest])
    assert not trace.exists()


@pytest.mark.parametrize(("epoch", "resumed"), [(1, []), (2, [8])])
def test_tampered_metrics_are_detected_and_not_published(
    epoch: int, resumed: list[int], damaged: Runner, undisturbed: dict[str, Any]
) -> None:
    """The generation at step 8 was written before the record of epoch 2."""
    metrics = damaged.checkpoints()[-1].with_name("metrics.jsonl")
    before = metrics.read_bytes()
    metrics.write_bytes(before.replace(f'"epoch": {epoch}'.encode(), b'"epoch": 7', 1))
    finish_and_compare(damaged, undisturbed, resumed=resumed, named=[metrics] * (2 - len(resumed)))


def test_a_cut_metrics_file_is_detected(damaged: Runner, undisturbed: dict[str, Any]) -> None:
    metrics = damaged.checkpoints()[-1].with_name("metrics.jsonl")
    os.truncate(metrics, metrics.stat().st_size - 5)
    finish_and_compare(damaged, undisturbed, resumed=[8], named=[metrics])


def test_metrics_beyond_the_checkpoint_are_recorded_anew(damaged: Runner, undisturbed: dict[str, Any]) -> None:
    metrics = damaged.checkpoints()[-1].with_name("metrics.jsonl")
    metrics.write_bytes(metrics.read_bytes() + b'{"epoch": 99, "train_lo')
    finish_and_compare(damaged, undisturbed, resumed=[9], named=[])


def test_two_generations_are_kept_across_attempts(damaged: Runner) -> None:
    damaged.place = Place(damaged.place.out, damaged.place.out, checkpoint_seconds=1e9)
    assert damaged.run(stop_after=3).status == "interrupted"
    assert [path.parent.name for path in damaged.checkpoints()] == ["0001", "0001", "0002"]
    flip_a_bit(damaged.checkpoints()[-1], 0.5)
    assert damaged.run() == Outcome("done")
    assert damaged.resumed == [9, 9]


def test_a_checkpoint_of_another_cell_is_not_loaded(damaged: Runner, undisturbed: dict[str, Any]) -> None:
    other = Runner(damaged.place.out, make_spec(seed=1))
    shutil.copytree(damaged.cell / "attempts", other.cell / "attempts")
    newest, older = reversed(other.checkpoints())
    assert other.run() == Outcome("done")
    assert other.resumed == []
    assert [str(path) in warning for path, warning in zip([newest, older], other.warnings, strict=True)] == [True] * 2


def test_another_environment_is_refused_unless_drift_is_accepted(
    damaged: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = cell._environment(damaged.spec, damaged.place)
    monkeypatch.setattr(cell, "_environment", lambda *_: {**now, "threads": now["threads"] + 1})
    with pytest.raises(cell.DriftError, match=r"threads: \d+ -> \d+.*--accept-drift"):
        damaged.run()
    damaged.place = Place(damaged.place.out, damaged.place.out, accept_drift=True)
    assert damaged.run() == Outcome("done")
    drift = read_json(damaged.cell / "result.json")["environment"]["drift"]
    assert drift == [f"threads: {now['threads']} -> {now['threads'] + 1}"]


def test_a_damaged_result_is_no_result(damaged: Runner, undisturbed: dict[str, Any]) -> None:
    assert damaged.run() == Outcome("done")
    result = damaged.cell / "result.json"
    flip_a_bit(result, 0.5)
    assert read_sealed(result) is None
    assert damaged.run() == Outcome("done")
    assert grids.bits(damaged.place.out) == undisturbed


# --- who publishes ---------------------------------------------------------------------------------


def test_the_first_result_wins_and_the_metrics_are_the_winners(tmp_path: Path) -> None:
    folders = [folder_of(tmp_path, number) for number in (1, 2)]
    metrics = [b'{"epoch": 1, "by": 1}\n', b'{"epoch": 1, "by": 2}\n']
    for number, (folder, content) in enumerate(zip(folders, metrics, strict=True), 1):
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        write_json(
            folder / "result.json",
            sealed({"status": "done", "error": "", "attempt": number, "metrics_sha256": digest}),
        )
    assert cell.publish(tmp_path, folders[1], metrics[1]) == Outcome("done")
    published = (tmp_path / "result.json").read_bytes()
    assert cell.publish(tmp_path, folders[0], metrics[0]) == Outcome("done")
    assert (tmp_path / "result.json").read_bytes() == published == (folders[1] / "result.json").read_bytes()
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics[1]


def test_a_loser_that_wrote_its_metrics_last_puts_the_winners_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both attempts see no result; the slower one writes its metrics after the faster one has published."""
    test_the_first_result_wins_and_the_metrics_are_the_winners(tmp_path)
    answers = iter([None])
    monkeypatch.setattr(cell, "read_sealed", lambda path: next(answers, None) or read_sealed(path))
    loser = folder_of(tmp_path, 1)
    cell.publish(tmp_path, loser, (loser / "metrics.jsonl").read_bytes())
    assert b'"by": 2' in (tmp_path / "metrics.jsonl").read_bytes()
    assert (tmp_path / "result.json").read_bytes() == (folder_of(tmp_path, 2) / "result.json").read_bytes()
    assert list(tmp_path.glob("result.damaged*")) == []


def test_a_damaged_result_is_set_aside_and_replaced(tmp_path: Path) -> None:
    test_the_first_result_wins_and_the_metrics_are_the_winners(tmp_path)
    (tmp_path / "result.json").unlink()
    (tmp_path / "result.json").write_text("{")
    loser = folder_of(tmp_path, 1)
    assert cell.publish(tmp_path, loser, (loser / "metrics.jsonl").read_bytes()) == Outcome("done")
    assert (tmp_path / "result.json").read_bytes() == (loser / "result.json").read_bytes()
    assert [path.read_text() for path in tmp_path.glob("result.damaged*")] == ["{"]


def test_metrics_lost_after_the_result_are_put_back_from_the_winners_attempt(tmp_path: Path) -> None:
    test_the_first_result_wins_and_the_metrics_are_the_winners(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    result = read_sealed(tmp_path / "result.json")
    assert result is not None
    assert b'"by": 2' in results.metrics(tmp_path, result)
    assert b'"by": 2' in (tmp_path / "metrics.jsonl").read_bytes()
    for path in tmp_path.rglob("metrics.jsonl"):
        path.write_bytes(b"other\n")
    with pytest.raises(results.FolderError, match="not the one of its result"):
        results.metrics(tmp_path, result)


def test_a_cell_whose_workers_die_gets_a_failed_attempt_and_keeps_the_earlier_ones(tmp_path: Path) -> None:
    attempts.condemn(tmp_path, "its worker died 3 times")
    assert attempts.failed_before(tmp_path) == "its worker died 3 times"
    claim(tmp_path, Observer()).end("interrupted")
    attempts.condemn(tmp_path, "again")
    ends = [attempts.ended(folder_of(tmp_path, number)) for number in numbers(tmp_path)]
    assert [end["status"] for end in ends if end] == ["failed", "interrupted", "failed"]


def test_a_superseded_worker_commits_nothing(tmp_path: Path) -> None:
    """A worker frozen in its last epoch wakes up after another one has taken the cell over."""
    runner = Runner(tmp_path, make_spec(epochs=2))

    def take_over(record: dict[str, Any]) -> None:
        if record.get("epoch") == 2:
            other = folder_of(runner.cell, 2)
            other.mkdir()
            write_json(other / "owner.json", attempts._owner())

    frozen = execute(runner.spec, runner.place, observer=Observer(), report=take_over, stop=threading.Event())
    assert frozen.status == "superseded"
    assert not (runner.cell / "result.json").exists()
    assert not (runner.cell / "metrics.jsonl").exists()


# --- attempts ----------------------------------------------------------------------------------------


def race_for_a_claim(cell_folder: Path, start: Any, answers: Any, release: Any) -> None:
    start.wait()
    answers.put(claim(cell_folder, Observer()) is not None)
    release.wait()


def test_of_processes_racing_for_a_cell_exactly_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, answers, release = context.Event(), context.Queue(), context.Event()
    racers = [context.Process(target=race_for_a_claim, args=(tmp_path, start, answers, release)) for _ in range(8)]
    for racer in racers:
        racer.start()
    start.set()
    won = [answers.get(timeout=grids.WAIT_SECONDS) for _ in racers]
    release.set()
    for racer in racers:
        racer.join()
    assert sum(won) == 1
    assert numbers(tmp_path) == [1]


def test_of_threads_racing_for_cells_exactly_one_wins_each(tmp_path: Path) -> None:
    wins: list[int] = []
    barrier = threading.Barrier(8)

    def race() -> None:
        for turn in range(20):
            barrier.wait()
            won = claim(tmp_path / f"{turn}", Observer())
            barrier.wait()
            if won is not None:
                wins.append(turn)
                won.end("done")

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wins == list(range(20))


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Path]:
    """An attempt of a process elsewhere: only its heartbeat tells of it."""
    folder = folder_of(tmp_path, 1)
    folder.mkdir(parents=True)
    write_json(folder / "owner.json", {"host": "elsewhere", "boot": "another", "pid": 1, "started": 1})
    (folder / "heartbeat").write_text("000000000001\n")
    return folder


def test_an_attempt_is_over_once_its_heartbeat_stood_still_for_sixty_seconds(foreign: Path) -> None:
    now = [1000.0]
    observer = Observer(clock=lambda: now[0])
    assert not observer.over(foreign)
    now[0] += 59.9
    assert not observer.over(foreign)
    assert claim(foreign.parent.parent, observer) is None
    (foreign / "heartbeat").write_text("000000000002\n")
    now[0] += 0.2
    assert not observer.over(foreign)
    now[0] += 60.0
    assert observer.over(foreign)
    taken = claim(foreign.parent.parent, observer)
    assert taken is not None
    assert taken.number == 2
    taken.end("interrupted")


def test_an_observer_trusts_its_own_clock_alone(foreign: Path) -> None:
    os.utime(foreign / "heartbeat", (0, 0))
    assert not Observer(clock=lambda: 5.0).over(foreign)


def test_an_attempt_is_over_at_once_when_its_process_is_gone(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=claim, args=(tmp_path, Observer()))
    process.start()
    process.join()
    first = folder_of(tmp_path, 1)
    assert attempts.ended(first) is None
    assert attempts.gone(first)
    assert Observer().over(first)


def test_an_attempt_of_a_recycled_process_id_is_over(foreign: Path) -> None:
    owner = attempts._owner()
    write_json(foreign / "owner.json", owner)
    assert not Observer().over(foreign)
    write_json(foreign / "owner.json", {**owner, "started": owner["started"] - 1})
    assert Observer().over(foreign)


def test_an_attempt_says_how_it_ended(tmp_path: Path) -> None:
    taken = claim(tmp_path, Observer())
    assert taken is not None
    assert not Observer().over(taken.folder)
    taken.end("failed", "ValueError: no")
    assert attempts.ended(taken.folder) == {"status": "failed", "error": "ValueError: no"}
    assert Observer().over(taken.folder)
    assert attempts.failed_before(tmp_path) == "ValueError: no"


def test_a_cell_with_a_result_cannot_be_claimed(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", sealed({"status": "done"}))
    assert claim(tmp_path, Observer()) is None
    flip_a_bit(tmp_path / "result.json", 0.5)
    taken = claim(tmp_path, Observer())
    assert taken is not None
    taken.end("interrupted")


def test_a_live_attempt_beats_and_notices_that_it_is_superseded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "BEAT_SECONDS", 0.01)
    taken = claim(tmp_path, Observer())
    assert taken is not None
    heartbeat = taken.folder / "heartbeat"
    first = grids.wait_for(lambda: heartbeat.exists() and heartbeat.read_bytes(), "a heartbeat")
    grids.wait_for(lambda: heartbeat.read_bytes() != first, "another heartbeat")
    assert not taken.superseded.is_set()
    folder_of(tmp_path, 2).mkdir()
    assert taken.superseded.wait(5)
    taken.end("superseded")
