"""DIR/jobs.jsonl: lines of jobs are read, whoever wrote the folder; other lines are skipped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmark.launch.slurm import jobs
from benchmark.launch.slurm.jobs import ClusterJob
from benchmark.launch.slurm.queue import State

RUN_ID = "0123456789ab"
LINE = {"job": "7_1", "cells": [RUN_ID], "log": "log", "launcher": "slurm"}


def write(out: Path, *lines: object) -> None:
    (out / "jobs.jsonl").write_text(
        "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    )


def test_lines_of_this_and_of_earlier_versions_are_read(tmp_path: Path) -> None:
    write(tmp_path, LINE, LINE | {"before": {RUN_ID: 3}})
    assert jobs.read(tmp_path) == [
        ClusterJob("7_1", (RUN_ID,), "log"),
        ClusterJob("7_1", (RUN_ID,), "log", {RUN_ID: 3}),
    ]


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    job = ClusterJob("8", (RUN_ID,), "log", {RUN_ID: 2})
    jobs.append(tmp_path, [job])
    assert jobs.read(tmp_path) == [job]


@pytest.mark.parametrize("left", ["", '{"job": "7"', json.dumps(LINE)])
def test_a_job_is_appended_after_a_line_that_a_power_cut_left(left: str, tmp_path: Path) -> None:
    """A last line that lacks only its end is a job too."""
    (tmp_path / "jobs.jsonl").write_text(left)
    added = [ClusterJob(name, (RUN_ID,), "log") for name in ("8", "9")]
    for job in added:
        jobs.append(tmp_path, [job])
    kept = [ClusterJob("7_1", (RUN_ID,), "log")] if left == json.dumps(LINE) else []
    assert jobs.read(tmp_path) == [*kept, *added]


def test_a_job_is_written_whole_though_the_system_takes_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:10]))
    job = ClusterJob("8", (RUN_ID,), "log")
    jobs.append(tmp_path, [job])
    monkeypatch.undo()
    assert jobs.read(tmp_path) == [job]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[" * 100_000,
        "7",
        [],
        '"text"',
        {},
        *[LINE | {"job": job} for job in (7, "", "7;x", "-j", "7\n8")],
        *[LINE | {"cells": cells} for cells in (7, RUN_ID, ["../../x"], ["/tmp/x"], [RUN_ID.upper()], [7], [[]])],
        *[LINE | {"before": before} for before in (7, [], {RUN_ID: "1"}, {RUN_ID: None})],
        LINE | {"log": 7},
    ],
    ids=lambda line: str(line)[:60],
)
def test_a_line_that_is_no_job_is_skipped(line: object, tmp_path: Path) -> None:
    write(tmp_path, line, LINE)
    assert jobs.read(tmp_path) == [ClusterJob("7_1", (RUN_ID,), "log")]


def test_a_strangers_folder_writes_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM says that every job was cancelled, so every cell of theirs would be marked."""

    def cancelled(wanted: Any) -> dict[str, State]:
        return {job: State("CANCELLED") for job in wanted}

    monkeypatch.setattr(jobs.slurm_queue, "states", cancelled)
    (tmp_path / "runs").mkdir()
    write(tmp_path / "runs", LINE | {"cells": ["../../outside"]}, LINE | {"cells": [str(tmp_path / "outside")]})
    assert jobs.settle(tmp_path / "runs") == []
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
