"""A run folder from a stranger: nothing is written outside it, and nothing in it is run as code.

Pickles in the place of checkpoints are in `test_damaged_checkpoints`, those of jobs in
`launch/slurm/test_slurm_pickles` and those of Ray Tune in `launch/ray_tune/test_ray_pickles`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import grids
import pytest
from grids import Bench, Grid
from poison import poison

from benchmark.run_folder.links import IN_PLACE

FILES = ("jobs.jsonl", "mlflow.db", "mlflow.db-journal", "mlflow.db-shm", "mlflow.db-wal")


def content(folder: Path) -> dict[str, Any]:
    """Everything under a folder: the target of each link, the bytes of each file."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        told = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = told
    return found


def lead_out(path: Path, outside: Path) -> None:
    """Move what lies at the path to the folder `outside`, and link to it; link to something new where nothing lies."""
    outside.mkdir(exist_ok=True)
    target = outside / path.name
    if path.exists():
        shutil.move(path, target)
    elif path.name in FILES:
        target.write_text("mine\n")
    else:
        target.mkdir()
    path.symlink_to(target)


@pytest.fixture
def own(grid: Grid, tmp_path: Path) -> Grid:
    """A grid that may be changed, with a cell of `dst` left to train."""
    copied = grid.copy(tmp_path / "runs")
    shutil.rmtree(cell_of(copied.out, "dst"))
    return copied


def cell_of(out: Path, method: str) -> Path:
    (run_id,) = (run_id for run_id, row in grids.rows(out).items() if row["method"] == method)
    return out / "cells" / run_id


def run(grid: Grid) -> tuple[str | Path, ...]:
    return "run", "--suite", grid.suite, "--out", grid.out, "--workers", "1", "--no-mlflow"


def commands(grid: Grid) -> list[tuple[str | Path, ...]]:
    reading: list[tuple[str | Path, ...]] = [("status",), ("show", "a"), ("export",), ("sync",), ("doctor",)]
    return [*((*verb, "--out", grid.out) for verb in reading), run(grid)]


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_link_in_the_place_of_what_we_write_is_refused_before_anything_is_written(
    name: str, own: Grid, bench: Bench, tmp_path: Path
) -> None:
    lead_out(own.out / name, tmp_path / "outside")
    for _ in ("a link to something", "a link to nothing"):
        before = content(tmp_path)
        refused = bench(*run(own))
        assert refused.code == 2
        said = f"{own.out / name} is a link, and nothing is written through links inside a run folder: "
        assert said in refused.error
        assert content(tmp_path) == before
        shutil.rmtree(tmp_path / "outside", ignore_errors=True)


def test_every_command_on_a_run_folder_refuses_a_link(own: Grid, bench: Bench, tmp_path: Path) -> None:
    lead_out(own.out / "cells", tmp_path / "outside")
    before = content(tmp_path)
    for command in commands(own):
        refused = bench(*command)
        doctor = command[0] == "doctor"  # it goes on with the other things that it looks at
        assert refused.code == (1 if doctor else 2), command
        assert f"{own.out / 'cells'} is a link" in (refused.stdout if doctor else refused.error)
        assert content(tmp_path) == before


def test_a_link_in_the_place_of_any_other_file_is_replaced(own: Grid, bench: Bench, tmp_path: Path) -> None:
    """The names are those that a run has left, also in the folders of lists and of cells."""
    others = [path for path in own.out.iterdir() if path.name not in IN_PLACE]
    others += [path for folder in ("suites", "cells/*") for path in own.out.glob(f"{folder}/*") if path.is_file()]
    for path in others:
        outside = tmp_path / "outside" / path.parent.name
        outside.mkdir(parents=True, exist_ok=True)
        lead_out(path, outside)
    before = content(tmp_path / "outside")
    assert {"results.csv", "traces.csv", "mixed.json", "result.json", "metrics.jsonl"} <= {path.name for path in others}
    for command in (("export", "--out", own.out), run(own)):
        assert bench(*command).code in (0, 1)
        assert content(tmp_path / "outside") == before
    assert not (own.out / "results.csv").is_symlink()


