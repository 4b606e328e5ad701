"""What people read of a run folder: tables on the screen, or one JSON document."""

from __future__ import annotations

import collections
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmark import data, models, results, suites
from benchmark.commands import filters
from benchmark.commands.progress import console
from benchmark.launch.slurm import jobs
from benchmark.launch.slurm.queue import SlurmError, State
from benchmark.results import Member, Row
from benchmark.run_folder.attempts import ended, folder_of, numbers
from benchmark.run_folder.files import read_json, read_sealed
from benchmark.spec import SpecError, check_names
from benchmark.tracking import export as mlflow_export
from benchmark.tracking import sync as tracking


def emit(document: Any) -> None:
    """Print one JSON document on standard output; empty cells are null."""
    json.dump(_nulls(document), sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def _nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _nulls(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nulls(inner) for inner in value]
    return None if value == "" else value


def setting(row: Mapping[str, Any]) -> str:
    """alpha or target density, and what departs from the suite."""
    parts = [f"alpha {row['alpha']:g}"] if row["alpha"] != "" else []
    parts += [f"density {row['density_target']:g}"] if row["density_target"] != "" else []
    parts += [row["protocol"]] if row["protocol"] and results.SEPARATOR not in row["protocol"] else []
    departs = (
        [part.partition(" (suite")[0] for part in row["departs"].split(results.SEPARATOR)] if row["departs"] else []
    )
    return ", ".join([*parts, *departs])


def hyperparameters_that_vary(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Run id to those hyperparameters in which the shown cells of its method differ, alpha and density aside."""
    of = {row["run_id"]: json.loads(row["spec"])["method"] for row in rows}
    values: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for method in of.values():
        for name, value in method.items():
            values[method["name"], name].add(json.dumps(value))
    told = {"name", "version", "alpha", "density"}
    return {
        run_id: {n: v for n, v in method.items() if n not in told and len(values[method["name"], n]) > 1}
        for run_id, method in of.items()
    }


def summary_table(rows: Sequence[Row]) -> Table:
    """Mean and standard deviation of the last epoch's test accuracy and density over each setting's done cells."""
    table = Table(box=None, pad_edge=False, caption="± standard deviation over seeds", caption_justify="left")
    many = len({row["dataset"] for row in rows}) > 1
    for name in (*(["data"] if many else []), "model", "method", "setting", "done"):
        table.add_column(name, no_wrap=name in ("model", "method"), overflow="fold")
    for name in ("accuracy %", "remaining %"):
        table.add_column(name, justify="right", no_wrap=True)
    groups: dict[tuple[str, ...], list[Row]] = collections.defaultdict(list)
    varied = hyperparameters_that_vary(rows)
    for row in rows:
        shown = ", ".join(filter(None, [setting(row), *(f"{n} {v}" for n, v in varied[row["run_id"]].items())]))
        groups[row["dataset"], row["model"], row["method"], shown].append(row)
    for names, group in groups.items():
        done = [row for row in group if row["status"] == "done"]
        other = collections.Counter(row["status"] for row in group if row["status"] != "done")
        state = ", ".join([f"{len(done)}/{len(group)}", *(f"{n} {status}" for status, n in other.items())])
        accuracies = [row["test_accuracy"] for row in done]
        densities = [100 * row["density"] for row in done]
        table.add_row(*names[0 if many else 1 :], state, _mean(accuracies), _mean(densities))
    return table


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"


def list_names(what: str, json_output: bool) -> None:
    """Print the suites, methods, models or data sets there are."""
    check_names([what], ("suites", "methods", "models", "data"), "list")
    if what == "suites":
        found = {name: f"{text} [{', '.join(exhibits)}]" for name, (text, exhibits) in suites.describe().items()}
    elif what == "methods":
        import methods

        found = methods.describe()
    else:
        found = models.describe() if what == "models" else data.describe()
    if json_output:
        emit(found)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in found.items():
        table.add_row(name, text)
    console(json_output=False).print(table)


def status(out: Path, where: Sequence[str], json_output: bool) -> None:
    """Print how far the cells are, by suite and status, and what went wrong."""
    queued, trouble = _queued(results.existing(out))
    rows = filters.rows_left(results.cells(out), where)
    counts = collections.Counter(row["status"] for row in rows)
    if json_output:
        listed = [{"job": job.job, "state": state.name, "why": state.why, "cells": job.cells} for job, state in queued]
        emit({"out": str(out), "counts": dict(counts), "cells": rows, "jobs": listed, "slurm": trouble})
        return
    screen = console(json_output=False)
    states = ", ".join(f"{count} {name}" for name, count in counts.items())
    screen.print(f"{out}: {len(rows)} cells; {states}", highlight=False, markup=False, soft_wrap=True)
    screen.print(summary_table(rows))
    for line in [*_beside(queued, {row["run_id"]: row["status"] for row in rows}), *([trouble] if trouble else [])]:
        screen.print(f"SLURM: {line}", highlight=False, markup=False, soft_wrap=True)
    for row in rows:
        if row["error"]:
            line = f"{row['run_id']} {row['status']}: {row['error']}"
            screen.print(line, highlight=False, markup=False, soft_wrap=True)


def _queued(out: Path) -> tuple[list[tuple[jobs.ClusterJob, State]], str]:
    """Cluster jobs that have cells to train yet with SLURM's word on them, or why there is none."""
    try:
        return jobs.settle(out), ""
    except SlurmError as error:
        return [], str(error)


def _beside(queued: Sequence[tuple[jobs.ClusterJob, State]], statuses: Mapping[str, str]) -> list[str]:
    """SLURM's states beside ours: how many cells of which status lie in jobs of which state."""
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


def find(run_id: str, out: Path) -> Member:
    """The cell of a run folder whose id begins so. Raises SpecError where the id is unknown or not unique."""
    members = results.members(results.existing(out))
    found = [member for name, member in members.items() if name.startswith(run_id)]
    if len(found) != 1:
        what = f"{len(found)} cells begin with it" if found else "no cell has it"
        raise SpecError(f"run id '{run_id}': {what}; 'python -m benchmark status --json' lists all ids")
    return found[0]


def show(run_id: str, out: Path, json_output: bool) -> None:
    """Print one cell. Raises as `find` does."""
    member = find(run_id, out)
    spec = member.spec
    cell = out / "cells" / spec.run_id
    document = {
        "row": results.row(out, member),
        "spec": spec.to_dict(),
        "environment": read_json(cell / "environment.json"),
        "attempts": {number: ended(folder_of(cell, number)) for number in numbers(cell)},
        "layers": (read_sealed(cell / "result.json") or {}).get("layers"),
    }
    if json_output:
        emit(document)
        return
    screen = console(json_output=False)
    for title, section in document.items():
        screen.print(f"{title}:", style="bold")
        for name, value in (section or {}).items():
            if value not in ("", None) and name != "spec":
                screen.print(f"  {name}: {value}", highlight=False, markup=False, soft_wrap=True)


def sync(out: Path, patience_seconds: float, json_output: bool) -> None:
    """Import what is new into MLflow, and print how much that was."""
    screen = console(json_output=json_output)
    said = 0.0

    def report(text: str) -> None:
        nonlocal said
        if time.monotonic() - said > 1.0:
            said = time.monotonic()
            screen.print(f"MLflow: {text}", highlight=False)

    _queued(results.existing(out))
    done = tracking.sync(out, report=report, patience_seconds=patience_seconds)
    if json_output:
        emit({"out": str(out), **dataclasses.asdict(done)})
    else:
        print(f"{done.uri}: {done.cells} cells, {done.changed} of them changed, {done.records} records imported")


def export(out: Path, source: str, to: Path | None, where: Sequence[str], json_output: bool) -> None:
    """Write the tables anew from the run folders or from MLflow, of all cells or some, here or elsewhere."""
    check_names([source], ("folders", "mlflow"), "--from")
    place = to or out
    if source == "mlflow":
        with mlflow_export.downloaded(out) as (folder, cells):
            rows = filters.rows_left(cells, where)
            results.write_rows(rows, folder, place)
    else:
        rows = filters.rows_left(results.cells(results.existing(out)), where)
        results.write_rows(rows, out, place)
    names = ["results.csv", "results.parquet", "traces.csv", "layers.csv"]
    if json_output:
        emit({"out": str(place), "rows": len(rows), "files": names})
    else:
        print(f"{place}: {', '.join(names)}; {len(rows)} rows")


def data_fetch(name: str, data_dir: Path, json_output: bool) -> None:
    """Download, then check."""
    data.fetch(name, data_dir)
    data_verify(name, data_dir, json_output)


def data_verify(name: str, data_dir: Path, json_output: bool) -> None:
    """Print a line a file, all of them good; DataError otherwise."""
    lines = data.verify(name, data_dir)
    if json_output:
        emit({"name": name, "data_dir": str(data_dir), "files": lines})
    else:
        print("\n".join(lines))
