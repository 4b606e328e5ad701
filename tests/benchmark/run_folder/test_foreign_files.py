"""Files of a run folder that somebody else damaged or put there: one line each, and the same bits in the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grids
import pytest
from grids import Bench, Finished

from benchmark import suites
from benchmark.run_folder import files
from benchmark.run_folder.attempts import Observer, folder_of
from benchmark.training.cell import execute
from benchmark.training.execution import Execution

SUITE = """
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

DATA = Data(name="synthetic", shape=(1, 8, 8), train_limit=32, test_limit=8)


def suite():
    optimizer = Optimizer(lr=0.05, batch_size=16, epochs=2)
    model = Model(name="lenet-300-100")
    return [cell("dst", data=DATA, model=model, optimizer=optimizer, alpha=1e-3, seed=seed) for seed in range({cells})]
"""
pytestmark = pytest.mark.usefixtures("one_thread")

Damage = Callable[[Path], None]


def text(content: str | bytes) -> Damage:
    """Replaces the file: what it was a link to stays as it was."""

    def damage(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return damage


def with_every_value(value: Any) -> Damage:
    """The document, or the first line's, with another value under each of its keys."""

    def damage(path: Path) -> None:
        content, keys = path.read_bytes(), {}
        for part in (content, content.partition(b"\n")[0]):
            with contextlib.suppress(ValueError):  # UnicodeDecodeError is one
                keys = json.loads(part)
                break
        text(json.dumps(dict.fromkeys(keys if isinstance(keys, dict) else {}, value)))(path)

    return damage


def special(make: Callable[[Path], Any]) -> Damage:
    def damage(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return damage


DAMAGES: dict[str, Damage] = {
    "empty": text(""),
    "cut off": text('{"run_id": "'),
    "a list": text("[]"),
    "a number": text("5"),
    "null": text("null"),
    "missing keys": text("{}"),
    "nested deeply": text("[" * 100_000 + "]" * 100_000),
    "nested": text('{"status": ' * 200 + "1" + "}" * 200),
    "not UTF-8": text(b'\xff\xfe{"status": "done"}'),
    "NaN": text('{"status": NaN}'),
    "an infinite number": text('{"status": 1e999}'),
    "a number of many digits": text('{"status": ' + "9" * 5000 + "}"),
    "half a character": text('{"status": "\\ud800", "error": "\\ud800"}'),
    "a pipe": special(os.mkfifo),
    "a link to itself": special(lambda path: path.symlink_to(path)),
    "a list in each key": with_every_value([]),
    "a number in each key": with_every_value(-1),
}
CELLS = len(DAMAGES)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("suite") / "many.py"
    path.write_text(SUITE.format(cells=CELLS))
    return str(path)


def train(suite: str, out: Path, *, stop_after: int | None = None) -> Path:
    from benchmark import results

    loaded = suites.load(suite)
    results.prepare(out)
    results.remember(out, loaded.name, (), loaded.specs)
    for spec in loaded.specs:
        stop = threading.Event()

        def report(record: dict[str, Any], stop: threading.Event = stop) -> None:
            if stop_after is not None and record.get("epoch") == stop_after:
                stop.set()

        execution = Execution(out=out, data_dir=out, checkpoint_seconds=0)
        execute(spec, execution, observer=Observer(), report=report, stop=stop)
    return out


@pytest.fixture(scope="module")
def done(suite: str, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Every cell of the suite, trained to its end."""
    return train(suite, tmp_path_factory.mktemp("done") / "runs")


@pytest.fixture(scope="module")
def stopped(suite: str, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Every cell of the suite, stopped after its first epoch."""
    return train(suite, tmp_path_factory.mktemp("stopped") / "runs", stop_after=1)


def is_said_in_order(finished: Finished, *, codes: tuple[int, ...] = (0,)) -> Finished:
    said = finished.stdout + finished.stderr
    assert "Traceback" not in said, said
    assert finished.code in codes, said
    return finished


IN_A_DONE_CELL = ["result.json", "metrics.jsonl"]
CHECKPOINT = "attempts/0001/checkpoint-0000000003.json"
IN_A_STOPPED_CELL = [
    "spec.json",
    "environment.json",
    "attempts/0001/owner.json",
    "attempts/0001/end.json",
    "attempts/0001/environment.json",
    "attempts/0001/heartbeat",
    "attempts/0001/metrics.jsonl",
    CHECKPOINT,
    "attempts/0001/checkpoint-0000000003.pt",
]
NAMED_BY_STATUS = ("result.json", "attempts/0001/end.json")
NAMED_BY_RUN = (
    *("result.json", "attempts/0001/owner.json", "attempts/0001/end.json", "attempts/0001/metrics.jsonl"),
    *("attempts/0001/checkpoint-0000000003.json", "attempts/0001/checkpoint-0000000003.pt"),
)


def damaged_cells(source: Path, out: Path, name: str) -> Path:
    """A copy of a folder in which each cell's file has another damage."""
    shutil.copytree(source, out)
    for cell, damage in zip(grids.cells(out), DAMAGES.values(), strict=True):
        damage(cell / name)
    return out


@pytest.mark.parametrize("name", IN_A_DONE_CELL + IN_A_STOPPED_CELL)
def test_reading_commands_name_each_damaged_file_of_a_cell(
    name: str, suite: str, done: Path, stopped: Path, bench: Bench, tmp_path: Path
) -> None:
    out = damaged_cells(done if name in IN_A_DONE_CELL else stopped, tmp_path / "runs", name)
    status = is_said_in_order(bench("status", "--out", out))
    for cell in grids.cells(out):
        said = [line for line in status.stdout.splitlines() if cell.name in line]
        assert [f"{name} is damaged" in line for line in said] == [True] * (name in NAMED_BY_STATUS), said
        shown = is_said_in_order(bench("show", cell.name, "--out", out))
        no_object = name == "environment.json" and files.read_json(cell / name, dict) is None
        assert (f"{name} is damaged" in shown.stdout) == (name in NAMED_BY_STATUS or no_object), shown.stdout
    is_said_in_order(bench("status", "--out", out, "--json"))
    is_said_in_order(bench("export", "--out", out))
    planned = is_said_in_order(bench("run", "--dry-run", "--suite", suite, "--out", out, "--json"))
    assert len(planned.json["to_run"]) == (0 if name == "metrics.jsonl" else CELLS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == CHECKPOINT else pytest.mark.rare)
        for name in IN_A_DONE_CELL + IN_A_STOPPED_CELL
    ],
)
def test_a_run_goes_on_with_cells_of_damaged_files_and_ends_in_the_same_bits(
    name: str, suite: str, done: Path, stopped: Path, bench: Bench, tmp_path: Path
) -> None:
    out = damaged_cells(done if name in IN_A_DONE_CELL else stopped, tmp_path / "runs", name)
    finished = is_said_in_order(bench("run", "--suite", suite, "--out", out, "--workers", "1", "--no-mlflow"))
    assert finished.stderr == ""
    for cell in grids.cells(out):
        warnings = [line for line in finished.stdout.splitlines() if cell.name in line and "warning" in line]
        assert any(name in line for line in warnings) == (name in NAMED_BY_RUN), warnings
    assert grids.bits(out) == grids.bits(done)


