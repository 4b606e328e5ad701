"""Damaged, forged and exchanged checkpoints are named and passed over; the cell ends in the same bits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import grids
import pytest
from one_cell import Runner, flip_a_bit, make_spec

from benchmark.run_folder.files import read_json, sealed, write_json
from benchmark.run_folder.result import result_of
from benchmark.training import cell
from benchmark.training.engine import Engine
from benchmark.training.prepare import environment_of
from benchmark.training.process_group import Group
from benchmark.training.publish import Outcome

pytestmark = pytest.mark.usefixtures("one_thread")


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
    return grids.bits(runner.execution.out)


@pytest.fixture
def damaged(stopped: Runner, tmp_path: Path) -> Runner:
    """A copy of the stopped cell, to be damaged."""
    shutil.copytree(stopped.execution.out, tmp_path / "copy")
    return Runner(tmp_path / "copy", stopped.spec)


def finish_and_compare(runner: Runner, undisturbed: dict[str, Any], *, resumed: list[int], named: list[Path]) -> None:
    """The cell ends in the same bits, from the expected step, with a warning for each file named."""
    assert runner.run() == Outcome("done")
    assert runner.resumed == resumed
    assert len(runner.warnings) == len(named)
    for warning, path in zip(runner.warnings, named, strict=True):
        assert str(path) in warning
        assert "\n" not in warning
    assert grids.bits(runner.execution.out) == undisturbed


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
    damaged.execution = dataclasses.replace(damaged.execution, checkpoint_seconds=1e9)
    assert damaged.run(stop_after=3).status == "interrupted"
    assert [path.parent.name for path in damaged.checkpoints()] == ["0001", "0001", "0002"]
    flip_a_bit(damaged.checkpoints()[-1], 0.5)
    assert damaged.run() == Outcome("done")
    assert damaged.resumed == [9, 9]


def test_a_checkpoint_of_another_cell_is_not_loaded(damaged: Runner, undisturbed: dict[str, Any]) -> None:
    other = Runner(damaged.execution.out, make_spec(seed=1))
    shutil.copytree(damaged.cell / "attempts", other.cell / "attempts")
    newest, older = reversed(other.checkpoints())
    assert other.run() == Outcome("done")
    assert other.resumed == []
    assert [str(path) in warning for path, warning in zip([newest, older], other.warnings, strict=True)] == [True] * 2


def test_another_environment_is_refused_unless_drift_is_accepted(
    damaged: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = environment_of(damaged.spec, damaged.execution, Group(), Engine(damaged.spec, "cpu"))
    monkeypatch.setattr(cell, "environment_of", lambda *_: {**now, "threads": now["threads"] + 1})
    with pytest.raises(cell.DriftError, match=r"threads: \d+ -> \d+.*--accept-drift"):
        damaged.run()
    damaged.execution = dataclasses.replace(damaged.execution, accept_drift=True, checkpoint_seconds=None)
    assert damaged.run() == Outcome("done")
    drift = read_json(damaged.cell / "result.json")["environment"]["drift"]
    assert drift == [f"threads: {now['threads']} -> {now['threads'] + 1}"]


def test_a_damaged_result_is_no_result(damaged: Runner, undisturbed: dict[str, Any]) -> None:
    assert damaged.run() == Outcome("done")
    result = damaged.cell / "result.json"
    flip_a_bit(result, 0.5)
    assert result_of(damaged.cell) is None
    assert damaged.run() == Outcome("done")
    assert grids.bits(damaged.execution.out) == undisturbed


def test_two_cells_whose_files_were_exchanged_both_start_again(damaged: Runner, undisturbed: dict[str, Any]) -> None:
    other = Runner(damaged.execution.out, make_spec(seed=1))
    assert other.run(stop_after=2).status == "interrupted"
    aside = damaged.cell / "aside"
    (damaged.cell / "attempts").rename(aside)
    (other.cell / "attempts").rename(damaged.cell / "attempts")
    aside.rename(other.cell / "attempts")
    for runner in (damaged, other):
        runner.reports.clear()
        assert runner.run() == Outcome("done")
        assert runner.resumed == []
        assert len(runner.warnings) == 2
        assert all("it belongs to cell" in warning for warning in runner.warnings)
    alone = Runner(damaged.execution.out / "alone", make_spec(seed=1))
    assert alone.run() == Outcome("done")
    assert grids.bits(damaged.execution.out) == undisturbed | grids.bits(alone.execution.out)
