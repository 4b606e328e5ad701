"""The MLflow mirror of a run folder: what the folder holds is imported, and can be had back from it alone.

The folder is the truth. How far a cell was imported is read from its MLflow run's own tags, so any
machine that sees the folder can go on, and importing twice changes nothing: `records` and
`records_sha256` name the imported prefix of metrics.jsonl, `mirrored` the state of everything else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import results
from benchmark.attempts import Attempt, Observer, claim, folder_of, numbers
from benchmark.files import read_json, read_sealed
from benchmark.results import FolderError, Member, Row
from benchmark.spec import fields

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

EXPERIMENT = "sparse-training-bench"
MISSING = "MLflow is not installed: 'pip install mlflow', then 'python -m benchmark sync'"
PATIENCE_SECONDS = 60.0
BATCH_METRICS = 1000
BATCH_NAMES = 100
TAG_CHARACTERS = 4000
STATES = {"done": "FINISHED", "diverged": "FAILED", "failed": "FAILED", "cancelled": "KILLED", "running": "RUNNING"}
ARTIFACTS = ("spec.json", "environment.json", "result.json", "metrics.jsonl")

Report = Callable[[str], None]


class TrackingError(Exception):
    """MLflow is missing, does not answer, or cannot hold this folder: one line."""


@dataclass
class Synced:
    """What one import did. cells: with a run in MLflow; changed: of them, written to; records: imported now."""

    uri: str
    cells: int = 0
    changed: int = 0
    records: int = 0


def installed() -> bool:
    return find_spec("mlflow") is not None


def store_uri(out: Path) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite store in the run folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out.resolve() / 'mlflow.db'}"


def store_address(out: Path) -> str:
    """The store for people to read: without a password."""
    return _public(store_uri(out))


def sync(out: Path, *, report: Report, patience_seconds: float = PATIENCE_SECONDS) -> Synced:
    """Import what is new in a run folder. Raises TrackingError, and FolderError for a damaged folder.

    report: receives a line whenever something was done. patience_seconds: how long to wait for one answer.
    """
    found = results.members(out)
    with _trouble(out), _turn(out, 2.5 * patience_seconds, report) as turn:
        client = _connect(out, patience_seconds)
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
    """One import: the runs that are there, and what is done to them."""

    def __init__(self, out: Path, client: MlflowClient, turn: Attempt, report: Report) -> None:
        self._out, self._client, self._turn, self._report = out, client, turn, report
        self._folder = _folder_id(out)
        self._experiment = _experiment(client, out)
        self.synced = Synced(store_address(out))
        self.damaged: list[str] = []
        self._runs: dict[tuple[str, str], Run] = {}
        for run in _search(client, self._experiment, f"tags.folder = '{self._folder}'"):
            if self._runs.setdefault(_key(run), run) is not run:  # what an import that was cut off left twice
                client.delete_run(run.info.run_id)

    def suite(self, name: str, rows: Sequence[Row]) -> None:
        """The parent run of a suite, with the suite's expansion."""
        path = self._out / "suites" / f"{name}.json"
        counts = {status: sum(row["status"] == status for row in rows) for status in results.STATUSES}
        over = counts["pending"] + counts["running"] == 0
        state = _digest(path.read_bytes(), json.dumps(counts).encode())
        run = self._runs.get(("suite", name))
        if run is None:
            tags = {"kind": "suite", "suite": name, "folder": self._folder, "path": str(self._out.resolve())}
            run = self._create(("suite", name), name, tags, _milliseconds(path))
        if run.data.tags.get("mirrored") == state:
            return
        self._client.log_artifact(run.info.run_id, str(path))
        self._end(run, "FINISHED" if over else "RUNNING", path)
        self._set_tags(run, {"mirrored": state, "cells": len(rows), **counts})

    def cell(self, member: Member, row: Row) -> None:
        """The run of one cell; none while nothing of it was ever begun."""
        if self._turn.superseded.is_set():
            raise TrackingError("another sync took over")
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
            self._client.delete_run(run.info.run_id)  # its cell was begun anew, or went back to a checkpoint
            run = None
        run = run or self._begin(member, row, cell)
        if not behind:
            self._records(run, lines)
        self._artifacts(run, cell, row)
        self._summary(run, row, lines)
        self._end(run, STATES.get(row["status"], "SCHEDULED"), cell / "result.json")
        self._set_tags(run, {**self._tags(member, row), "mirrored": state})

    def _begin(self, member: Member, row: Row, cell: Path) -> Run:
        from mlflow.entities import Param

        key = ("cell", member.spec.run_id)
        taken = numbers(cell)
        began = _milliseconds(folder_of(cell, taken[0]) / "owner.json" if taken else cell / "result.json")
        run = self._create(key, member.spec.label, self._tags(member, row), began)
        given = {name: value for name, value in fields(member.spec).items() if name not in results.MEMBERSHIPS}
        given |= {"alpha": member.spec.method.get("alpha")}
        params = [Param(name, str(value)) for name, value in given.items() if value is not None]
        for at in range(0, len(params), BATCH_NAMES):
            self._client.log_batch(run.info.run_id, params=params[at : at + BATCH_NAMES])
        return run

    def _tags(self, member: Member, row: Row) -> dict[str, Any]:
        parent = self._runs["suite", member.suites[0]]
        named = ("run_id", "suite", "dataset", "model", "method", "alpha", "density_target", "seed", "protocol")
        told = ("status", "commit", "departs", "error", "device")
        return {
            "kind": "cell",
            "folder": self._folder,
            "mlflow.parentRunId": parent.info.run_id,
            **{name: row[name] for name in (*named, *told)},
        }

    def _create(self, key: tuple[str, str], name: str, tags: Mapping[str, Any], began: int) -> Run:
        run = self._client.create_run(
            self._experiment, run_name=name, start_time=began, tags={k: str(v) for k, v in tags.items()}
        )
        self._runs[key] = run
        return run

    def _records(self, run: Run, lines: Sequence[bytes]) -> None:
        """Import the records after those that the run's tags name, and move the tags on with each batch."""
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
        """The tags last: what is imported once more after a cut is the same points, which the store drops."""
        for at in range(0, len(metrics), BATCH_METRICS):
            self._client.log_batch(run.info.run_id, metrics=metrics[at : at + BATCH_METRICS])
            self._report("records")
        self._set_tags(run, tags)

    def _summary(self, run: Run, row: Row, lines: Sequence[bytes]) -> None:
        """The row's measurements that no epoch has, as metrics at the last epoch. Infinities are in row.json."""
        from mlflow.entities import Metric

        if row["status"] != "done":
            return
        last = json.loads(lines[-1])
        at, epoch = run.info.start_time + _since(last), int(last["epoch"])
        found = {name: row[name] for name in results.MEASURED if name not in last and row[name] != ""}
        metrics = [Metric(n, float(v), at, epoch) for n, v in found.items() if math.isfinite(v)]
        self._client.log_batch(run.info.run_id, metrics=metrics)

    def _artifacts(self, run: Run, cell: Path, row: Row) -> None:
        run_id = run.info.run_id
        taken = numbers(cell)
        own = folder_of(cell, taken[-1]) if taken else cell
        for name in ARTIFACTS if row["status"] != "running" else ARTIFACTS[:2]:
            path = next((path for path in (cell / name, own / name) if path.exists()), None)
            if path is not None:
                self._client.log_artifact(run_id, str(path))
        if row["status"] == "failed" and (own / "traceback.txt").exists():
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