def test_a_run_with_a_damaged_result_trains_that_cell_again(
    suite: str, done: Path, bench: Bench, tmp_path: Path
) -> None:
    """The fast one of the test above: a pipe and a document that is nested deeply."""
    shutil.copytree(done, tmp_path / "runs")
    cells = grids.cells(tmp_path / "runs")
    DAMAGES["a pipe"](cells[0] / "result.json")
    DAMAGES["nested deeply"](cells[1] / "result.json")
    command = ("run", "--suite", suite, "--out", tmp_path / "runs", "--workers", "1", "--no-mlflow")
    finished = is_said_in_order(bench(*command))
    assert finished.stdout.count("result.json is damaged") == 2
    assert grids.bits(tmp_path / "runs") == grids.bits(done)


def test_finished_cells_that_no_list_names_are_counted_and_come_back_without_training(
    suite: str, done: Path, bench: Bench, tmp_path: Path
) -> None:
    """As after a list was moved away, or a folder of the same suite was copied over this one."""
    out = tmp_path / "runs"
    shutil.copytree(done, out)
    (out / "suites/many.json").write_text(json.dumps(files.read_json(out / "suites/many.json") | {"cells": []}))
    count = len(list((out / "cells").iterdir()))
    said = f"{count} cells have a result in {out / 'cells'}, but are in no suite's list"
    assert said in bench("status", "--out", out).stdout
    assert said in bench("status", "--out", out, "--json").stderr
    assert said in bench("export", "--out", out).stderr
    checked = bench("check", out)
    assert checked.code == 3
    assert said in checked.stdout + checked.stderr
    assert bench("run", "--suite", suite, "--no-mlflow", "--out", out).code == 0
    assert said not in bench("status", "--out", out).stdout
    assert len(grids.rows(out)) == count
    assert grids.bits(out) == grids.bits(done)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_marker_or_list_of_cells_is_one_line_that_names_it(
    damage: str, suite: str, done: Path, bench: Bench, tmp_path: Path
) -> None:
    shutil.copytree(done, tmp_path / "runs")
    verbs = [
        ("status",),
        ("show", "a"),
        ("export",),
        ("plan", "--suite", suite),
        ("run", "--suite", suite, "--no-mlflow"),
    ]
    path = tmp_path / "runs" / "suites" / "many.json"
    before = path.read_bytes()
    DAMAGES[damage](path)
    for verb in verbs:
        refused = bench(*verb, "--out", tmp_path / "runs")
        assert refused.code == 2
        assert str(path) in refused.error
        assert "move it away" in refused.error
    path.unlink()
    path.write_bytes(before)
    DAMAGES[damage](tmp_path / "runs" / "run-folder.json")
    for verb in (*verbs, ("plan", "--suite", suite)):
        refused = bench(*verb, "--out", tmp_path / "runs")
        assert refused.code == 2
        named = f"{tmp_path / 'runs' / 'run-folder.json'} is damaged ("
        assert named in refused.error or "has schema version -1, this program writes 1" in refused.error


