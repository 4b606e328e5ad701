"""Made-up results of cells that suites train: their specs, run ids and rows are the bench's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.results import COLUMNS, LAYERS, TRACES, pending_row, write_csv
from benchmark.spec import RunSpec

Row = dict[str, Any]


def done(spec: RunSpec, *, accuracy: float, density: float = 1.0, **measured: Any) -> Row:
    """The row of a finished cell; by default it ends at its best accuracy and its lowest density."""
    return pending_row(spec, ["made-up"]) | {
        "status": "done", "epochs": spec.optimizer.epochs, "test_accuracy": accuracy, "best_test_accuracy": accuracy,
        "density": density, "density_at_best_test_accuracy": density, "min_density": density,
        "test_accuracy_at_min_density": accuracy, "threshold_resets": 0, "device": "made-up", "commit": "c0ffee",
        **measured,
    }  # fmt: skip


def records(row: Row, values: Mapping[str, Sequence[float]]) -> list[Row]:
    """Rows of traces.csv: for each name one value per epoch."""
    return [
        {"run_id": row["run_id"], "epoch": epoch, "step": None, "name": name, "value": value}
        for name, found in values.items()
        for epoch, value in enumerate(found, start=1)
    ]


def layers(row: Row, kept: Mapping[str, tuple[int, int]]) -> list[Row]:
    """Rows of layers.csv. kept: parameter -> (weights, those kept)."""
    return [
        {"run_id": row["run_id"], "parameter": name, "weights": weights, "kept": share}
        for name, (weights, share) in kept.items()
    ]


def write(folder: Path, rows: Iterable[Row], *, traces: Iterable[Row] = (), layers: Iterable[Row] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "results.csv", COLUMNS, list(rows))
    write_csv(folder / "traces.csv", TRACES, list(traces))
    write_csv(folder / "layers.csv", LAYERS, list(layers))
    return folder