def _key(run: Run) -> tuple[str, str]:
    kind = run.data.tags.get("kind", "")
    return kind, run.data.tags.get("run_id" if kind == "cell" else "suite", "")


def _lines(cell: Path) -> list[bytes]:
    """The whole records of a cell: its result's, or those that its last attempt has written so far."""
    result = read_sealed(cell / "result.json")
    if result is not None:
        return results.metrics(cell, result).splitlines(keepends=True)
    taken = numbers(cell)
    try:
        content = (folder_of(cell, taken[-1]) / "metrics.jsonl").read_bytes() if taken else b""
    except FileNotFoundError:
        content = b""
    return [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]


def _continues(run: Run, lines: Sequence[bytes]) -> bool:
    """Whether the imported records are the beginning of the folder's."""
    count = _imported(run)
    return count == 0 or _digest(*lines[:count]) == run.data.tags.get("records_sha256")


def _imported(run: Run) -> int:
    return int(run.data.tags.get("records", 0))


def _metrics(lines: Sequence[bytes], began: int) -> Iterator[tuple[int, list[Metric]]]:
    """(number of the record, its metrics). Epochs count an epoch record's steps, steps those named step/…

    The timestamp is a function of the record: equal points are one point in the store.
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


def _folder_id(out: Path) -> str:
    """What tells this run folder from others in a shared store; made once."""
    path = out / "folder-id"
    with contextlib.suppress(FileExistsError), path.open("x") as file:
        file.write(uuid.uuid4().hex)
    return path.read_text().strip()


@contextlib.contextmanager
def _turn(out: Path, wait_seconds: float, report: Report) -> Iterator[Attempt]:
    """One sync of a folder at a time, by the rules of attempts at a cell: the dead are passed over."""
    place, observer = out / ".mlflow-sync", Observer()
    deadline = time.monotonic() + wait_seconds
    while (turn := claim(place, observer)) is None:
        if time.monotonic() > deadline:
            raise TrackingError(f"another sync of {out} has been at work for {wait_seconds:.0f} s")
        report("waiting for another sync")
        time.sleep(0.5)
    try:
        for number in numbers(place):
            if number < turn.number:
                shutil.rmtree(folder_of(place, number), ignore_errors=True)
        yield turn
    finally:
        turn.end("done")


@contextlib.contextmanager
def _trouble(out: Path) -> Iterator[None]:
    """Whatever MLflow raises is a TrackingError of one line, without a password that the address has."""
    try:
        yield
    except (TrackingError, FolderError):
        raise
    except Exception as error:
        uri = store_uri(out)
        text = (str(error).strip().splitlines() or [type(error).__name__])[0].replace(uri, _public(uri))
        cause = re.search(r"\(Caused by (.*)\)", text)  # of what requests says, the end
        raise TrackingError(f"MLflow at {_public(uri)}: {(cause[1] if cause else text)[:200]}") from error


def _public(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)


def _connect(out: Path, patience_seconds: float) -> MlflowClient:
    """A client whose every call ends within about the patience, on a store that is made where there is none."""
    if not installed():
        raise TrackingError(MISSING)
    uri = store_uri(out)
    seconds = str(max(1, round(patience_seconds)))
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", seconds)
    os.environ.setdefault("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", seconds)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0" if patience_seconds < PATIENCE_SECONDS else "3")
    from mlflow.tracking import MlflowClient

    if uri.startswith("sqlite:") and "?" not in uri:
        _create_sqlite(Path(uri.removeprefix("sqlite:///")))
        uri += f"?timeout={patience_seconds / 8:g}"  # MLflow tries four times and waits between
    return MlflowClient(uri)


def _create_sqlite(path: Path) -> None:
    """Make the store aside and rename it: one that is killed while it makes its tables is of no use."""
    from mlflow.tracking import MlflowClient

    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink(missing_ok=True)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    MlflowClient(f"sqlite:///{aside}").get_experiment_by_name(EXPERIMENT)
    aside.rename(path)


def _experiment(client: MlflowClient, out: Path) -> str:
    """The experiment's id. A server keeps artifacts where it says; beside a database they lie in the run folder."""
    served = not re.match(r"(sqlite|mysql|postgresql|mssql)", store_uri(out))
    place = (out / "mlartifacts").resolve().as_uri()
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        return str(client.create_experiment(EXPERIMENT, artifact_location=None if served else place))
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"the experiment {EXPERIMENT} was deleted: 'mlflow experiments restore -x {found.experiment_id}'"
        )
    if "MLFLOW_TRACKING_URI" not in os.environ and found.artifact_location != place:
        raise TrackingError(
            f"{out / 'mlflow.db'} keeps its artifacts in {found.artifact_location}: "
            "the folder was moved or copied; delete mlflow.db and mlartifacts, then sync"
        )
    return str(found.experiment_id)