INNER: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a spec of another cell": lambda document: document["cells"][0]["spec"].update(seed=99),
    "an unknown field": lambda document: document["cells"][0]["spec"].update(sede=1),
    "a section that is none": lambda document: document["cells"][0]["spec"].update(data=5),
    "a field of another type": lambda document: document["cells"][0]["spec"]["optimizer"].update(epochs="two"),
    "a number out of range": lambda document: document["cells"][0]["spec"]["optimizer"].update(lr=10**299),
    "a run id that is a path": lambda document: document["cells"][0].update(run_id="../../elsewhere"),
    "a protocol that is none": lambda document: document["cells"][0].update(protocol=[5]),
    "another suite's list": lambda document: document.update(suite="../mine"),
}


@pytest.mark.parametrize("wrong", INNER)
def test_a_list_of_cells_with_wrong_entries_is_one_line_that_names_it(
    wrong: str, done: Path, bench: Bench, tmp_path: Path
) -> None:
    shutil.copytree(done, tmp_path / "runs")
    path = tmp_path / "runs" / "suites" / "many.json"
    document = json.loads(path.read_bytes())
    INNER[wrong](document)
    path.write_text(json.dumps(document))
    for verb in (("status",), ("show", "a"), ("export",)):
        refused = bench(*verb, "--out", tmp_path / "runs")
        assert refused.code == 2
        assert str(path) in refused.error


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "a link to itself"])  # test_strangers_folder
def test_damaged_lines_of_jobs_are_skipped_and_what_is_no_file_is_named(
    damage: str, done: Path, bench: Bench, tmp_path: Path
) -> None:
    shutil.copytree(done, tmp_path / "runs")
    path = tmp_path / "runs" / "jobs.jsonl"
    path.write_text(json.dumps({"job": "1", "cells": ["../../x"], "log": "/dev/zero", "launcher": "slurm"}) + "\n")
    DAMAGES[damage](path)
    finished = is_said_in_order(bench("status", "--out", tmp_path / "runs"))
    assert (f"{path} is damaged" in finished.stdout) == (not path.is_file())


