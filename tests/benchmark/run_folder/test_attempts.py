"""Who works on a cell, and whose result becomes the cell's."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grids
import pytest
from one_cell import Runner, flip_a_bit, make_spec, result_document
from rich.console import Console

from benchmark import results
from benchmark.commands.estimate import Estimate
from benchmark.commands.progress import Progress
from benchmark.launch.local import LocalLauncher
from benchmark.run_folder import attempts
from benchmark.run_folder.attempts import Observer, claim, folder_of, numbers
from benchmark.run_folder.files import write_json
from benchmark.run_folder.result import result_of
from benchmark.training import publish as outcome
from benchmark.training.cell import execute
from benchmark.training.execution import Execution
from benchmark.training.publish import Outcome

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_dispatcher_says_once_which_cell_another_one_trains(tmp_path: Path) -> None:
    spec, out = make_spec(), tmp_path / "runs"
    results.prepare(out)
    launcher = LocalLauncher(Execution(out=out, data_dir=tmp_path), workers=1)
    text = io.StringIO()
    progress = Progress(
        {spec.run_id: spec}, {spec.run_id: "a cell"}, workers=1, estimate=Estimate(), console=Console(file=text)
    )
    worker: Any = types.SimpleNamespace(spec=spec, leaving=False, stopping=False)
    for _ in range(3):
        worker.spec = spec
        for event in launcher._message(worker, {"run_id": spec.run_id, "end": {"status": "busy", "error": ""}}):
            progress.note(event)
    said = f"{spec.run_id} a cell: another process trains it; this one waits for its result"
    assert text.getvalue().split("\n") == [said, ""]


def test_the_first_result_wins_and_the_metrics_are_the_winners(tmp_path: Path) -> None:
    folders = [folder_of(tmp_path, number) for number in (1, 2)]
    metrics = [b'{"epoch": 1, "by": 1}\n', b'{"epoch": 1, "by": 2}\n']
    for number, (folder, content) in enumerate(zip(folders, metrics, strict=True), 1):
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        write_json(folder / "result.json", result_document(tmp_path, attempt=number, metrics_sha256=digest))
    assert outcome.publish(tmp_path, folders[1], metrics[1]) == Outcome("done")
    published = (tmp_path / "result.json").read_bytes()
    assert outcome.publish(tmp_path, folders[0], metrics[0]) == Outcome("done")
    assert (tmp_path / "result.json").read_bytes() == published == (folders[1] / "result.json").read_bytes()
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics[1]


def test_a_loser_that_wrote_its_metrics_last_puts_the_winners_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both attempts see no result; the slower one writes its metrics after the faster one has published."""
    test_the_first_result_wins_and_the_metrics_are_the_winners(tmp_path)
    answers = iter([None])
    monkeypatch.setattr(outcome, "result_of", lambda cell: next(answers, None) or result_of(cell))
    loser = folder_of(tmp_path, 1)
    outcome.publish(tmp_path, loser, (loser / "metrics.jsonl").read_bytes())
    assert b'"by": 2' in (tmp_path / "metrics.jsonl").read_bytes()
    assert (tmp_path / "result.json").read_bytes() == (folder_of(tmp_path, 2) / "result.json").read_bytes()
    assert list(tmp_path.glob("result.damaged*")) == []


def test_a_damaged_result_is_set_aside_and_replaced(tmp_path: Path) -> None:
    test_the_first_result_wins_and_the_metrics_are_the_winners(tmp_path)
    (tmp_path / "result.json").unlink()
    (tmp_path / "result.json").write_text("{")
    loser = folder_of(tmp_path, 1)
    assert outcome.publish(tmp_path, loser, (loser / "metrics.jsonl").read_bytes()) == Outcome("done")
    assert (tmp_path / "result.json").read_bytes() == (loser / "result.json").read_bytes()
    assert [path.read_text() for path in tmp_path.glob("result.damaged*")] == ["{"]


def test_metrics_lost_after_the_result_are_put_back_from_the_winners_attempt(tmp_path: Path) -> None:
    test_the_first_result_wins_and_the_metrics_are_the_winners(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    result = result_of(tmp_path)
    assert result is not None
    assert b'"by": 2' in results.metrics(tmp_path, result)
    assert b'"by": 2' in (tmp_path / "metrics.jsonl").read_bytes()
    for path in tmp_path.rglob("metrics.jsonl"):
        path.write_bytes(b"other\n")
    with pytest.raises(results.FolderError, match="not the one of its result"):
        results.metrics(tmp_path, result)


def test_a_cell_whose_workers_die_gets_a_failed_attempt_and_keeps_the_earlier_ones(tmp_path: Path) -> None:
    attempts.mark_ended(tmp_path, "its worker died 3 times")
    assert attempts.failed_before(tmp_path) == "its worker died 3 times"
    claim(tmp_path, Observer()).end("interrupted")
    attempts.mark_ended(tmp_path, "again")
    ends = [attempts.ended(folder_of(tmp_path, number)) for number in numbers(tmp_path)]
    assert [end["status"] for end in ends if end] == ["failed", "interrupted", "failed"]


def test_a_superseded_worker_commits_nothing(tmp_path: Path) -> None:
    """A worker frozen in its last epoch wakes up after another one has taken the cell over."""
    runner = Runner(tmp_path, make_spec(epochs=2))

    def take_over(record: dict[str, Any]) -> None:
        if record.get("epoch") == 2:
            other = folder_of(runner.cell, 2)
            other.mkdir()
            write_json(other / "owner.json", attempts.own_process())

    frozen = execute(runner.spec, runner.execution, observer=Observer(), report=take_over, stop=threading.Event())
    assert frozen.status == "superseded"
    assert not (runner.cell / "result.json").exists()
    assert not (runner.cell / "metrics.jsonl").exists()


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
    """An attempt of a process elsewhere: only its heartbeat shows it."""
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
    owner = attempts.own_process()
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
    (tmp_path / "metrics.jsonl").touch()
    write_json(tmp_path / "result.json", result_document(tmp_path))
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