def _search(client: MlflowClient, experiment: str, condition: str) -> Iterator[Run]:
    """Every run that meets the condition, the oldest first."""
    token = None
    while True:
        page = client.search_runs(
            [experiment], condition, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def export(out: Path, *, where: Sequence[str] = (), to: Path | None = None) -> list[Row]:
    """Write the tables from MLflow alone, as results.write_tables does from the folder. Raises TrackingError."""
    if "MLFLOW_TRACKING_URI" not in os.environ and not (out / "mlflow.db").exists():
        raise TrackingError(f"{out} has no mlflow.db: give --out, or set MLFLOW_TRACKING_URI")
    with tempfile.TemporaryDirectory() as temporary:
        with _trouble(out):
            rows = _download(out, Path(temporary))
        found = results.members(Path(temporary))
        entries = [
            (member.spec, rows.get(run_id) or results.pending_row(member.spec, member.suites))
            for run_id, member in found.items()
        ]
        return results.write_rows(entries, Path(temporary), where=where, to=to or out)


def _download(out: Path, folder: Path) -> dict[str, Row]:
    """What a run folder's tables are made from, out of MLflow into another folder; run id -> row."""
    client = _connect(out, PATIENCE_SECONDS)
    experiment = _experiment(client, out)
    rows: dict[str, Row] = {}
    (folder / "suites").mkdir()
    for run in _search(client, experiment, f"tags.folder = '{_exported(client, experiment, out)}'"):
        kind, name = _key(run)
        if "mirrored" not in run.data.tags:
            continue
        if kind == "suite":
            client.download_artifacts(run.info.run_id, f"{name}.json", str(folder / "suites"))
            continue
        cell = folder / "cells" / name
        cell.mkdir(parents=True, exist_ok=True)
        rows[name] = read_json(Path(client.download_artifacts(run.info.run_id, "row.json", str(cell))))
        if rows[name]["status"] in ("done", "diverged"):
            for artifact in ("result.json", "metrics.jsonl"):
                client.download_artifacts(run.info.run_id, artifact, str(cell))
    return rows


def _exported(client: MlflowClient, experiment: str, out: Path) -> str:
    """The id of the folder to export: the one at `out`, else the only one in the store."""
    if (out / "folder-id").exists():
        return _folder_id(out)
    parents = _search(client, experiment, "tags.kind = 'suite'")
    folders = {run.data.tags["folder"]: run.data.tags["path"] for run in parents}
    if len(folders) == 1:
        return next(iter(folders))
    listed = ", ".join(f"{name} ({path})" for name, path in folders.items()) or "none"
    raise TrackingError(f"which run folder? Write one of these ids into {out / 'folder-id'}: {listed}")
