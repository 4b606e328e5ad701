"""What whole cells cost in a grid, with start-up and steady state apart: `speed grid`.

A grid has ROUNDS cells per worker, of one model and one method. It runs as with `run`: the local
launcher, an evaluation and a record every epoch, checkpoints, results, the MLflow mirror. A
worker's first cell also pays for the worker's start (interpreter, torch, data); the later cells are
the steady state, while all workers are busy.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import methods
from benchmark import data, results
from benchmark.commands.output import console, emit, show
from benchmark.commands.selection import resolve_device
from benchmark.data.catalogue import SHAPES
from benchmark.launch.base import Event
from benchmark.launch.local import LocalLauncher, default_workers
from benchmark.run_folder.result import result_of
from benchmark.spec import Data, RunSpec, check_names
from benchmark.speed.start_up import MeasurementError
from benchmark.speed.steps import DEFAULT_MODELS, KEPT, SCHEMA, machine_line, plain_table
from benchmark.speed.workloads import MODELS, data_and_optimizer, spec_of, train_size
from benchmark.tracking.background import Mirror
from benchmark.training.execution import Execution

ROUNDS, TEST_EXAMPLES = 2, 10_000
DEFAULT_METHODS = ("dense", "dst")
DATA = {"own": "the model's own", "synthetic": "made-up pixels of the real shape and number"}
AUTHORS_FILE = Path(__file__).with_name("authors_epoch_seconds.json")
HOW = (
    f"{ROUNDS} cells per worker through the local launcher; steady are those after each worker's first. epoch: a "
    "steady cell's whole time over its epochs; training: only its steps; cells/h: steady, of all workers; start-up, "
    "once a pool: what a worker's first cell takes until its first epoch's end beside training, less what a steady one "
    "does; whole: the pool's wall time, start-up and mirror included. Means.",
    "x authors: the same DST epochs, one after another, in the authors' code, measured in a side experiment on 2 CPU "
    "cores and not in this run (lstm-a: 600 steps of 0.33 s, evaluation not counted)",
)
COLUMNS = ("model", "method", "cells", "epochs", "start s", "epoch s", "train s", "whole s", "cells/h", "x authors")


@dataclass(frozen=True)
class Setup:
    """How the grids run. data: one of DATA."""

    epochs: int
    workers: int | None
    device: str
    data_dir: Path
    data: str = "own"
    mlflow: bool = True

    @property
    def pool(self) -> int:
        """Worker processes at once."""
        return self.workers or default_workers(self.device)


@dataclass
class Times:
    """When a cell's training started and ended, by one clock.

    untrained: seconds until the end of the first epoch that were no training.
    """

    started: float
    ended: float = 0.0
    untrained: float = 0.0


def grids(names: Sequence[str], chosen: Sequence[str], setup: Setup, json_output: bool) -> None:
    """Run a grid of every model with every method and print it.

    Raises SpecError, DataError, MeasurementError.
    """
    asked = list(dict.fromkeys(names or DEFAULT_MODELS)), list(dict.fromkeys(chosen or DEFAULT_METHODS))
    check_names(asked[0], MODELS, "model")
    check_names(asked[1], methods.available(), "method")
    check_names([setup.data], DATA, "--data")
    setup = dataclasses.replace(setup, device=resolve_device(setup.device))
    lists = [specs_of(model, method, setup) for model in asked[0] for method in asked[1]]
    for name in {specs[0].data.name for specs in lists}:
        data.verify(name, setup.data_dir)
    how = {
        "workers": setup.pool,
        "data": DATA[setup.data],
        "mlflow": setup.mlflow,
        "load_before": os.getloadavg(),
    }
    rows, machines = zip(*[measure(specs, setup) for specs in lists], strict=True)
    document = {"schema": SCHEMA, "kind": "grid", "how": HOW, "machine": machines[0], **how}
    document |= {"load_after": os.getloadavg(), "grids": rows}
    (emit if json_output else _print)(document)


def specs_of(model: str, method: str, setup: Setup) -> list[RunSpec]:
    """The paper's cell of a model with the method's defaults, once per seed. Raises SpecError."""
    pixels, optimizer = data_and_optimizer(model)
    if setup.data == "synthetic":
        shape, size = SHAPES.get(pixels.name), train_size(pixels)
        pixels = Data(name="synthetic", shape=shape, train_limit=size, test_limit=TEST_EXAMPLES)
    optimizer = dataclasses.replace(optimizer, epochs=setup.epochs)
    spec = dataclasses.replace(spec_of(model, method), data=pixels, optimizer=optimizer)
    return [dataclasses.replace(spec, seed=seed) for seed in range(ROUNDS * setup.pool)]


def measure(specs: Sequence[RunSpec], setup: Setup) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the document's row, the machine as a worker recorded it). Raises MeasurementError."""
    with tempfile.TemporaryDirectory(prefix="grid-speed-") as folder:
        out, started = Path(folder), time.perf_counter()
        times = _run(specs, out, setup)
        wall_seconds = time.perf_counter() - started
        cell_results = [result_of(out / "cells" / run_id) or {} for run_id in times]
    training = [result["measured"]["train_seconds"] for result in cell_results[setup.pool :]]
    machine = {key: cell_results[0]["environment"][key] for key in KEPT}
    return summary(specs[0], list(times.values()), training, wall_seconds, workers=setup.pool), machine


