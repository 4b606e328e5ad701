"""The MLflow mirror of a run folder: imports all of it, so that tables can be rebuilt.

The folder is the truth. The tags of a cell's MLflow run say how much was imported, so any machine
that sees the folder can continue, and importing twice changes nothing: `records` and
`records_sha256` identify the imported prefix of metrics.jsonl, `mirrored` the state of everything
else.
"""

from __future__ import annotations

import collections
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import results
from benchmark.results import FolderError, Member, Row
from benchmark.run_folder.attempts import Attempt, folder_of, numbers
from benchmark.run_folder.files import read_bytes
from benchmark.run_folder.result import records, result_of
from benchmark.spec import fields
from benchmark.tracking import store
from benchmark.tracking.store import Report

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

BATCH_METRICS = 1000
BATCH_NAMES = 100
TAG_CHARACTERS = 4000
STATES = {"done": "FINISHED", "diverged": "FAILED", "failed": "FAILED", "cancelled": "KILLED", "running": "RUNNING"}
ARTIFACTS = ("spec.json", "environment.json", "result.json", "metrics.jsonl")


@dataclass
class Synced:
    """What one import did.

    cells: with a run in MLflow; changed: those of them that were written to; records: imported.
    """

    uri: str
    cells: int = 0
    changed: int = 0
    records: int = 0


def sync(out: Path, *, report: Report, patience_seconds: float = store.PATIENCE_SECONDS) -> Synced:
    """Import what is new in a run folder.

    Raises store.TrackingError, and FolderError for a damaged folder. report: receives a line for
    each thing done. patience_seconds: how long to wait for one answer.
    """
    found = results.members(out)
    with store.trouble(out), store.turn(out, 2.5 * patience_seconds, report) as turn:
        client = store.connect(out, patience_seconds)
        report("connected")
        mirror = _Mirror(out, client, turn, report)
        cells = {run_id: results.row(out, member) for run_id, member in found.items()}
        for suite in dict.fromkeys(name for member in found.values() for name in member.suites):
            mirror.suite(suite, [row for run_id, row in cells.items() if suite in found[run_id].suites])
        for number, (run_id, member) in enumerate(found.items(), 1):
            mirror.cell(member, cells[run_id])
            report(f"{number}/{len(found)} cells")
        if mirror.damaged:
            raise FolderError(mirror.damaged[0])
        return mirror.synced


