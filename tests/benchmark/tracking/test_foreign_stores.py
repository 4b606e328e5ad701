"""MLflow stores that somebody else wrote or damaged: refused in one line, and nothing is written elsewhere."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from grids import Bench, Finished, Grid

from benchmark.tracking import store

pytest.importorskip("mlflow")
from mirrors import TABLES, client, copy, export_from_mlflow, runs

UP = "../../../../../.."


def mirrored(tracked: Grid, folder: Path, bench: Bench) -> Grid:
    """The same cells in a folder with a store of its own."""
    grid = copy(tracked, folder)
    assert bench("sync", "--out", grid.out).code == 0
    return grid


def refused(done: Finished, said: str) -> None:
    """One line on standard error, and the exit code of trouble with MLflow."""
    assert done.code == 1
    assert said in done.error
    assert len(done.error.strip().splitlines()) == 1


def test_a_tag_that_is_a_path_is_refused_and_nothing_is_written_there(
    tracked: Grid, bench: Bench, tmp_path: Path
) -> None:
    grid, escape = mirrored(tracked, tmp_path, bench), tmp_path / "escape"
    escape.mkdir()
    for kind, tag, below in (
        ("cell", "run_id", ""),
        ("cell", "kind", UP),
        ("suite", "suite", UP),
        ("suite", "kind", ""),
    ):
        run = runs(grid.out, f"tags.kind = '{kind}'")[0]
        client(grid.out).set_tag(run.info.run_id, tag, f"{below}{escape}/x")
        refused(bench("export", "--from", "mlflow", "--out", grid.out, "--to", tmp_path / "to"), ": it must be ")
        assert not list(escape.iterdir())
        assert not (tmp_path / "to").exists()
        client(grid.out).set_tag(run.info.run_id, tag, run.data.tags[tag])
    export_from_mlflow(bench, grid.out, tmp_path / "to")


def test_a_row_of_the_store_that_is_not_its_cells_is_refused(tracked: Grid, bench: Bench, tmp_path: Path) -> None:
    grid = mirrored(tracked, tmp_path, bench)
    (run, *_) = runs(grid.out, "tags.status = 'done' and tags.seed = '0'")
    file = grid.out / "mlartifacts" / run.info.run_id / "artifacts" / "row.json"
    row = json.loads(file.read_text())
    changes: list[tuple[dict[str, Any], str]] = [
        ({"run_id": "../x"}, "is of cell '../x', 'done'"),
        ({"seed": 77}, "seed is 77, but its spec says 0"),
        ({"dataset": "../x"}, "dataset is '../x', but its spec says 'synthetic'"),
        ({"spec": "{}"}, "spec is no JSON of a cell"),
        ({"status": "ready"}, "'ready'"),
        ({"test_accuracy": "high"}, "test_accuracy is 'high'"),
        ({"device": ["cpu"]}, "device is ['cpu']"),
        ({"price": 1}, "does not have the columns of a results table"),
    ]
    for changed, said in changes:
        file.write_text(json.dumps(row | changed))
        refused(bench("export", "--from", "mlflow", "--out", grid.out, "--to", tmp_path / "to"), said)
        assert not (tmp_path / "to").exists()
    file.write_text(json.dumps({name: value for name, value in row.items() if name != "weight_max"}))
    export_from_mlflow(bench, grid.out, tmp_path / "to")  # as an earlier version stored it


def test_an_export_into_a_folder_with_a_foreign_table_leaves_it_as_it_is(
    tracked: Grid, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a store of its own, --out need be no run folder: it only has to name one."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.store_uri(tracked.out))
    for name in TABLES:
        out = tmp_path / name
        out.mkdir()
        shutil.copy(tracked.out / "folder-id", out)
        (out / name).write_text("date,price\n2026-01-01,3\n")
        done = bench("export", "--from", "mlflow", "--out", out)
        assert (done.code, done.error.strip()) == (
            2,
            f"error: {out / name} is no table of ours: it has no column 'run_id'",
        )
        assert {path.name for path in out.iterdir()} == {"folder-id", name}
        assert (out / name).read_text() == "date,price\n2026-01-01,3\n"
        (out / name).unlink()
        assert bench("export", "--from", "mlflow", "--out", out).code == 0
        assert (out / name).read_bytes() == (tracked.out / name).read_bytes()


def test_a_store_that_keeps_artifacts_elsewhere_is_refused_and_nothing_is_written_there(
    tracked: Grid, bench: Bench, tmp_path: Path
) -> None:
    grid, escape = mirrored(tracked, tmp_path, bench), tmp_path / "escape"
    client(grid.out).set_tag(runs(grid.out, "tags.kind = 'cell'")[0].info.run_id, "mirrored", "again")
    with contextlib.closing(sqlite3.connect(grid.out / "mlflow.db")) as database:
        database.execute("UPDATE runs SET artifact_uri = ?", [escape.as_uri()])
        database.commit()
    for verb in (("sync",), ("export", "--from", "mlflow")):
        refused(bench(*verb, "--out", grid.out), f"keeps its artifacts in '{escape.as_uri()}'")
        assert not escape.exists()


def test_a_folder_where_the_database_should_be_is_refused_before_mlflow_is_asked(
    bench: Bench, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = grid.copy(tmp_path / "runs").out
    (out / "mlflow.db").unlink(missing_ok=True)
    (out / "mlflow.db").mkdir()
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)  # an import would be an error
    finished = bench("sync", "--out", out)
    assert finished.code == 1
    assert f"{out / 'mlflow.db'}: a folder lies where the database file should be: move it away" in finished.error
