"""`plan`: how many cells there are, which are done, and how long the rest will take."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark import results
from benchmark.commands import suite_changes
from benchmark.commands.estimate import Estimate, duration, epochs_of, key
from benchmark.commands.estimate import probe as probe_steps
from benchmark.commands.labels import labels
from benchmark.commands.output import console, emit, say
from benchmark.commands.selection import Selection, resolve_device, unended
from benchmark.launch.local import default_workers
from benchmark.spec import RunSpec
from benchmark.suites import Suite


def plan(
    selection: Selection,
    out: Path,
    *,
    workers: int | None,
    device: str,
    json_output: bool,
    probe: bool = False,
    retry_failed: bool = False,
    accept_drift: bool = True,
    script: str | None = None,
) -> None:
    """Print how many cells there are, which are done, and how long the rest takes.

    probe: time a few steps of each kind of cell that has not finished here. accept_drift: also where
    `run` refuses the suite because it was changed. script: what would be submitted.
    """
    suite = selection.expand()
    results.check(out)
    if not accept_drift:
        suite_changes.check(out, suite, accept=False)
    selected = selection.cells(suite, out)
    cells = selection.unpublished(selected)
    todo = unended(cells, retry_failed=retry_failed)
    estimate, source = _estimate([*selected, *_others(out, selected)], todo, probe)
    pool = workers or default_workers(resolve_device(device))
    document = {
        "suite": suite.name,
        "out": str(out),
        "cells": len(cells),
        "done_elsewhere": len(selected) - len(cells),
        "ignored_elsewhere": list(selection.elsewhere.ignored),
        "repeated": [spec.label for spec in _repeated(suite)],
        **_states(cells, todo, labels(suite.specs)),
        "estimated_seconds": estimate.seconds(epochs_of(todo), cells=len(todo), workers=pool),
        "estimate_from": source,
        "workers": pool,
        **({} if script is None else {"script": script}),
    }
    if json_output:
        emit(document)
    else:
        _print(document, selection.skipped_text(len(selected) - len(cells)))


def _repeated(suite: Suite) -> list[RunSpec]:
    """The cells that suite() returned more than once, in the same protocols: each is trained once."""
    times = collections.Counter((spec.run_id, spec.protocol) for spec in suite.listed)
    first = {(spec.run_id, spec.protocol): spec for spec in suite.listed}
    return [first[listed] for listed, count in times.items() if count > 1]


def _states(
    cells: Sequence[tuple[RunSpec, results.Row]], todo: Sequence[RunSpec], names: Mapping[str, str]
) -> dict[str, Any]:
    """How many cells there are of each status, which are done, and which are left."""
    listed = [{"run_id": spec.run_id, "label": names[spec.run_id], "departs": list(spec.departs)} for spec in todo]
    counts = dict(collections.Counter(row["status"] for _, row in cells))
    return {
        "counts": counts,
        "done": [spec.run_id for spec, row in cells if row["status"] == "done"],
        "to_run": listed,
    }


def _others(out: Path, selected: Sequence[tuple[RunSpec, results.Row]]) -> list[tuple[RunSpec, results.Row]]:
    """The cells of the run folder that are not selected: they too show how long an epoch takes."""
    known = {spec.run_id for spec, _ in selected}
    members = results.members(out).items()
    return [(member.spec, results.row(out, member)) for run_id, member in members if run_id not in known]


def _estimate(
    cells: Sequence[tuple[RunSpec, results.Row]], todo: Sequence[RunSpec], probe: bool
) -> tuple[Estimate, str]:
    """The time of an epoch for every kind of cell that is left, and its source; "" where it is not known."""
    estimate = Estimate()
    estimate.learn_rows(cells)
    unknown = [spec for spec in todo if not estimate.knows(spec)]
    if unknown and probe:
        probe_steps(estimate, unknown)
        return estimate, "a probe of a few steps on the CPU"
    known = all(estimate.epoch_seconds(key(spec)) is not None for spec in unknown)
    return estimate, "measured cells" if known else ""


def _print(document: dict[str, Any], skipped: str) -> None:
    screen, script = console(json_output=False), document.get("script")
    states = ", ".join(f"{count} {status}" for status, count in document["counts"].items()) or "none to run"
    say(screen, f"suite {document['suite']}: {document['cells']} cells in {document['out']}; {states}{skipped}")
    if repeated := document["repeated"]:
        listed = f"{len(repeated)}, such as {repeated[0]}"
        say(screen, f"cells that the suite lists more than once; each trains once: {listed}")
    for cell in document["to_run"]:
        say(screen, f"  {cell['run_id']} {cell['label']}")
    seconds, workers = document["estimated_seconds"], document["workers"]
    where = "" if script is None else " of this machine"
    if seconds is None:
        say(screen, "no finished cell shows how long these take: run one of each model first, or plan with --probe")
    else:
        source = document["estimate_from"]
        say(screen, f"about {duration(seconds)} of training on {workers} workers{where}, from {source}")
    if script is not None:
        for line in ["", *script.split("\n")]:
            say(screen, line)
