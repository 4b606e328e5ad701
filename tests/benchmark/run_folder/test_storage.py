"""Storage that fails for a while: the cell stays pending, the others go on, three in a row end the run."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grids
import pytest
from grids import Bench
from one_cell import Runner, make_spec

from benchmark.launch.base import Event
from benchmark.launch.patience import IN_A_ROW, Patience
from benchmark.run_folder import attempts, storage
from benchmark.run_folder.attempts import Observer, claim, folder_of
from benchmark.run_folder.storage import DiskFullError, StorageError
from benchmark.training.cell import execute
from benchmark.training.publish import Outcome

pytestmark = pytest.mark.usefixtures("one_thread")
HICCUPS = ("EIO", "ESTALE", "ETIMEDOUT", "EROFS", "ENOTCONN", "EHOSTDOWN", "EREMOTEIO")


# --- which errors are the storage's --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "place", "kind"),
    [
        *[(number, None, StorageError) for number in HICCUPS],
        *[(number, "/data/x", StorageError) for number in HICCUPS],
        *[(number, "/runs/cells/a/x", StorageError) for number in ("EACCES", "EPERM", "EISDIR", "ENOENT", "EFBIG")],
        *[(number, "/data/x", None) for number in ("EACCES", "EPERM", "EISDIR", "ENOENT")],
        *[(number, "/runs/cells/a/x", DiskFullError) for number in ("ENOSPC", "EDQUOT")],
        ("EPIPE", None, None),
    ],
)
def test_errors_of_the_storage_and_of_a_cells_own_code(number: str, place: str | None, kind: type | None) -> None:
    error = OSError(getattr(errno, number), "words", place) if place else OSError(getattr(errno, number), "words")
    found = storage.trouble(error, Path("/runs"))
    assert type(found) is (type(None) if kind is None else kind)
    assert found is None or (place or "/runs") in str(found) or kind is DiskFullError
    assert storage.trouble(OSError("no number"), Path("/runs")) is None
    assert storage.trouble(ValueError("no error of the system"), Path("/runs")) is None


@pytest.mark.parametrize("number", ["EPERM", "EOPNOTSUPP", "ENOSYS"])
def test_a_file_system_without_hard_links_is_refused_before_training(
    number: str, bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def link(*_: Any) -> None:
        raise OSError(getattr(errno, number), "words")

    monkeypatch.setattr("benchmark.run_folder.links.os.link", link)
    refused = bench("run", "--suite", "digits", "--out", tmp_path / "runs")
    assert refused.code == 2
    assert refused.error.startswith(f"error: --out {tmp_path / 'runs'} is on a file system without hard links (words)")
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"run-folder.json"}


# --- one cell ------------------------------------------------------------------------------------------


class Faulty:
    """Makes calls of the system on matching files fail, once armed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: tuple[str, ...] = ()
        self.number = errno.EIO
        for owner, name in ((io, "open"), (os, "open"), (os, "link"), (Path, "replace")):
            monkeypatch.setattr(owner, name, self._failing(getattr(owner, name)))

    def _failing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(place: Any, *arguments: Any, **options: Any) -> Any:
            if any(name in os.path.basename(str(place)) for name in self.names):
                raise OSError(self.number, os.strerror(self.number), str(place))
            return call(place, *arguments, **options)

        return wrapped


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Faulty:
    return Faulty(monkeypatch)


