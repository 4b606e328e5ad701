"""Made-up tables that fill the exhibits which the paper lacks: MNIST, CIFAR-10, both protocols, compact networks."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import synthetic

MNIST_ALPHAS = {
    "lenet-300-100": (5e-4, 7.5e-4, 1e-3, 1.25e-3, 1.5e-3, 2e-3),
    "lenet-5-caffe": (2.5e-4, 5e-4, 7.5e-4, 1e-3, 1.5e-3),
    "lstm-a": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "lstm-b": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
}
PRINTED = {"lenet-300-100": 0.0248, "lenet-5-caffe": 0.0164, "lstm-a": 0.0193, "lstm-b": 0.0098}
CIFAR_ALPHAS = (1e-9, 1e-8, 1e-7, 1e-6, 5e-6, 1e-5, 5e-5, 1e-4)
WRN = [
    "conv1.weight",
    *(f"group{g}.{b}.{c}.weight" for g in (1, 2, 3) for b in (0, 1) for c in ("conv1", "conv2")),
    *(f"group{g}.0.shortcut.weight" for g in (1, 2, 3)),
    "fc.weight",
]
VGG_SIZES = [
    9 * i * o for i, o in [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), *[(256, 256)] * 2, (256, 512)]
] + [9 * 512 * 512] * 5
LAYERS = {
    "lenet-300-100": {"fc1.weight": 235_200, "fc2.weight": 30_000, "fc3.weight": 1_000},
    "lenet-5-caffe": {"conv1.weight": 500, "conv2.weight": 25_000, "fc3.weight": 400_000, "fc4.weight": 5_000},
    "lstm-a": {f"lstm.weight_{kind}_l{i}": 60_000 + 5_000 * i for i in (0, 1) for kind in ("ih", "hh")},
    "vgg16": dict(
        zip(
            [*(f"conv{i}.weight" for i in range(1, 14)), "fc1.weight", "fc2.weight"],
            [*VGG_SIZES, 512 * 512, 5120],
            strict=True,
        )
    ),
    "wrn-16-8": {name: 1000 * (i + 1) for i, name in enumerate(WRN)},
}
LAYERS["lstm-b"], LAYERS["wrn-28-8"] = LAYERS["lstm-a"], LAYERS["wrn-16-8"]
BASELINES = {"static": -1.6, "set": -0.8, "dsr": -0.7, "sparse_momentum": -0.2}


def full(seeds: Sequence[int] = (0, 1, 2)) -> list[dict[str, Any]]:
    """Every exhibit of ours filled, in both protocols where these differ."""
    return [row for seed in seeds for row in [*mnist(seed), *cifar(seed), *compact(seed)]]


def mnist(seed: int) -> list[dict[str, Any]]:
    rows = []
    for model, alphas in MNIST_ALPHAS.items():
        lstm = model.startswith("lstm")
        for protocol in ("paper", "official") if lstm else ("paper;official",):
            rows.append(cell(model, "dense", seed, protocol=protocol, accuracy=98.6))
            for alpha in alphas:
                kept = 0.0225 * (alpha / 1e-3) ** (-1.1 if lstm else -1.5)
                accuracy = 98.9 - 0.03 / kept
                rows.append(cell(model, "dst", seed, alpha=alpha, protocol=protocol, kept=kept, accuracy=accuracy))
        for density in (PRINTED[model], 0.05):
            for method, gap in BASELINES.items():
                accuracy = 98.4 + gap - 0.02 / density
                first = "paper" if lstm else "paper;official"
                rows.append(cell(model, method, seed, density=density, protocol=first, kept=density, accuracy=accuracy))
    return rows


def cifar(seed: int) -> list[dict[str, Any]]:
    rows = []
    for model in ("vgg16", "wrn-16-8", "wrn-28-8"):
        for protocol in ("paper", "official"):
            at: dict[str, Any] = {"dataset": "cifar10", "lr": 0.1, "epochs": 160, "protocol": protocol}
            rows.append(cell(model, "dense", seed, accuracy=94.5, **at))
            for alpha in CIFAR_ALPHAS:
                kept = min(0.98, 0.09 * (alpha / 5e-6) ** -0.55)
                rows.append(cell(model, "dst", seed, alpha=alpha, kept=kept, accuracy=94.8 - 0.02 / kept, **at))
        for density in (0.1, 0.05) if model != "wrn-28-8" else ():
            for method, gap in BASELINES.items():
                at = {"dataset": "cifar10", "lr": 0.1, "epochs": 160, "protocol": "paper"}
                rows.append(cell(model, method, seed, density=density, kept=density, accuracy=94 + gap, **at))
    return rows


def compact(seed: int) -> list[dict[str, Any]]:
    """Networks of the widths that `layers` below suggests for lenet-300-100 at alpha 1e-3, and the even ones."""
    return [
        cell("lenet-300-100", "dense", seed, protocol="", accuracy=accuracy, widths=widths)
        for widths, accuracy in (((7, 5), 95.5), ((7, 2), 94.0))
    ]


def cell(
    model: str, method: str, seed: int, *, kept: float = 1.0, accuracy: float = 97.0,
    widths: Sequence[int] | None = None, status: str = "done", **given: Any,
) -> dict[str, Any]:  # fmt: skip
    """A row with noise of its own, FLOPs, seconds and the authors' count."""
    noise = random.Random(f"{model} {method} {seed} {sorted(given.items())} {widths}")
    kept = min(1.0, kept * (1 + 0.05 * noise.gauss(0, 1)))
    sections: dict[str, dict[str, Any]] = {"model": {} if widths is None else {"widths": tuple(widths)}}
    if given.get("protocol") == "official":
        sections["data"] = {"standardize": True, "normalization": "official"}
        sections["model"]["initialization"] = "official-dense" if method == "dense" else "official-masked"
    row = synthetic.cell(
        model, method, seed, status=status, kept=kept, kept_best=min(1.0, 1.1 * kept),
        accuracy=accuracy + noise.gauss(0, 0.12), best=accuracy + 0.2, sections=sections, **given,
    )  # fmt: skip
    if status == "done":
        share = float(row["density"])
        dense = 3 * 532_400 * 60_000 * row["epochs"]
        slower = {"dense": 1.0, "dst": 1.6}.get(method, 1.05)
        row |= {
            "train_flops": dense * {"dense": 1.0, "dst": (1 + 2 * share) / 3}.get(method, share),
            "inference_flops": 532_400 * share, "train_cpu_seconds": 60 * slower * (1 + 0.1 * noise.random()),
            "density_as_authors_count": share * 0.8, "min_density": share, "parameters_remaining": 266_610 * share,
        }  # fmt: skip
    return row


