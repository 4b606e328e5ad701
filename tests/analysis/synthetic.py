"""Made-up results tables in the shape that `benchmark export` writes, for every status and model."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmark.results import COLUMNS
from benchmark.spec import from_dict

VGG = [f"conv{i}.weight" for i in range(1, 14)] + ["fc1.weight", "fc2.weight"]
SIZES = {name: 1000 * (i + 1) for i, name in enumerate(VGG)}


def cell(
    model: str, method: str, seed: int, *, dataset: str = "mnist", alpha: float | None = None,
    density: float | None = None, lr: float = 0.01, epochs: int = 20, protocol: str = "paper;official",
    status: str = "done", accuracy: float = 97.0, best: float = 98.0, kept: float = 0.05, kept_best: float = 0.08,
    departs: str = "",
) -> dict[str, Any]:  # fmt: skip
    """One row; a dense one keeps every weight."""
    spec: dict[str, Any] = {"data": {"name": dataset}, "model": {"name": model}, "seed": seed, "precision": "float32"}
    spec["method"] = {"name": method, "version": 1} | ({} if alpha is None else {"alpha": alpha})
    spec["optimizer"] = {"name": "sgd", "lr": lr, "epochs": epochs}
    spec |= {} if density is None else {"density": density}
    kept, kept_best = (1.0, 1.0) if method == "dense" else (kept, kept_best)
    measured = {
        "epochs": epochs, "test_accuracy": accuracy, "best_test_accuracy": best, "density": kept,
        "density_at_best_test_accuracy": kept_best, "device": "cpu", "commit": "c0ffee",
    }  # fmt: skip
    known = {
        "suite": dataset, "dataset": dataset, "model": model, "method": method, "alpha": alpha,
        "density_target": density, "seed": seed, "protocol": protocol, "status": status, "departs": departs,
    }  # fmt: skip
    filled = {**dict.fromkeys(COLUMNS, ""), **known, **(measured if status == "done" else {})}
    return with_spec({key: "" if value is None else value for key, value in filled.items()}, spec)


def with_spec(row: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """The row with this spec, fields left out at their defaults, and the run id that follows from it."""
    spec = from_dict(tree)
    return row | {"spec": spec.canonical_json, "run_id": spec.run_id}


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