@pytest.mark.parametrize("linked", [".", "attempts"])
def test_a_cell_behind_a_link_is_refused_and_the_others_go_on(
    linked: str, own: Grid, bench: Bench, tmp_path: Path
) -> None:
    first, second = cell_of(own.out, "dst"), cell_of(own.out, "static")
    shutil.rmtree(second)
    first.mkdir()
    (first / "attempts").mkdir()
    lead_out(first / linked, tmp_path / "outside")
    before = content(tmp_path / "outside")
    refused = bench(*run(own))
    assert refused.code == 2
    assert f"{first / linked} is a link" in refused.error
    assert content(tmp_path / "outside") == before
    statuses = {run_id: row["status"] for run_id, row in grids.rows(own.out).items()}
    assert (statuses[first.name], statuses[second.name]) == ("pending", "done")
    assert "Traceback" not in bench("status", "--out", own.out).stdout


def test_a_job_of_a_cell_behind_a_link_marks_nothing_there(
    own: Grid, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` writes too: it marks the cells of cancelled jobs."""
    from benchmark.launch.slurm import jobs
    from benchmark.launch.slurm.queue import State

    monkeypatch.setattr(jobs.slurm_queue, "states", lambda wanted: dict.fromkeys(wanted, State("CANCELLED")))
    cell = cell_of(own.out, "dst")
    lead_out(cell, tmp_path / "outside")
    before = content(tmp_path)
    jobs.append(own.out, [jobs.ClusterJob("7", (cell.name,), "log")])
    refused = bench("status", "--out", own.out)
    assert (refused.code, f"{cell} is a link" in refused.error) == (2, True)
    (own.out / "jobs.jsonl").unlink()
    assert content(tmp_path) == before


def test_names_that_follow_from_the_process_lead_nowhere(own: Grid, bench: Bench, tmp_path: Path) -> None:
    """A stranger can leave a link for every process id."""
    outside = tmp_path / "outside"
    outside.write_text("mine\n")
    probe = own.out / f".probe-{os.getpid()}"
    log = own.out / "logs" / f"worker-{platform.node()}-{os.getpid()}-0.log"
    for link in (probe, log):
        link.symlink_to(outside)
    refused = bench(*run(own))
    assert (refused.code, f"{log} is a link" in refused.error) == (2, True)
    assert outside.read_text() == "mine\n"


def test_a_run_folder_that_was_moved_to_another_disk_behind_a_link_goes_on(
    own: Grid, bench: Bench, tmp_path: Path
) -> None:
    shutil.move(own.out, tmp_path / "disk")
    own.out.symlink_to(tmp_path / "disk")
    assert bench(*run(own)).stderr == ""
    assert {row["status"] for row in grids.rows(own.out).values()} == {"done", "diverged", "failed"}


def test_no_command_runs_what_lies_in_the_folder(
    own: Grid, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pickles with every suffix that has ever been one of ours or a library's, Python files, and paths of plug-ins."""
    trace = tmp_path / "trace"
    planted = poison(trace)
    code = f"open({str(trace)!r}, 'w')"
    for folder in [path for path in [own.out, *own.out.rglob("*")] if path.is_dir()]:
        for name in ("state.pkl", "checkpoint-best.pt", "tuner.pkl", "checkpoint.pth", "cache.pickle"):
            (folder / name).write_bytes(planted)
        for name in ("conftest.py", "sitecustomize.py", "suite.py", "mixed.py", "torch.py", "__init__.py"):
            (folder / name).write_text(f"{code}\n")
        (folder / "stranger.pth").write_text(f"import os; {code}\n")
    for path in own.out.rglob("environment.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "plugins": [str(own.out / "suite.py")]}))
    path = own.out / "suites" / "mixed.json"
    plugin = {"plugin": str(own.out / "suite.py"), "plugins": [str(own.out / "suite.py")]}
    path.write_text(json.dumps({**json.loads(path.read_text()), **plugin}))
    done = cell_of(own.out, "static").name
    others = [("show", done, "--out", own.out), ("plan", *run(own)[1:5]), (*run(own), "--dry-run")]
    for command in (*others, *(command for command in commands(own) if command[0] != "sync")):
        finished = bench(*command)
        assert "Traceback" not in finished.stdout + finished.stderr
        assert not trace.exists(), command
    assert grids.rows(own.out)[cell_of(own.out, "dst").name]["status"] == "done"
