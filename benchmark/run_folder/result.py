"""A cell's result and records, believed only if they are whole and the cell's own."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmark.messages import one_line
from benchmark.run_folder.files import examine, folder_of, parse, read_bytes
from benchmark.run_folder.shapes import NUMBER, misfit

STATUSES = ("done", "diverged")
RESULT = {
    "run_id": str,
    "status": str,
    "error": str,
    "attempt": int,
    "measured": {str: NUMBER},
    "layers": {str: {"weights": int, "kept": int}},
    "environment": {"commit": (str, None), "dirty": (bool, None), "device_name": str, "drift?": [str]},
    "metrics_sha256": str,
}
OF_DONE = {  # what summaries, estimates, searches and tables compute with
    "epochs": float,
    "test_accuracy": float,
    "best_test_accuracy": float,
    "density_at_best_test_accuracy": float,
    "density": float,
    "train_seconds": float,
}
VALUES = {int, float, bool, type(None)}
ATTEMPTS = range(10**9)
RECORD = {"epoch": int, "step": int, "train_seconds?": float}


def examine_result(path: Path, run_id: str) -> tuple[dict[str, Any] | None, str]:
    """(the result in a file, ""), or (None, why it is not believed); (None, "") if there is none.

    It is believed if its checksum holds, it has what a result has, if done the numbers too, it is of
    the cell `run_id`, not a copy of another cell's or a link to it, and its metrics are beside it or in
    its attempt.
    """
    result, damage = examine(path, RESULT, seal=True)
    if result is None:
        return None, damage
    if result["run_id"] != run_id:
        return None, f"{path} is of cell {one_line(result['run_id'])[:12]}"
    if result["status"] not in STATUSES:
        return None, f"{path} is damaged (status is not {' or '.join(STATUSES)})"
    if result["status"] == "done" and (problem := _misfit_of_done(result["measured"])):
        return None, f"{path} is damaged ({problem})"
    if result["attempt"] not in ATTEMPTS:
        return None, f"{path} is damaged (attempt is no number of an attempt)"
    if metrics_of(path.parent, result) is None:
        return None, f"{path.with_name('metrics.jsonl')} is not the one of its result.json"
    return {**result, "error": one_line(result["error"])}, ""


def _misfit_of_done(measured: dict[str, Any]) -> str:
    if problem := misfit(measured, OF_DONE, "measured"):
        return problem
    for name in ("density", "density_at_best_test_accuracy"):
        if not 0 <= measured[name] <= 1:
            return f"measured.{name} is not in [0, 1]"
    return ""


def metrics_of(cell: Path, result: Mapping[str, Any]) -> tuple[Path, bytes] | None:
    """The file that holds the metrics of a cell's result, the cell's or its attempt's, and its content."""
    for path in (cell / "metrics.jsonl", folder_of(cell, result.get("attempt", 0)) / "metrics.jsonl"):
        with contextlib.suppress(FileNotFoundError, ValueError):
            content = read_bytes(path)
            if hashlib.sha256(content).hexdigest() == result.get("metrics_sha256"):
                return path, content
    return None


def result_of(cell: Path) -> dict[str, Any] | None:
    """The believed result of a cell's folder, whose name is its run id; or None."""
    return examine_result(cell / "result.json", cell.name)[0]


def records(content: bytes, path: Path) -> Iterator[dict[str, Any]]:
    """The records of metrics, one per line: numbers by name. Raises ValueError naming the file."""
    for number, line in enumerate(content.splitlines(), 1):
        try:
            record = parse(line)
        except ValueError as error:
            raise ValueError(f"{path} is damaged, line {number} ({error})") from error
        problem = misfit(record, RECORD)
        if not problem and not VALUES.issuperset(map(type, record.values())):
            problem = "a value is not a number"
        if problem:
            raise ValueError(f"{path} is damaged, line {number} ({problem})")
        yield record