PLACES = {
    "its attempt": "owner.json",
    "its spec": "spec.json",
    "a record": "metrics.jsonl",
    "a checkpoint": "checkpoint-0000000005",
    "a manifest": "checkpoint-0000000005.json",
    "its result": "result.json",
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> dict[str, Any]:
    runner = Runner(tmp_path_factory.mktemp("undisturbed"), make_spec())
    assert runner.run() == Outcome("done")
    return grids.bits(runner.execution.out)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("place", PLACES)
def test_a_cell_whose_storage_fails_stays_pending_and_ends_in_the_same_bits(
    place: str, number: int, faulty: Faulty, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    runner = Runner(tmp_path, make_spec())
    faulty.names, faulty.number = (PLACES[place],), number
    with pytest.raises(StorageError, match=os.strerror(number)) as failed:
        runner.run()
    assert PLACES[place] in str(failed.value)
    assert "\n" not in str(failed.value)
    assert attempts.failed_before(runner.cell) is None
    for attempt in attempts.numbers(runner.cell):
        end = attempts.ended(folder_of(runner.cell, attempt))
        assert end == {"status": "interrupted", "error": str(failed.value), "code": 1}
    faulty.names = ()
    assert runner.run() == Outcome("done")
    assert grids.bits(tmp_path) == undisturbed


def test_a_checkpoint_that_the_storage_does_not_give_is_not_passed_over(
    faulty: Faulty, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """Starting again without it would lose the steps for good."""
    runner = Runner(tmp_path, make_spec())
    assert runner.run(stop_after=2).status == "interrupted"
    faulty.names = ("checkpoint-0000000009.pt",)
    with pytest.raises(StorageError, match=r"checkpoint-0000000009\.pt: Input/output error"):
        runner.run()
    faulty.names = ()
    assert runner.run() == Outcome("done")
    assert (runner.resumed, runner.warnings) == ([9], [])
    assert grids.bits(tmp_path) == undisturbed


def test_a_result_that_the_storage_does_not_give_is_neither_damaged_nor_replaced(
    faulty: Faulty, tmp_path: Path
) -> None:
    runner = Runner(tmp_path, make_spec(epochs=1))
    assert runner.run() == Outcome("done")
    before = (runner.cell / "result.json").read_bytes()
    faulty.names = ("result.json",)
    with pytest.raises(StorageError):
        runner.run()
    faulty.names = ()
    assert (runner.cell / "result.json").read_bytes() == before
    assert not list(runner.cell.glob("result.damaged*"))


def test_missing_files_of_a_users_data_fail_the_cell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(*_: Any) -> None:
        (tmp_path / "data" / "mine.bin").read_bytes()

    monkeypatch.setattr("benchmark.training.cell.train_epoch", missing)
    runner = Runner(tmp_path / "runs", make_spec())
    outcome = execute(runner.spec, runner.execution, observer=Observer(), report=lambda _: None, stop=threading.Event())
    assert outcome.status == "failed"
    assert outcome.error.startswith("FileNotFoundError: [Errno 2]")


def test_a_heartbeat_that_fails_once_beats_again(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(attempts, "BEAT_SECONDS", 0.01)
    faulty.names = ("heartbeat",)
    taken = claim(tmp_path, Observer())
    assert taken is not None
    beats = taken.folder / "heartbeat"
    assert not beats.exists()
    faulty.names = ()
    first = grids.wait_for(lambda: beats.exists() and beats.read_bytes(), "a heartbeat")
    grids.wait_for(lambda: beats.read_bytes() != first, "another heartbeat")
    taken.end("interrupted")


# --- a run ---------------------------------------------------------------------------------------------


def event(kind: str, run_id: str, code: int | None = None) -> Event:
    payload = {"started": {}, "end": {"status": "done", "error": ""}}[kind]
    return Event(run_id, kind, payload if code is None else {"status": "refused", "error": "x", "code": code})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("events", "over_after"),
    [
        ("+a -a +b -b +c -c", 6),
        ("+a -a +b .b +c -c +d -d", None),
        ("+a +b +c -a -b -c +d -d +e -e", 10),  # a, b and c met one failure
        ("+a +b -a +c -b -c +d .d +e -e", None),
        ("-a -b -c", 3),  # SLURM's cells may end before they are seen to begin
        ("+a ?a +b ?b +c ?c +d -d", None),  # refused for another reason
    ],
)
def test_three_failures_in_a_row_end_a_run(events: str, over_after: int | None) -> None:
    assert IN_A_ROW == 3
    tried = Patience()
    kinds = {"+": ("started", None), "-": ("end", 1), ".": ("end", None), "?": ("end", 2)}
    for at, word in enumerate(events.split(), 1):
        kind, code = kinds[word[0]]
        over = tried.is_over(event(kind, word[1], code))
        assert over == (over_after is not None and at >= over_after), (at, word)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Makes folders storage that takes no writing, not from root either."""
    mounted: list[Path] = []

    def mount(folder: Path) -> None:
        folder.mkdir(parents=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"nothing can be mounted read-only here: {done.stderr.strip()}")
        mounted.append(folder)

    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("broken", [1, 4])
def test_cells_on_storage_that_fails_are_left_and_the_run_ends_after_three_in_a_row(
    broken: int, read_only: Callable[[Path], None], bench: Bench, tmp_path: Path
) -> None:
    suite = grids.write_suite(
        tmp_path / "grid.py", {"lenet-300-100": 1}, methods=["dense", "dst", "set", "dsr", "static"]
    )
    out = tmp_path / "runs"
    command = ("run", "--suite", suite, "--out", out, "--workers", "1", "--no-mlflow")
    planned = bench("run", "--dry-run", "--suite", suite, "--out", out, "--json").json["to_run"]
    run_ids = [cell["run_id"] for cell in planned]
    for run_id in run_ids[:broken]:
        read_only(out / "cells" / run_id)
    (out / "run-folder.json").write_text('{"schema": 1}')
    finished = bench(*command)
    assert finished.code == 1
    assert "Read-only file system; the cell stays pending" in finished.error
    assert str(out / "cells" / run_ids[min(broken, 3) - 1]) in finished.error
    assert ("the run stopped after 3 such errors in a row" in finished.error) == (broken == 4)
    statuses = {run_id: row["status"] for run_id, row in grids.rows(out).items()}
    expected = ["pending"] * 5 if broken == 4 else ["pending", *["done"] * 4]
    assert [statuses[run_id] for run_id in run_ids] == expected