class _Mirror:
    """One import: the runs that exist, and what is written to them."""

    def __init__(self, out: Path, client: MlflowClient, turn: Attempt, report: Report) -> None:
        self._out, self._client, self._turn, self._report = out, client, turn, report
        self._folder = store.folder_id(out)
        self._experiment = store.experiment(client, out)
        self.synced = Synced(store.store_address(out))
        self.damaged: list[str] = []
        self._runs: dict[tuple[str, str], Run] = {}
        for run in store.search(client, self._experiment, f"tags.folder = '{self._folder}'"):
            if self._runs.setdefault(run_key(run), run) is not run:  # a duplicate that an interrupted import left
                client.delete_run(run.info.run_id)

        if not store.is_own():
            self._check_place()

    def _check_place(self) -> None:
        """Raises store.TrackingError where this folder shares the store with the one from which it was copied.

        Each of the two would undo what the other wrote.
        """
        here = self._out.resolve()
        places = {run.data.tags.get("path", "") for (kind, _), run in self._runs.items() if kind == "suite"}
        for other in map(Path, places - {"", str(here)}):
            if _is_another_of_id(other, here, self._folder):
                raise store.TrackingError(
                    f"{self._out} is a copy of {other} and has its id, so that each would undo what the other writes: "
                    f"remove {self._out / 'folder-id'}, then sync: the copy gets an id and runs of its own"
                )

    def suite(self, name: str, rows: Sequence[Row]) -> None:
        """Write the parent run of a suite, with the suite's expansion."""
        path = self._out / "suites" / f"{name}.json"
        counts = {status: sum(row["status"] == status for row in rows) for status in results.STATUSES}
        over = counts["pending"] + counts["running"] == 0
        state = _digest(path.read_bytes(), json.dumps(counts).encode())
        run = self._runs.get(("suite", name))
        if run is None:
            tags = {"kind": "suite", "suite": name, "folder": self._folder, "path": str(self._out.resolve())}
            run = self._create(("suite", name), name, tags, _milliseconds(path))
        if run.data.tags.get("path") != (here := str(self._out.resolve())):
            self._set_tags(run, {"path": here})  # the folder was moved
        if run.data.tags.get("mirrored") == state:
            return
        self._client.log_artifact(run.info.run_id, str(path))
        self._end(run, "FINISHED" if over else "RUNNING", path)
        self._set_tags(run, {"mirrored": state, "cells": len(rows), **counts})

    def cell(self, member: Member, row: Row) -> None:
        """Write the run of one cell, unless the cell was never begun."""
        if self._turn.superseded.is_set():
            raise store.TrackingError("another sync took over")
        cell = self._out / "cells" / member.spec.run_id
        run = self._runs.get(("cell", member.spec.run_id))
        if run is None and not numbers(cell) and row["status"] == "pending":
            return
        try:
            lines = _lines(cell)
        except FolderError as error:
            self.damaged.append(str(error))
            return
        self.synced.cells += 1
        state = _digest(json.dumps(row).encode(), *lines)
        if run is not None and run.data.tags.get("mirrored") == state:
            return
        self.synced.changed += 1
        resuming = row["status"] == "running" or (row["status"] == "pending" and not lines)
        behind = run is not None and resuming and len(lines) < _imported(run)
        if run is not None and not behind and not _continues(run, lines):
            self._client.delete_run(run.info.run_id)  # its cell was restarted, or went back to a checkpoint
            run = None
        run = run or self._start_run(member, row, cell)
        if "mirrored" not in run.data.tags:  # new, or an import that was interrupted before its end
            self._parameters(run, member)
        if not behind:
            self._records(run, lines)
        self._artifacts(run, cell, row)
        self._summary(run, row, lines)
        self._end(run, STATES.get(row["status"], "SCHEDULED"), cell / "result.json")
        self._set_tags(run, {**self._tags(member, row), "mirrored": state})

    def _start_run(self, member: Member, row: Row, cell: Path) -> Run:
        key = ("cell", member.spec.run_id)
        attempts = numbers(cell)
        began = _milliseconds(folder_of(cell, attempts[0]) / "owner.json" if attempts else cell / "result.json")
        return self._create(key, member.spec.label, self._tags(member, row), began)

    def _parameters(self, run: Run, member: Member) -> None:
        """Log the spec; the store drops what it has."""
        from mlflow.entities import Param

        given = {name: value for name, value in fields(member.spec).items() if name not in results.MEMBERSHIPS}
        given |= {"alpha": member.spec.method.get("alpha")}
        params = [Param(name, str(value)) for name, value in given.items() if value is not None]
        for at in range(0, len(params), BATCH_NAMES):
            self._client.log_batch(run.info.run_id, params=params[at : at + BATCH_NAMES])

    def _tags(self, member: Member, row: Row) -> dict[str, Any]:
        parent = self._runs["suite", member.suites[0]]
        named = ("run_id", "suite", "dataset", "model", "method", "alpha", "density_target", "seed", "protocol")
        others = ("status", "commit", "departs", "error", "device")
        return {
            "kind": "cell",
            "folder": self._folder,
            "mlflow.parentRunId": parent.info.run_id,
            **{name: row[name] for name in (*named, *others)},
        }

    def _create(self, key: tuple[str, str], name: str, tags: Mapping[str, Any], began: int) -> Run:
        run = self._client.create_run(
            self._experiment, run_name=name, start_time=began, tags={k: str(v) for k, v in tags.items()}
        )
        self._runs[key] = run
        return run

    def _records(self, run: Run, lines: Sequence[bytes]) -> None:
        """Import the records after those that the run's tags name; each batch updates the tags."""
        start = _imported(run)
        digest = hashlib.sha256(b"".join(lines[:start]))
        began = run.info.start_time
        batch: list[Metric] = []
        for number, metrics in _metrics(lines, began):
            if number <= start:
                continue
            digest.update(lines[number - 1])
            batch += metrics
            self.synced.records += 1
            if len(batch) >= BATCH_METRICS // 2 or number == len(lines):
                self._log(run, batch, {"records": number, "records_sha256": digest.hexdigest()})
                batch = []

    def _log(self, run: Run, metrics: Sequence[Metric], tags: Mapping[str, Any]) -> None:
        """Write the tags last.

        After an interruption the same points are imported again, and the store drops them.
        """
        for at in range(0, len(metrics), BATCH_METRICS):
            self._client.log_batch(run.info.run_id, metrics=metrics[at : at + BATCH_METRICS])
            self._report("records")
        self._set_tags(run, tags)

    def _summary(self, run: Run, row: Row, lines: Sequence[bytes]) -> None:
        """Log the row's measurements that no epoch has, at the last epoch.

        Infinities are only in row.json.
        """
        from mlflow.entities import Metric

        last = next((record for record in map(json.loads, reversed(lines)) if "train_seconds" in record), None)
        if row["status"] != "done" or last is None:
            return
        at, epoch = run.info.start_time + _since(last), int(last["epoch"])
        found = {name: row[name] for name in results.MEASURED if name not in last and row[name] != ""}
        metrics = [Metric(n, float(v), at, epoch) for n, v in found.items() if math.isfinite(v)]
        self._client.log_batch(run.info.run_id, metrics=metrics)

    def _artifacts(self, run: Run, cell: Path, row: Row) -> None:
        run_id = run.info.run_id
        attempts = numbers(cell)
        own = folder_of(cell, attempts[-1]) if attempts else cell
        for name in ARTIFACTS if row["status"] != "running" else ARTIFACTS[:2]:
            path = next((path for path in (cell / name, own / name) if path.is_file()), None)
            if path is not None:
                self._client.log_artifact(run_id, str(path))
        if row["status"] == "failed" and (own / "traceback.txt").is_file():
            self._client.log_artifact(run_id, str(own / "traceback.txt"))
        self._client.log_text(run_id, json.dumps(row, indent=1), "row.json")

    def _end(self, run: Run, status: str, path: Path) -> None:
        if status in ("RUNNING", "SCHEDULED"):
            self._client.update_run(run.info.run_id, status=status)
        else:
            self._client.set_terminated(run.info.run_id, status=status, end_time=_milliseconds(path))

    def _set_tags(self, run: Run, tags: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        texts = [RunTag(name, str(value)[:TAG_CHARACTERS]) for name, value in tags.items()]
        self._client.log_batch(run.info.run_id, tags=texts)


def _is_another_of_id(folder: Path, out: Path, name: str) -> bool:
    try:
        return not folder.samefile(out) and read_bytes(folder / "folder-id").decode().strip() == name
    except (OSError, ValueError):  # no folder of this machine, or no run folder
        return False


def run_key(run: Run) -> tuple[str, str]:
    kind = run.data.tags.get("kind", "")
    return kind, run.data.tags.get("run_id" if kind == "cell" else "suite", "")


def _lines(cell: Path) -> list[bytes]:
    """The complete records of a cell: its result's, or those that its last attempt wrote so far.

    Raises FolderError if they are damaged.
    """
    result, attempts = result_of(cell), numbers(cell)
    path = (cell if result or not attempts else folder_of(cell, attempts[-1])) / "metrics.jsonl"
    try:
        content = read_bytes(path) if result is None else results.metrics(cell, result)
        lines = [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
        collections.deque(records(b"".join(lines), path), maxlen=0)
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise FolderError(str(error)) from error
    return lines


def _continues(run: Run, lines: Sequence[bytes]) -> bool:
    """Whether the imported records are a prefix of the folder's."""
    count = _imported(run)
    return count == 0 or _digest(*lines[:count]) == run.data.tags.get("records_sha256")


def _imported(run: Run) -> int:
    return int(run.data.tags.get("records", 0))


def _metrics(lines: Sequence[bytes], began: int) -> Iterator[tuple[int, list[Metric]]]:
    """(number of the record, its metrics).

    An epoch record's step is its epoch; metrics named step/… count steps. The timestamp is a
    function of the record, so equal points are one point in the store.
    """
    from mlflow.entities import Metric

    at = began
    for number, line in enumerate(lines, 1):
        record = json.loads(line)
        an_epoch = "train_seconds" in record
        at = began + _since(record) if an_epoch else at
        prefix, step = ("", record["epoch"]) if an_epoch else ("step/", record["step"])
        values = {n: v for n, v in record.items() if n not in ("epoch", "step", "diverged") and v is not None}
        yield number, [Metric(prefix + name, float(value), at, int(step)) for name, value in values.items()]


def _since(record: Mapping[str, Any]) -> int:
    return round(1000 * float(record["train_seconds"]))


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _milliseconds(path: Path) -> int:
    try:
        return int(1000 * path.stat().st_mtime)
    except FileNotFoundError:
        return int(1000 * time.time())
