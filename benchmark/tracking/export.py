"""The results tables from MLflow only, without the run folder."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark import results
from benchmark.results import Row
from benchmark.run_folder import links
from benchmark.run_folder.files import read_json
from benchmark.spec import RunSpec, SpecError, check_file_name, check_run_id
from benchmark.tracking import store
from benchmark.tracking.sync import run_key

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@contextlib.contextmanager
def downloaded(out: Path) -> Iterator[tuple[Path, list[tuple[RunSpec, Row]]]]:
    """(a temporary folder with the cells' records, every cell with its row), all from MLflow.

    `results.write_rows` writes the tables from these as it does from a run folder. Raises
    store.TrackingError, and FolderError where something that we write in the run folder is a link.
    """
    if store.is_own() and not (out / "mlflow.db").exists():
        raise store.TrackingError(f"{out} has no mlflow.db: give --out, or set MLFLOW_TRACKING_URI")
    links.check(out)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with store.trouble(out):
            rows = _download(out, folder)
        members = results.members(folder)
        yield (
            folder,
            [
                (member.spec, rows.get(run_id) or results.pending_row(member.spec, member.suites))
                for run_id, member in members.items()
            ],
        )


def _download(out: Path, folder: Path) -> dict[str, Row]:
    """Copy what the tables are made from out of MLflow into a folder; run id -> row."""
    client = store.connect(out, store.PATIENCE_SECONDS)
    experiment = store.experiment(client, out)
    rows: dict[str, Row] = {}
    (folder / "suites").mkdir()
    for run in store.search(client, experiment, f"tags.folder = '{_exported(client, experiment, out)}'"):
        kind, name = run_key(run)
        if "mirrored" not in run.data.tags:
            continue
        if kind == "suite":
            check_file_name(name, f"tag 'suite' of MLflow run {run.info.run_id}")
            client.download_artifacts(run.info.run_id, f"{name}.json", str(folder / "suites"))
            continue
        check_run_id(name)
        cell = folder / "cells" / name
        cell.mkdir(parents=True, exist_ok=True)
        rows[name] = _row(Path(client.download_artifacts(run.info.run_id, "row.json", str(cell))), name)
        if rows[name]["status"] in ("done", "diverged"):
            for artifact in ("result.json", "metrics.jsonl"):
                client.download_artifacts(run.info.run_id, artifact, str(cell))
    return rows


def _row(file: Path, run_id: str) -> Row:
    """The row of a cell as `sync` stored it. Raises SpecError where it is no row of this cell."""
    stored = read_json(file)
    if not isinstance(stored, dict) or not set(results.REQUIRED) <= set(stored) <= set(results.COLUMNS):
        raise SpecError(f"row.json of cell {run_id} does not have the columns of a results table")
    row = {**dict.fromkeys(results.COLUMNS, ""), **stored}
    if row["run_id"] != run_id or row["status"] not in results.STATUSES:
        raise SpecError(f"row.json of cell {run_id} is of cell {row['run_id']!r:.120}, {row['status']!r:.120}")
    results.check_row(row)
    for name in results.COLUMNS:
        number = name in results.MEASURED or name in ("alpha", "density_target", "seed")
        if not isinstance(row[name], (int, float) if number and row[name] != "" else str):
            raise SpecError(f"row.json of cell {run_id}: {name} is {row[name]!r:.120}")
    return row


def _exported(client: MlflowClient, experiment: str, out: Path) -> str:
    """The id of the folder to export: the one at `out`, else the only one in the store."""
    if (out / "folder-id").exists():
        return store.folder_id(out)
    parents = store.search(client, experiment, "tags.kind = 'suite'")
    folders = {run.data.tags["folder"]: run.data.tags["path"] for run in parents}
    if len(folders) == 1:
        return next(iter(folders))
    listed = ", ".join(f"{name} ({path})" for name, path in folders.items()) or "none"
    raise store.TrackingError(f"which run folder? Write one of these ids into {out / 'folder-id'}: {listed}")
