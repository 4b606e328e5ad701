"""The cluster jobs of a run folder: DIR/jobs.jsonl, one line per job.

The line is appended before anything waits for the job.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.launch.slurm import queue as slurm_queue
from benchmark.launch.slurm.queue import SlurmError, State
from benchmark.run_folder.attempts import ended, folder_of, mark_ended, numbers
from benchmark.run_folder.attempts import steps_saved as steps_saved_in
from benchmark.run_folder.files import parse, read_bytes
from benchmark.run_folder.messages import one_line
from benchmark.run_folder.result import result_of
from benchmark.run_folder.shapes import misfit

NAME = "jobs.jsonl"
LINE = {"job": str, "cells": [str], "log": str, "launcher": str}
RUN_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class ClusterJob:
    """One job: its id, its cells in order, and the file with its output."""

    job: str
    cells: tuple[str, ...]
    log: str
    launcher: str = "slurm"

    def last_line(self) -> str:
        """The last line of the job's output, or why there is none."""
        try:
            lines = read_bytes(Path(self.log)).decode(errors="replace").strip().splitlines()
        except (OSError, ValueError):
            return f"it wrote no {self.log}: does every node see that folder?"
        return one_line(lines[-1]) if lines else f"{self.log} is empty"


def read(out: Path) -> list[ClusterJob]:
    """All jobs ever submitted for the folder; a line that a power cut broke is skipped.

    Raises SlurmError for what is no file.
    """
    try:
        lines = read_bytes(out / NAME).splitlines()
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise SlurmError(f"{error}: move it away") from error
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            entry = parse(line)
            if not misfit(entry, LINE) and all(map(RUN_ID.fullmatch, entry["cells"])):
                found.append(ClusterJob(entry["job"], tuple(entry["cells"]), entry["log"], entry["launcher"]))
    return found


def append(out: Path, jobs: Iterable[ClusterJob]) -> None:
    """Append the jobs in one write; they are on disk when it returns."""
    content = "".join(json.dumps(dataclasses.asdict(job)) + "\n" for job in jobs).encode()
    descriptor = os.open(out / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def steps_saved(out: Path, run_id: str) -> int:
    """The number of steps in a cell's newest checkpoint; 0 without one."""
    cell = out / "cells" / run_id
    return max((steps for number in numbers(cell) for steps in steps_saved_in(folder_of(cell, number))), default=0)


def final_status(out: Path, run_id: str) -> dict[str, Any] | None:
    """{status, error} of a cell with a result or a failed or cancelled last attempt; else None."""
    cell = out / "cells" / run_id
    result = result_of(cell)
    if result is not None:
        return {"status": result["status"], "error": result["error"]}
    attempts = numbers(cell)
    end = ended(folder_of(cell, attempts[-1])) if attempts else None
    return end if end is not None and end["status"] in ("failed", "cancelled") else None


def has_result(out: Path, run_id: str) -> bool:
    """Whether the cell is done or diverged by now; its job may have ended a moment ago."""
    return result_of(out / "cells" / run_id) is not None


def unended(out: Path, run_ids: Iterable[str]) -> list[str]:
    """The cells that have no final status."""
    return [run_id for run_id in run_ids if final_status(out, run_id) is None]


def settle(out: Path) -> list[tuple[ClusterJob, State]]:
    """The jobs that still have cells to train, each with its state.

    Cells that cancelled jobs left are marked cancelled. Raises SlurmError if SLURM does not answer.
    """
    left = [job for job in read(out) if job.launcher == "slurm" and unended(out, job.cells)]
    states = slurm_queue.states(job.job for job in left)
    for job in left:
        if states[job.job].name == "CANCELLED":
            mark_cancelled(out, job)
    return [(job, states[job.job]) for job in left]


def mark_cancelled(out: Path, job: ClusterJob) -> None:
    """Mark the cells that a cancelled job left as cancelled, unless another worker has them."""
    for run_id in unended(out, job.cells):
        error = f"its SLURM job {job.job} was cancelled"
        mark_ended(out / "cells" / run_id, error, status="cancelled", dead_jobs={job.job})
