"""Run folders mirrored to MLflow, and what MLflow has of them, for the tests of `benchmark.tracking`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from grids import Bench, Finished, Grid, finish, start
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from benchmark import results
from benchmark.run_folder.attempts import folder_of, numbers
from benchmark.spec import fields
from benchmark.tracking import store

TABLES = ("results.csv", "traces.csv", "layers.csv")


def run(suite: str, out: Path, *arguments: str, uri: str | None = None) -> Finished:
    """The command as people give it, with the mirror on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BENCH_NO_MLFLOW", raising=False)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        if uri is not None:
            patch.setenv("MLFLOW_TRACKING_URI", uri)
        return finish(start("run", "--suite", suite, "--out", out, "--workers", "1", *arguments))


def client(out: Path) -> MlflowClient:
    return MlflowClient(store.store_uri(out))


def runs(out: Path, condition: str = "") -> list[Run]:
    """The folder's runs in MLflow."""
    found = client(out)
    experiment = found.get_experiment_by_name(store.EXPERIMENT)
    folder = (out / "folder-id").read_text()
    wanted = " and ".join(filter(None, [f"tags.folder = '{folder}'", condition]))
    return list(found.search_runs([experiment.experiment_id], wanted))


def contents(out: Path) -> dict[str, Any]:
    """Everything that MLflow has of a folder: name -> tags, params, parent and every point of every metric."""
    found = client(out)
    names = {r.info.run_id: r.data.tags.get("run_id", r.info.run_name) for r in runs(out)}
    assert len(set(names.values())) == len(names), "a cell has two runs"
    return {
        names[r.info.run_id]: {
            "status": r.info.status,
            "params": r.data.params,
            "tags": {n: v for n, v in r.data.tags.items() if n not in ("folder", "path", "mlflow.parentRunId")},
            "parent": names.get(r.data.tags.get("mlflow.parentRunId", "")),
            "metrics": {
                name: [(m.step, m.timestamp - r.info.start_time, m.value) for m in history(found, r, name)]
                for name in r.data.metrics
            },
            "artifacts": sorted(file.path for file in found.list_artifacts(r.info.run_id)),
        }
        for r in runs(out)
    }


def history(found: MlflowClient, of: Run, name: str) -> list[Any]:
    return sorted(found.get_metric_history(of.info.run_id, name), key=lambda point: point.step)


def check_mirror(out: Path) -> None:
    """Every record on disk is in MLflow exactly once, with its cell's parameters, tags and files."""
    mirrored = contents(out)
    for run_id, member in results.members(out).items():
        row, seen, cell = results.row(out, member), mirrored[run_id], out / "cells" / run_id
        assert seen["params"] == {
            **{n: str(v) for n, v in fields(member.spec).items() if v is not None and n not in results.MEMBERSHIPS},
            **({"alpha": str(row["alpha"])} if row["alpha"] != "" else {}),
        }
        for name in ("run_id", "suite", "model", "method", "dataset", "seed", "alpha", "density_target", "status"):
            assert seen["tags"][name] == str(row[name])
        assert seen["parent"] == member.suites[0]
        assert {"spec.json", "environment.json", "metrics.jsonl", "row.json"} <= set(seen["artifacts"])
        assert ("result.json" in seen["artifacts"]) == (row["status"] in ("done", "diverged"))
        source = cell if row["status"] != "failed" else folder_of(cell, numbers(cell)[-1])
        wanted: dict[str, list[tuple[int, float]]] = {}
        for line in (source / "metrics.jsonl").read_text().splitlines():
            record = json.loads(line)
            prefix, step = ("", record["epoch"]) if "train_seconds" in record else ("step/", record["step"])
            for name, value in record.items():
                if name not in ("epoch", "step", "diverged") and value is not None:
                    wanted.setdefault(prefix + name, []).append((step, value))
        points = {name: [(step, value) for step, _, value in found] for name, found in seen["metrics"].items()}
        assert {name: points[name] for name in wanted} == wanted
        assert set(points) - set(wanted) <= set(results.MEASURED)


def export_from_mlflow(bench: Bench, out: Path, to: Path) -> None:
    assert bench("export", "--from", "mlflow", "--out", out, "--to", to).code == 0


def copy(tracked: Grid, folder: Path) -> Grid:
    """The same cells in another folder that MLflow has never seen."""
    grid = tracked.copy(folder / "runs")
    for name in ("mlartifacts", ".mlflow-sync"):
        shutil.rmtree(grid.out / name)
    for name in ("mlflow.db", "folder-id"):
        (grid.out / name).unlink()
    return grid
