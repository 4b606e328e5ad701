"""`status`: how far the cells of a run folder are."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark import results
from benchmark.commands import filters
from benchmark.commands.labels import labels
from benchmark.commands.output import console, emit, say, show, summary_table
from benchmark.launch.slurm import jobs
from benchmark.launch.slurm.queue import SlurmError, State


def status(out: Path, where: Sequence[str], json_output: bool) -> None:
    """Print how far the cells are, by suite and status, and what went wrong."""
    queued, trouble = queued_jobs(results.existing(out))
    cells = results.cells(out, dead_jobs={job.job for job, state in queued if state.ended})
    lost = results.unlisted(out, {spec.run_id for spec, _ in cells})
    names = labels(spec for spec, _ in cells)
    cells = filters.select(cells, where) if where else cells
    rows = [row for _, row in cells]
    screen = console(json_output=json_output)
    if lost:
        say(screen, f"warning: {lost}")
    counts = collections.Counter(row["status"] for row in rows)
    if json_output:
        listed = [{"job": job.job, "state": state.name, "why": state.why, "cells": job.cells} for job, state in queued]
        emit({"out": str(out), "counts": dict(counts), "cells": rows, "jobs": listed, "slurm": trouble})
        return
    states = ", ".join(f"{count} {name}" for name, count in counts.items())
    say(screen, f"{out}: {len(rows)} cells; {states}")
    show(screen, summary_table(cells))
    for line in [
        *_cells_by_state(queued, {row["run_id"]: row["status"] for row in rows}),
        *([trouble] if trouble else []),
    ]:
        say(screen, f"SLURM: {line}")
    for row in rows:
        if row["error"]:
            say(screen, f"{row['run_id']} {names[row['run_id']]}: {row['status']}: {row['error']}")


def queued_jobs(out: Path) -> tuple[list[tuple[jobs.ClusterJob, State]], str]:
    """SLURM jobs with cells left to train, each with its state, or why SLURM cannot be asked."""
    try:
        return jobs.settle(out), ""
    except SlurmError as error:
        return [], str(error)


def _cells_by_state(queued: Sequence[tuple[jobs.ClusterJob, State]], statuses: Mapping[str, str]) -> list[str]:
    """SLURM's states beside ours: how many cells of each status are in jobs of each state."""
    cells: collections.Counter[tuple[str, str]] = collections.Counter()
    names: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for job, state in queued:
        counts = collections.Counter(statuses[run_id] for run_id in job.cells if run_id in statuses)
        for status in counts.keys() - {"done"}:
            cells[status, str(state)] += counts[status]
            names[status, str(state)].append(job.job)
    return [f"{count} {key[0]} in {key[1]} jobs: {_first(names[key])}" for key, count in cells.items()]


def _first(names: Sequence[str], count: int = 5) -> str:
    return ", ".join([*names[:count], *(["…"] if len(names) > count else [])])
