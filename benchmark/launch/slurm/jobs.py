"""The cluster jobs of a run folder: DIR/jobs.jsonl, one line per job.

The line is appended before anything waits for the job.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.launch.slurm import queue as slurm_queue
from benchmark.launch.slurm.queue import SlurmError, State
from benchmark.messages import one_line
from benchmark.run_folder.attempts import ended, folder_of, job_of, mark_ended, numbers, steps_saved
from benchmark.run_folder.files import parse, read_bytes, read_json
from benchmark.run_folder.result import result_of
from benchmark.run_folder.shapes import misfit
from benchmark.spec import RUN_ID

NAME = "jobs.jsonl"
LINE = {"job": str, "cells": [str], "log": str, "before?": {str: int}, "launcher": str}
JOB_ID = re.compile(r"[0-9]+(_[0-9]+)?")


@dataclass(frozen=True)
class ClusterJob:
    """One job: its id, its cells in order, and the file with its output.

    before: each cell's newest attempt when the job was submitted. Earlier attempts say nothing
    about this job: a cell that it trains again may have been cancelled or have failed before.
    """

    job: str
    cells: tuple[str, ...]
    log: str
    before: Mapping[str, int] = field(default_factory=dict)
    launcher: str = "slurm"

    def ended(self, out: Path, run_id: str) -> dict[str, Any] | None:
        """{status, error} of a cell that has ended since the job was submitted, else None."""
        return final_status(out, run_id, after=self.before.get(run_id, 0))

    def left(self, out: Path) -> list[str]:
        """The cells that have not ended since the job was submitted."""
        return [run_id for run_id in self.cells if self.ended(out, run_id) is None]

    def begun(self, out: Path) -> set[str]:
        """The cells with an attempt that began since the job was submitted."""
        newest = newest_attempts(out, self.cells)
        return {run_id for run_id, number in newest.items() if number > self.before.get(run_id, 0)}

    def got_further(self, out: Path) -> bool:
        """Whether any cell got further since the job was submitted."""
        return any(got_further(out, run_id, after=self.before.get(run_id, 0)) for run_id in self.cells)

    def last_line(self) -> str:
        """The last line of the job's output, or why there is none."""
        try:
            lines = read_bytes(Path(self.log)).decode(errors="replace").strip().splitlines()
        except (OSError, ValueError):
            return f"it wrote no {self.log}: does every node see that folder?"
        return one_line(lines[-1]) if lines else f"{self.log} is empty"


def read(out: Path) -> list[ClusterJob]:
    """All jobs ever submitted for the folder; lines that describe no job are skipped.

    A power cut breaks a line, and a folder from somebody else can hold any. Raises SlurmError for
    what is no file.
    """
    try:
        lines = read_bytes(out / NAME).splitlines()
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise SlurmError(f"{error}: move it away") from error
    return [job for line in lines if (job := _job(line)) is not None]


def _job(line: bytes) -> ClusterJob | None:
    """The job of one line: its names become folders, and words of SLURM's commands."""
    with contextlib.suppress(ValueError):
        entry = parse(line)
        if not misfit(entry, LINE) and JOB_ID.fullmatch(entry["job"]) and all(map(RUN_ID.fullmatch, entry["cells"])):
            cells = tuple(entry["cells"])
            return ClusterJob(entry["job"], cells, entry["log"], entry.get("before", {}), entry["launcher"])
    return None


def append(out: Path, jobs: Iterable[ClusterJob]) -> None:
    """Append the jobs on lines of their own; they are on disk when it returns."""
    content = "".join(json.dumps(dataclasses.asdict(job)) + "\n" for job in jobs).encode()
    descriptor = os.open(out / NAME, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            content = b"\n" + content  # a power cut broke the last line
        while content:  # one write, unless the system takes only a part of it
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def newest_attempts(out: Path, run_ids: Iterable[str]) -> dict[str, int]:
    """The number of each cell's newest attempt; 0 without one."""
    return {run_id: max(numbers(out / "cells" / run_id), default=0) for run_id in run_ids}


def got_further(out: Path, run_id: str, *, after: int) -> bool:
    """Whether the cell ended, or saved a step beyond those it resumed with, after that attempt.

    Only the attempts with larger numbers count.
    """
    cell = out / "cells" / run_id
    if final_status(out, run_id, after=after) is not None:
        return True
    return any(_saved_more(folder_of(cell, number)) for number in numbers(cell) if number > after)


def _saved_more(attempt: Path) -> bool:
    return max(steps_saved(attempt), default=0) > resumed_at_step(attempt)


def resumed_at_step(attempt: Path) -> int:
    """The number of steps that earlier attempts had done; 0 where the attempt does not say."""
    environment = read_json(attempt / "environment.json", {"resumed_at_step?": int}) or {}
    steps: int = environment.get("resumed_at_step", 0)
    return steps


def final_status(out: Path, run_id: str, *, after: int = 0) -> dict[str, Any] | None:
    """{status, error} of a cell with a result or a failed or cancelled last attempt; else None.

    after: ends of attempts up to this number do not count.
    """
    cell = out / "cells" / run_id
    result = result_of(cell)
    if result is not None:
        return {"status": result["status"], "error": result["error"]}
    newest = max(numbers(cell), default=0)
    end = ended(folder_of(cell, newest)) if newest > after else None
    return end if end is not None and end["status"] in ("failed", "cancelled") else None


def has_result(out: Path, run_id: str) -> bool:
    """Whether the cell is done or diverged by now; its job may have ended a moment ago."""
    return result_of(out / "cells" / run_id) is not None


def settle(out: Path) -> list[tuple[ClusterJob, State]]:
    """The jobs that still have cells to train, each with its state.

    Cells that cancelled jobs left are marked cancelled. Raises SlurmError if SLURM does not answer.
    """
    left = unfinished(out)
    states = slurm_queue.states(job.job for job in left)
    for job in left:
        if states[job.job].name == "CANCELLED":
            mark_cancelled(out, job)
    return [(job, states[job.job]) for job in left]


def unfinished(out: Path) -> list[ClusterJob]:
    """The SLURM jobs that still have cells to train, each with the cells that are now its own."""
    known = [job for job in read(out) if job.launcher == "slurm"]
    listed: dict[str, list[ClusterJob]] = {}
    for job in known:
        for run_id in job.cells:
            listed.setdefault(run_id, []).append(job)
    own = {run_id: _current(out, run_id, its_jobs) for run_id, its_jobs in listed.items()}
    current = (
        dataclasses.replace(job, cells=tuple(run_id for run_id in job.cells if own[run_id] == job.job)) for job in known
    )
    return [job for job in current if job.left(out)]


def _current(out: Path, run_id: str, listed: Sequence[ClusterJob]) -> str:
    """The job that has a cell now: the last one, or an earlier one that has begun the cell since."""
    last, cell = listed[-1], out / "cells" / run_id
    newest = max(numbers(cell), default=0) if len(listed) > 1 else 0
    if newest > last.before.get(run_id, 0):
        owner = job_of(folder_of(cell, newest))
        return next((job.job for job in listed if job.job == owner), last.job)
    return last.job


def mark_cancelled(out: Path, job: ClusterJob) -> None:
    """Mark the cells that a cancelled job left as cancelled, unless another worker has them."""
    for run_id in job.left(out):
        error = f"its SLURM job {job.job} was cancelled"
        mark_ended(out / "cells" / run_id, error, status="cancelled", dead_jobs={job.job})
