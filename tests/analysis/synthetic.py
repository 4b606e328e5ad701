"""Made-up results tables in the shape that `benchmark export` writes, for every status and model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmark import suites
from benchmark.results import COLUMNS, IDENTITY, pending_row
from benchmark.spec import Data, Model, Optimizer, from_dict

VGG = [f"conv{i}.weight" for i in range(1, 14)] + ["fc1.weight", "fc2.weight"]
SIZES = {name: 1000 * (i + 1) for i, name in enumerate(VGG)}


def cell(
    model: str, method: str, seed: int, *, dataset: str = "mnist", lr: float = 0.01, epochs: int = 20,
    protocol: str = "paper;official", status: str = "done", accuracy: float = 97.0, best: float = 98.0,
    kept: float = 0.05, kept_best: float = 0.08, departs: str = "", step_records: int | None = None,
    sections: Mapping[str, Mapping[str, Any]] = MappingProxyType({}), **hyperparameters: Any,
) -> dict[str, Any]:  # fmt: skip
    """One row of a cell as a suite makes it, so that it can hold no value that a method refuses.

    A dense row keeps every weight. sections: more fields of "data", "model" or "optimizer".
    """
    spec = suites.cell(
        method,
        data=Data(name=dataset, **sections.get("data", {})),
        model=Model(name=model, **sections.get("model", {})),
        optimizer=Optimizer(lr=lr, epochs=epochs, **sections.get("optimizer", {})),
        seed=seed,
        protocol=[name for name in protocol.split(";") if name],
        step_records=step_records,
        **{name: value for name, value in hyperparameters.items() if value is not None or name == "reset_density"},
    )
    kept, kept_best = (1.0, 1.0) if method == "dense" else (kept, kept_best)
    measured = {
        "epochs": epochs, "test_accuracy": accuracy, "best_test_accuracy": best, "density": kept,
        "density_at_best_test_accuracy": kept_best, "device": "cpu", "commit": "c0ffee",
    }  # fmt: skip
    known = pending_row(spec, (dataset,)) | {"status": status, "departs": departs}
    return known | (measured if status == "done" else {})


def method_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The method's part of a row's spec."""
    return dict(json.loads(row["spec"])["method"])


def changed(row: Mapping[str, Any], edit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The row with an edited spec, and the run id and columns that follow from it.

    The fields of a method are not checked: a plug-in's may be any.
    """
    tree = json.loads(row["spec"])
    edit(tree)
    protocol = [name for name in row["protocol"].split(";") if name]
    known = pending_row(from_dict(tree, protocol=protocol), (row["suite"],))
    return {**row, **{name: known[name] for name in (*IDENTITY, "spec") if name != "status"}}


def vgg16(seeds: Sequence[int] = (0, 1, 2)) -> list[dict[str, Any]]:
    rows = []
    for seed in seeds:
        rows.append(cell("vgg16", "dense", seed, dataset="cifar10", lr=0.1, epochs=160, accuracy=93.5, best=93.8))
        for alpha, kept in ((1e-6, 0.2), (5e-6, 0.088), (1e-5, 0.04)):
            rows.append(
                cell(
                    "vgg16",
                    "dst",
                    seed,
                    dataset="cifar10",
                    alpha=alpha,
                    lr=0.1,
                    epochs=160,
                    kept=kept,
                    kept_best=kept,
                    accuracy=93.0 + seed / 10,
                    best=93.5 + seed / 10,
                )
            )
    return rows


def traces(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ratios that fall by epoch, each layer at its own rate; the last comes back at epoch 80."""
    found = []
    for row in rows:
        for epoch in range(1, row["epochs"] + 1):
            values = {"density": float(row["density"]), "test_accuracy": 90 - 60 / epoch + 3 * (epoch > 80)}
            for i, name in enumerate(VGG):
                falling = 1 / (1 + i * (epoch + 2 * row["seed"]) / 40)
                values[f"density/{name}"] = 1.0 if row["method"] == "dense" else falling
            values |= {} if row["method"] == "dense" else {"density/fc2.weight": 0.1 if epoch <= 80 else 1.0}
            found += [
                {"run_id": row["run_id"], "epoch": epoch, "step": "", "name": k, "value": v} for k, v in values.items()
            ]
    return found


def layers(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"run_id": row["run_id"], "parameter": name, "weights": SIZES[name],
         "kept": int(SIZES[name] * min(1.0, row["density"] * (1 + (i * 7 + row["seed"]) % 9 / 2)))}
        for row in rows
        for i, name in enumerate(VGG)
    ]  # fmt: skip


def write(folder: Path, rows: Sequence[dict[str, Any]], *, vgg: bool = False) -> Path:
    """The folder, with results.csv, and traces.csv and layers.csv for rows of vgg16."""
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "results.csv", COLUMNS, rows)
    if vgg:
        save(folder / "traces.csv", ("run_id", "epoch", "step", "name", "value"), traces(rows))
        save(folder / "layers.csv", ("run_id", "parameter", "weights", "kept"), layers(rows))
    return folder


def save(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