def test_jobs_cannot_name_cells_outside_the_folder(done: Path, bench: Bench, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "runs")
    line = {"job": "1", "cells": ["../../x"], "log": "/dev/zero", "launcher": "slurm"}
    (tmp_path / "runs" / "jobs.jsonl").write_text(json.dumps(line) + "\n")
    is_said_in_order(bench("status", "--out", tmp_path / "runs"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_stray_files_beside_attempts_and_checkpoints_are_named_and_left_alone(
    suite: str, stopped: Path, done: Path, bench: Bench, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path / "runs")
    attempts = grids.cells(tmp_path / "runs")[0] / "attempts"
    strays = [attempts / name for name in ("²", "1", "-1", "notes", "0001/checkpoint-best.pt")]
    strays += [attempts / "0001/checkpoint-²²²²²²²²²².json", attempts / "0002"]
    for stray in strays:
        stray.write_text("mine")
    command = ("run", "--suite", suite, "--out", tmp_path / "runs", "--workers", "1", "--no-mlflow")
    finished = is_said_in_order(bench(*command))
    for stray in strays:
        assert finished.stdout.count(f"{stray} is not a file of ours and is left alone\n") == 1
        assert stray.read_text() == "mine"
    assert grids.bits(tmp_path / "runs") == grids.bits(done)
    for verb in (("status",), ("show", attempts.parent.name), ("export",)):
        is_said_in_order(bench(*verb, "--out", tmp_path / "runs"))


@pytest.mark.parametrize("name", ["spec.json", "metrics.jsonl"])
def test_a_folder_in_a_files_place_leaves_its_cell_pending_and_the_others_go_on(
    name: str, suite: str, stopped: Path, bench: Bench, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path / "runs")
    first, *others = grids.cells(tmp_path / "runs")
    (first / name).unlink(missing_ok=True)
    (first / name).mkdir()
    command = ("run", "--suite", suite, "--out", tmp_path / "runs", "--workers", "1", "--no-mlflow")
    finished = bench(*command)
    assert finished.code == 1
    assert f"{first / name}: Is a directory; the cell stays pending" in finished.error
    statuses = {run_id: row["status"] for run_id, row in grids.rows(tmp_path / "runs").items()}
    assert statuses == {first.name: "pending", **{cell.name: "done" for cell in others}}
    (first / name).rmdir()
    assert is_said_in_order(bench(*command)).code == 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_attempt_without_an_end_whose_owner_is_damaged_counts_by_its_heartbeat(
    damage: str, stopped: Path, bench: Bench, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path / "runs")
    attempt = folder_of(grids.cells(tmp_path / "runs")[0], 1)
    (attempt / "end.json").unlink()
    DAMAGES[damage](attempt / "owner.json")
    status = is_said_in_order(bench("status", "--out", tmp_path / "runs"))
    (line,) = [line for line in status.stdout.splitlines() if attempt.parent.parent.name in line]
    assert " running: attempts/0001/owner.json is damaged" in line
    now = [0.0]
    observer = Observer(clock=lambda: now[0])
    assert not observer.over(attempt)
    now[0] += 60
    assert observer.over(attempt)


def test_attributes_that_macos_keeps_beside_a_list_of_cells_are_no_list(
    done: Path, bench: Bench, tmp_path: Path
) -> None:
    shutil.copytree(done, tmp_path / "runs")
    (tmp_path / "runs" / "suites" / "._many.json").write_bytes(b"\x00\x05\x16\x07")
    assert f"{CELLS} done" in is_said_in_order(bench("status", "--out", tmp_path / "runs")).stdout


@pytest.mark.slow
def test_a_sync_names_damaged_records_and_a_damaged_id(stopped: Path, bench: Bench, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path / "runs")
    first = grids.cells(tmp_path / "runs")[0]
    records = folder_of(first, 1) / "metrics.jsonl"
    before = records.read_bytes()
    for damage in ("a list in each key", "NaN", "a pipe"):
        DAMAGES[damage](records)
        if records.is_file():
            records.write_bytes(records.read_bytes() + b"\n")
        refused = bench("sync", "--out", tmp_path / "runs")
        assert refused.code == 2
        assert f"{records} is damaged" in refused.error
    text(before)(records)
    os.mkfifo(first / "result.json")  # no result, and no artifact
    assert is_said_in_order(bench("sync", "--out", tmp_path / "runs")).stderr == ""
    DAMAGES["a pipe"](tmp_path / "runs" / "folder-id")
    assert str(tmp_path / "runs" / "folder-id") in bench("sync", "--out", tmp_path / "runs").error


def test_what_we_write_ourselves_reads_back(tmp_path: Path) -> None:
    value = {"a": [1, -2.5, 1e300, True, None, "é\U0001f600\x1b"], "b": {"c": {}}}
    files.write_json(tmp_path / "x.json", value)
    assert files.examine(tmp_path / "x.json", dict) == (value, "")
    assert files.examine(tmp_path / "nothing.json", dict) == (None, "")


def test_a_file_that_claims_terabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.touch()
    os.truncate(path, 2**42)
    with pytest.raises(ValueError, match=r"result\.json is damaged \(4398046511104 bytes\)"):
        files.read_bytes(path)
    assert files.examine(path) == (None, f"{path} is damaged (4398046511104 bytes)")
