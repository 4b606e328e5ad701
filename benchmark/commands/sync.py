"""`sync`: bring MLflow up to date with a run folder."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from benchmark import results, terminal
from benchmark.commands.output import console, emit, say
from benchmark.commands.status import queued_jobs
from benchmark.tracking import sync as mirror


def sync(out: Path, patience_seconds: float, json_output: bool) -> None:
    """Import what is new into MLflow, and print how much was imported."""
    screen = console(json_output=json_output)
    reported = 0.0

    def report(text: str) -> None:
        nonlocal reported
        if time.monotonic() - reported > 1.0:
            reported = time.monotonic()
            say(screen, f"MLflow: {text}")

    queued_jobs(results.existing(out))
    done = mirror.sync(out, report=report, patience_seconds=patience_seconds)
    if json_output:
        emit({"out": str(out), **dataclasses.asdict(done)})
    else:
        terminal.say(f"{done.uri}: {done.cells} cells, {done.changed} of them changed, {done.records} records imported")