def summary(
    spec: RunSpec, times: Sequence[Times], training: Sequence[float], wall_seconds: float, *, workers: int
) -> dict[str, Any]:
    """The document's row of a grid.

    times: its cells in order; training: the steady cells' train_seconds.
    """
    epochs, model, method = spec.optimizer.epochs, spec.model.name, spec.method["name"]
    first, steady = times[:workers], times[workers:]
    late, usual = (statistics.fmean(one.untrained for one in some) for some in (first, steady))
    cell_seconds = statistics.fmean(one.ended - one.started for one in steady)
    authors = authors_epoch_seconds(model, method)
    return {
        "model": model,
        "method": method,
        "cells": len(times),
        "epochs": epochs,
        "start_up_seconds": late - usual,
        "epoch_seconds": cell_seconds / epochs,
        "epoch_training_seconds": statistics.fmean(training) / epochs,
        "whole_seconds": wall_seconds,
        "cells_an_hour": 3600 * workers / cell_seconds,
        "authors_epoch_seconds": authors,
        "authors_ratio": None if authors is None else authors * epochs * workers / cell_seconds,
        "whole_authors_ratio": None if authors is None else authors * epochs * len(times) / wall_seconds,
    }


def authors_epoch_seconds(model: str, method: str) -> float | None:
    """Seconds of an epoch in the authors' code, where measured: authors_epoch_seconds.json."""
    document = json.loads(AUTHORS_FILE.read_text())
    measured = document["models"].get(model) if method == document["method"] else None
    return None if measured is None else float(measured["seconds"])


def _run(specs: Sequence[RunSpec], out: Path, setup: Setup) -> dict[str, Times]:
    """Run the cells in an empty folder; the times of each, in the order in which they started."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # the mirror is to lie in the folder, not among the user's results
    results.prepare(out)
    results.remember(out, "speed", (), specs)
    mirror = Mirror(out, wanted=setup.mlflow, warn=functools.partial(print, "warning:", file=sys.stderr))
    execution = Execution(out=out, data_dir=setup.data_dir, device=setup.device).absolute()
    launcher = LocalLauncher(execution, workers=setup.pool)
    launcher.submit(specs)
    times: dict[str, Times] = {}
    try:
        with mirror:
            for event in launcher.events():
                note(times, event, time.perf_counter())
    finally:
        launcher.kill()
    results.write_tables(out)
    mirror.finish()
    return times


def note(times: dict[str, Times], event: Event, now: float) -> None:
    """Note the time of one event.

    Raises MeasurementError for an event that an undisturbed grid does not have.
    """
    if event.kind == "started":
        times[event.run_id] = Times(now)
    elif event.kind == "epoch" and event.payload["epoch"] == 1:
        times[event.run_id].untrained = now - times[event.run_id].started - event.payload["train_seconds"]
    elif event.kind == "end" and event.payload["status"] == "done":
        times[event.run_id].ended = now
    elif event.kind != "epoch":
        raise MeasurementError(
            f"cell {event.run_id}: {event.payload.get('error') or event.payload.get('warning') or event.kind}"
        )


def _print(document: Mapping[str, Any]) -> None:
    machine, screen = document["machine"], console(json_output=False)
    show(screen, plain_table(COLUMNS, map(row, document["grids"])))
    lines = (
        machine_line(machine),
        f"workers: {document['workers']}",
        f"data: {document['data']}; MLflow mirror: {'on' if document['mlflow'] else 'off'}",
        *document["how"],
    )
    screen.print(*lines, sep="\n", highlight=False, soft_wrap=True)


def row(grid: Mapping[str, Any]) -> list[str]:
    """One line of the table, from one of the document's grids."""
    seconds = ("start_up_seconds", "epoch_seconds", "epoch_training_seconds", "whole_seconds")
    ratio = "-" if grid["authors_ratio"] is None else f"{grid['authors_ratio']:.1f}"
    named = [str(grid[name]) for name in ("model", "method", "cells", "epochs")]
    return [*named, *(f"{grid[name]:.1f}" for name in seconds), f"{grid['cells_an_hour']:.0f}", ratio]
