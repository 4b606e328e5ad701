"""`plan`: how many cells there are, which are done, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark import results
from benchmark.commands.estimate import Estimate, duration, epochs_of, probe
from benchmark.commands.output import console, emit, say
from benchmark.commands.selection import Selection, resolve_device, unended
from benchmark.launch.local import default_workers
from benchmark.spec import RunSpec


def plan(
    selection: Selection,
    out: Path,
    *,
    workers: int | None,
    device: str,
    json_output: bool,
    retry_failed: bool = False,
    script: str | None = None,
) -> None:
    """Print how many cells there are, which are done, and how long the rest takes.

    script: what would be submitted.
    """
    suite = selection.expand()
    results.check(out)
    selected = selection.cells(suite, out)
    cells = selection.unpublished(selected)
    todo = unended(cells, retry_failed=retry_failed)
    pool = workers or default_workers(resolve_device(device))
    estimate, source = _estimate(cells, todo)
    counts = {status: sum(row["status"] == status for _, row in cells) for status in results.STATUSES}
    document = {
        "suite": suite.name,
        "out": str(out),
        "cells": len(cells),
        "counts": {status: count for status, count in counts.items() if count},
        "done_elsewhere": len(selected) - len(cells),
        "ignored_elsewhere": list(selection.elsewhere.ignored),
        "done": [spec.run_id for spec, row in cells if row["status"] == "done"],
        "to_run": [{"run_id": spec.run_id, "label": spec.label, "departs": list(spec.departs)} for spec in todo],
        "estimated_seconds": estimate.seconds(epochs_of(todo), cells=len(todo), workers=pool),
        "estimate_from": source,
        "workers": pool,
        **({} if script is None else {"script": script}),
    }
    if json_output:
        emit(document)
    else:
        _print(document, selection.skipped_text(len(selected) - len(cells)))


def _estimate(cells: Sequence[tuple[RunSpec, results.Row]], todo: Sequence[RunSpec]) -> tuple[Estimate, str]:
    """The time of an epoch for every kind of cell that is left, and what it comes from."""
    estimate = Estimate()
    estimate.learn_rows(cells)
    measured = all(estimate.knows(spec) for spec in todo)
    probe(estimate, todo)
    return estimate, "measured cells" if measured else "a probe of a few steps on the CPU"


def _print(document: dict[str, Any], skipped: str) -> None:
    screen, script = console(json_output=False), document.get("script")
    states = ", ".join(f"{count} {status}" for status, count in document["counts"].items()) or "none to run"
    heading = f"suite {document['suite']}: {document['cells']} cells in {document['out']}; {states}{skipped}"
    screen.print(heading, markup=False, soft_wrap=True)
    for cell in document["to_run"]:
        screen.print(f"  {cell['run_id']} {cell['label']}", highlight=False, markup=False)
    time, workers = duration(document["estimated_seconds"]), document["workers"]
    where = "" if script is None else " of this machine"
    screen.print(f"about {time} of training on {workers} workers{where}, from {document['estimate_from']}")
    if script is not None:
        say(screen, f"\n{script}")