def layers(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Later layers keep more of a few weights; each seed a little else, and the last conv and FC 1 the least."""
    found = []
    for row in rows:
        if row["status"] != "done" or json.loads(row["spec"])["model"].get("widths"):
            continue
        noise = random.Random(_name(row))
        sizes = LAYERS[row["model"]]
        for i, (name, weights) in enumerate(sizes.items()):
            share = float(row["density"]) * (0.9 + 0.25 * ((5 * i) % 7)) * (1 + 0.15 * noise.gauss(0, 1))
            share = 1.0 if row["method"] == "dense" else min(1.0, max(0.001, share))
            found.append(
                {"run_id": row["run_id"], "parameter": name, "weights": weights, "kept": round(share * weights)}
            )
    return found


def _name(row: dict[str, Any]) -> str:
    """What makes its noise."""
    alpha, density = (None if row[name] == "" else row[name] for name in ("alpha", "density_target"))
    lr = json.loads(row["spec"])["optimizer"]["lr"]
    parts = (row["model"], row["method"], alpha, density, lr, row["seed"], row["protocol"], row["departs"])
    return "-".join(str(part) for part in parts if part != "")


def write(folder: Path, rows: Sequence[dict[str, Any]], *, with_layers: bool = True) -> Path:
    synthetic.write(folder, rows)
    if with_layers:
        synthetic.save(folder / "layers.csv", ("run_id", "parameter", "weights", "kept"), layers(rows))
    return folder


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))
