"""kill -9 at any moment, again and again: the same bits as left alone, and no row missing or doubled.

BENCH_TEST_KILLS: how many kills, 6 without; `make faults` asks for 50. Fewer than ten kills hit three methods on
two networks.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import grids
import pytest

from benchmark.run_folder import attempts
from benchmark.run_folder.files import examine
from benchmark.run_folder.result import result_of

KILLS = int(os.environ.get("BENCH_TEST_KILLS", "6"))
SEED = 20
MANY = KILLS >= 10
METHODS = ["dense", "dst", "set", *(["dsr", "sparse_momentum"] if MANY else ())]
EPOCHS = {"lenet-300-100": 6, **({"lenet-5-caffe": 3} if MANY else {}), "lstm-a": 2}  # for each of the kills
STEPS_PER_EPOCH = 10
LOOK_SECONDS = 1.0
RESUMED = re.compile(r"^(\w+) .*: resumed at step (\d+)$", re.MULTILINE)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_kills_in_a_step_a_checkpoint_and_an_append_end_in_the_same_bits(tmp_path: Path) -> None:
    """Each kill waits until a cell that was hit less than three times has a checkpoint.

    Every second kill aims at what none has struck yet; the others come at any moment.
    """
    epochs = {name: KILLS * each for name, each in EPOCHS.items()}
    suite, out = grids.write_suite(tmp_path / "grid.py", epochs, methods=METHODS), tmp_path / "killed"
    alone = grids.finish(grids.start("run", "--suite", suite, "--out", tmp_path / "alone", "--workers", "2"))
    assert (alone.code, alone.stderr) == (0, "")

    command = ("run", "--suite", suite, "--out", out, "--workers", "2")
    moments, hits, struck = random.Random(SEED), collections.Counter[str](), collections.Counter[str]()
    cells = {path.name for path in grids.cells(tmp_path / "alone")}
    output, kills = "", 0
    while kills < KILLS or not cells <= set(hits) or not set(AIMS) <= set(struck):
        with (tmp_path / "log").open("w") as log:
            process = grids.start(*command, checkpoint_seconds=0.1, stdout=log)
            wait_for_a_victim(out, hits, process)
            if process.poll() is None:
                missing = [kind for kind in AIMS if not struck[kind]]
                aim = AIMS[missing[0]] if missing and kills % 2 else at_any_moment
                found = strike(out, process, moments, aim)
                struck.update(found.values())
                hits.update(found.keys())
                kills += 1
            process.wait()
        output += (tmp_path / "log").read_text()
        if finished(out) >= cells:
            break
    last = grids.finish(grids.start(*command))
    assert (last.code, last.stderr) == (0, "")
    assert grids.bits(out) == grids.bits(tmp_path / "alone")
    assert grids.tables(out) == grids.tables(tmp_path / "alone")

    steps = [int(step) for _, step in RESUMED.findall(output + last.stdout)]
    within = sum(step % STEPS_PER_EPOCH > 0 for step in steps)
    most = max(len(taken) for taken in grids.attempts(out).values()) - 1
    print(f"{kills} kills of {len(set(hits))} cells, at most {most} of one; struck {dict(struck)};", end=" ")
    print(f"{len(steps)} resumes, {within} of them within an epoch")
    assert kills >= KILLS
    assert most >= 3
    assert set(struck) == set(AIMS)
    assert {run_id for run_id, _ in RESUMED.findall(output + last.stdout)} >= set(hits)
    assert kinds(out, set(hits)) == ({*METHODS}, {*EPOCHS})
    assert within


def kinds(out: Path, run_ids: set[str]) -> tuple[set[str], set[str]]:
    """The methods and the models of cells."""
    specs = [json.loads((out / "cells" / run_id / "spec.json").read_text()) for run_id in run_ids]
    return {spec["method"]["name"] for spec in specs}, {spec["model"]["name"] for spec in specs}


def finished(out: Path) -> set[str]:
    return {cell.name for cell in grids.cells(out) if result_of(cell) is not None}


def running(out: Path) -> dict[str, Path]:
    """Cells at work that have a checkpoint -> the folder of the attempt."""
    found = {manifest.parents[2].name: manifest.parent for manifest in grids.checkpoints(out)}
    unfinished = {name: folder for name, folder in found.items() if not (out / "cells" / name / "result.json").exists()}
    return {name: folder for name, folder in unfinished.items() if not attempts.gone(folder)}


def wait_for_a_victim(out: Path, hits: collections.Counter[str], process: subprocess.Popen[str]) -> None:
    """Any until one cell was hit three times, then those that no kill hit yet, then any again."""

    def found() -> bool:
        thrice, all_hit = max(hits.values(), default=0) >= 3, len(hits) == len(METHODS) * len(EPOCHS)
        return bool(set(running(out)) - (set(hits) if thrice and not all_hit else set()))

    grids.wait_for(lambda: found() or process.poll() is not None, "a checkpoint")


def strike(
    out: Path, process: subprocess.Popen[str], moments: random.Random, aim: Callable[[list[Path]], object]
) -> dict[str, str]:
    """Kill the dispatcher and its workers at a moment of the aim's choice. Cells at work -> where the kill hit them."""
    workers = grids.children(process.pid)
    time.sleep(moments.uniform(0, 0.3))
    folders = running(out)
    deadline = time.monotonic() + LOOK_SECONDS
    look = aim(list(folders.values()))
    while callable(look) and not look() and time.monotonic() < deadline:
        pass
    grids.kill_all(process, workers)
    killed = {name for name in folders if not (out / "cells" / name / "result.json").exists()}
    return {name: where(folders[name]) for name in killed}


def at_any_moment(_: list[Path]) -> None:
    """No aim."""


def within_a_step(folders: list[Path]) -> Callable[[], bool]:
    return lambda: any(where(folder) == "step" for folder in folders)


def while_a_checkpoint_is_written(folders: list[Path]) -> Callable[[], bool]:
    return lambda: any(_temporary(folder) for folder in folders)


def at_an_append(folders: list[Path]) -> Callable[[], bool]:
    sizes = {folder: _size(folder) for folder in folders}
    return lambda: any(_size(folder) > size for folder, size in sizes.items())


AIMS = {"step": within_a_step, "checkpoint": while_a_checkpoint_is_written, "append": at_an_append}


def where(attempt: Path) -> str:
    """What its folder says of an attempt's end: a checkpoint cut short, records that none covers, or a step."""
    data, manifests = (sorted(path.stem for path in attempt.glob(f"checkpoint-*.{kind}")) for kind in ("pt", "json"))
    if _temporary(attempt) or set(data) - set(manifests):
        return "checkpoint"
    vouched = examine(attempt / f"{manifests[-1]}.json", seal=True)[0] if manifests else None
    covered = vouched["metrics_bytes"] if vouched else 0
    return "append" if _size(attempt) > covered and vouched else "step"


def _temporary(attempt: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return any(name.startswith(".checkpoint-") for name in os.listdir(attempt))
    return False


def _size(attempt: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return (attempt / "metrics.jsonl").stat().st_size
    return 0
