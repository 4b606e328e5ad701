"""DIR/jobs.jsonl: which cells a cluster job has, and what a line that somebody else wrote may do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.launch.slurm import jobs
from benchmark.launch.slurm.jobs import ClusterJob
from benchmark.results import FolderError

GOOD = ClusterJob("1", ("0123456789ab",), "log")


def write(out: Path, *entries: dict[str, Any] | str) -> Path:
    out.mkdir(parents=True)
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    (out / "jobs.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return out


def cancel(out: Path) -> None:
    """Marks the cells of all jobs as `settle` marks those of cancelled ones."""
    for job in jobs.read(out):
        jobs.mark_cancelled(out, job)


@pytest.mark.parametrize("name", ["../../escape", "ABCDEF012345", "0123456789abc", "", 7, None])
def test_a_cell_that_is_no_run_id_is_refused_and_nothing_is_written(tmp_path: Path, name: Any) -> None:
    out = tmp_path / "a" / "runs"
    jobs.append(write(out), [GOOD])
    jobs.append(out, [ClusterJob("2", (name,), "log")])
    with pytest.raises(FolderError) as caught:
        cancel(out)
    assert str(caught.value).startswith(f"{out / 'jobs.jsonl'}, line 2: run_id is {name!r}: it must be twelve")
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["a", "runs", "jobs.jsonl"]


def test_a_cell_outside_the_folder_is_not_written(tmp_path: Path) -> None:
    out = write(tmp_path / "runs", {"job": "1", "cells": [str(tmp_path / "escape")], "log": "log", "launcher": "slurm"})
    with pytest.raises(FolderError, match="it must be twelve hexadecimal digits; delete that line"):
        cancel(out)
    assert not (tmp_path / "escape").exists()


def test_a_line_that_a_power_cut_broke_is_skipped(tmp_path: Path) -> None:
    out = write(tmp_path / "runs", '{"job": "1", "cel', {"job": "2"})
    jobs.append(out, [GOOD])
    assert jobs.read(out) == [GOOD]
