"""Made-up tables that fill every figure of the paper: the LeNets, VGG-16 and the WRNs, traces and layers with them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import synthetic

Row = dict[str, Any]
ALPHAS = (1e-9, 1e-8, 1e-7, 1e-6, 5e-6, 1e-5, 5e-5, 1e-4)
PATTERN_ALPHAS = (1e-6, 5e-6, 1e-5)
TRACED = (5e-6, 1e-5, 5e-4)
STEPS = 938


def vgg16_layers() -> dict[str, int]:
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    pairs = enumerate(itertools.pairwise(widths), start=1)
    return {f"conv{i}.weight": 9 * a * b for i, (a, b) in pairs} | {"fc1.weight": 512 * 512, "fc2.weight": 5120}


def wrn_layers(depth: int, width: int) -> dict[str, int]:
    found, c_in = {"conv1.weight": 3 * 16 * 9}, 16
    for group, c_out in enumerate((16 * width, 32 * width, 64 * width), start=1):
        for block in range((depth - 4) // 6):
            found[f"group{group}.{block}.conv1.weight"] = 9 * c_in * c_out
            found[f"group{group}.{block}.conv2.weight"] = 9 * c_out * c_out
            if block == 0:
                found[f"group{group}.{block}.shortcut.weight"] = c_in * c_out
            c_in = c_out
    return found | {"fc.weight": 10 * c_in}


LAYERS = {
    "lenet-300-100": {"fc1.weight": 235_200, "fc2.weight": 30_000, "fc3.weight": 1_000},
    "lenet-5-caffe": {"conv1.weight": 500, "conv2.weight": 25_000, "fc1.weight": 400_000, "fc2.weight": 5_000},
    "vgg16": vgg16_layers(),
    "wrn-16-8": wrn_layers(16, 8),
    "wrn-16-10": wrn_layers(16, 10),
    "wrn-28-8": wrn_layers(28, 8),
}


def cifar10(seeds: Sequence[int] = (0, 1, 2)) -> list[Row]:
    """The paper's protocol of the suite cifar10, without the baselines."""
    rows = []
    for seed in seeds:
        for model in ("vgg16", "wrn-16-8", "wrn-28-8", "wrn-16-10"):
            alphas = PATTERN_ALPHAS if model == "wrn-16-10" else ALPHAS
            rows += [_cifar10(model, None, seed, 0.1), *(_cifar10(model, alpha, seed, 0.1) for alpha in alphas)]
        rows += [_cifar10("vgg16", None, seed, 0.01), _cifar10("vgg16", 5e-6, seed, 0.01)]
    return rows


def _cifar10(model: str, alpha: float | None, seed: int, lr: float) -> Row:
    kept = 1.0 if alpha is None else _kept(alpha, 5e-7)
    best = 93.5 + (model != "vgg16") * 1.5 + seed % 10 / 10 - (0 if alpha is None else max(0.0, 0.05 - kept) * 60)
    method = "dense" if alpha is None else "dst"
    given = {"alpha": alpha, "lr": lr, "epochs": 160, "protocol": "paper", "kept": kept, "kept_best": kept}
    decayed = {"optimizer": {"schedule": "step", "milestones": (80, 120), "gamma": 0.1}}
    return synthetic.cell(
        model, method, seed, dataset="cifar10", accuracy=best - 0.2, best=best, sections=decayed, **given
    )


def mnist(seeds: Sequence[int] = (0, 1, 2)) -> list[Row]:
    rows = []
    for seed in seeds:
        for model in ("lenet-300-100", "lenet-5-caffe"):
            rows.append(synthetic.cell(model, "dense", seed, accuracy=98.2, best=98.3 + seed % 10 / 50))
            for alpha in (5e-4, 1e-3, 2e-3):
                kept = _kept(alpha, 5e-5)
                given = {"alpha": alpha, "kept": kept, "kept_best": kept, "best": 98 - alpha * 300 + seed % 10 / 20}
                rows.append(synthetic.cell(model, "dst", seed, accuracy=97.5, **given))
    return rows


def _kept(alpha: float, half: float) -> float:
    return 1 / (1 + alpha / half)


def traces(rows: Sequence[Row]) -> Iterator[Row]:
    """Of dense cells the accuracy, of DST at the alphas of the curves every layer's ratio too."""
    for row in rows:
        if row["status"] == "done" and (row["method"] == "dense" or row["alpha"] in TRACED):
            for epoch in range(1, row["epochs"] + 1):
                yield _record(
                    row,
                    epoch,
                    "",
                    "test_accuracy",
                    row["test_accuracy"] - 8 / epoch - 4 * (epoch <= 80 < row["epochs"]),
                )
                if row["method"] != "dense":
                    yield from _ratios(row, epoch, "", epoch / row["epochs"])
            if (row["model"], row["alpha"]) == ("lenet-300-100", 5e-4):
                for step in range(1, STEPS + 1):
                    yield from _ratios(row, 1, step, step / STEPS / 20)


def _ratios(row: Row, epoch: int, step: int | str, share: float) -> Iterator[Row]:
    layers = LAYERS[row["model"]]
    ratios = {}
    for i, name in enumerate(layers):
        end = _layer_kept(row, i)
        falling = end + (1 - end) * math.exp(-6 * share)
        wave = 0.01 * math.sin(int(step) / 4) * math.exp(-int(step) / 50) if step else 0.0
        ratios[name] = min(1.0, falling + wave)
    output = list(layers)[-1]
    ratios[output] = 1.0 if row["dataset"] == "mnist" or epoch > 80 else 0.1 + row["seed"] % 10 / 50
    yield _record(row, epoch, step, "density", sum(ratios[n] * w for n, w in layers.items()) / sum(layers.values()))
    for name, ratio in ratios.items():
        yield _record(row, epoch, step, f"density/{name}", ratio)


def _layer_kept(row: Row, position: int) -> float:
    return float(min(1.0, row["density"] * (0.3 + (position * 7 % 9 + row["seed"] % 10 / 5) / 4)))


def _record(row: Row, epoch: int, step: int | str, name: str, value: float) -> Row:
    return {"run_id": row["run_id"], "epoch": epoch, "step": step, "name": name, "value": value}


def layers(rows: Sequence[Row]) -> list[Row]:
    return [
        {"run_id": row["run_id"], "parameter": name, "weights": weights,
         "kept": weights if row["method"] == "dense" else int(weights * _layer_kept(row, i))}
        for row in rows
        if row["status"] == "done"
        for i, (name, weights) in enumerate(LAYERS[row["model"]].items())
    ]  # fmt: skip


def write(folder: Path, rows: Sequence[Row]) -> Path:
    """The folder with results.csv, traces.csv and layers.csv of the rows."""
    synthetic.write(folder, rows)
    synthetic.save(folder / "traces.csv", ("run_id", "epoch", "step", "name", "value"), traces(rows))
    synthetic.save(folder / "layers.csv", ("run_id", "parameter", "weights", "kept"), layers(rows))
    return folder
