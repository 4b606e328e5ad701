"""A large made-up set of results, for what a build needs of memory: cells of the suites' shape, with traces.

python tests/analysis/synthetic_scale.py FOLDER [CELLS [EPOCHS]]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import synthetic

MODELS = {"lenet-300-100": ("mnist", 3, 0.01), "lenet-5-caffe": ("mnist", 4, 0.01), "vgg16": ("cifar10", 15, 0.1)}
METHODS = ("dense", "dst", "static", "set", "dsr", "sparse_momentum")
ONCE = ("density", "lr", "mask_flips", "nonzero_density", "test_accuracy", "test_loss", "train_loss", "train_seconds")


def write(folder: Path, *, cells: int, epochs: int) -> Path:
    """The folder with results.csv, traces.csv and layers.csv of so many cells."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row(number, epochs) for number in range(cells)]
    synthetic.save(folder / "results.csv", synthetic.COLUMNS, rows)
    with (folder / "traces.csv").open("w") as traces, (folder / "layers.csv").open("w") as layers:
        traces.write("run_id,epoch,step,name,value\n")
        layers.write("run_id,parameter,weights,kept\n")
        for number, made in enumerate(rows):
            traces.write(trace(made, number, epochs))
            layers.write(
                "".join(f"{made['run_id']},{name},1000,{100 + i}\n" for i, name in enumerate(parameters(made)))
            )
    return folder


def row(number: int, epochs: int) -> dict[str, Any]:
    """Seeds turn fastest, then methods, models, and last the alpha or density: a ladder as long as it takes."""
    seed, place = number % 5, number // 5
    method, place = METHODS[place % len(METHODS)], place // len(METHODS)
    model, rung = list(MODELS)[place % len(MODELS)], place // len(MODELS)
    dataset, _, lr = MODELS[model]
    value = 5e-6 * (1 + rung)
    chosen: dict[str, Any] = {"alpha": value} if method == "dst" else {"density": min(1.0, value * 1e4)}
    if chosen.get("density") == 1.0 and method != "dense":  # the end of the ladder, which more rungs share
        chosen["sections"] = {"data": {"test_limit": rung}}
    sizes = {"dataset": dataset, "lr": lr + (rung * 1e-9 if method == "dense" else 0), "epochs": epochs}
    return synthetic.cell(
        model, method, seed, accuracy=90 + number % 70 / 10, **sizes, **({} if method == "dense" else chosen)
    )


def parameters(made: dict[str, Any]) -> list[str]:
    layers = MODELS[made["model"]][1]
    return synthetic.VGG if layers == 15 else [f"fc{i + 1}.weight" for i in range(layers)]


def trace(made: dict[str, Any], number: int, epochs: int) -> str:
    names = [*ONCE, *(f"density/{name}" for name in parameters(made))]
    values = np.random.default_rng(number).random((epochs, len(names)))
    lines = [
        f"{made['run_id']},{epoch + 1},,{name},{values[epoch, at]!r}\n"
        for epoch in range(epochs)
        for at, name in enumerate(names)
    ]
    return "".join(lines).replace("np.float64(", "").replace(")", "")


if __name__ == "__main__":
    where, *sizes = sys.argv[1:]
    counts = [int(size) for size in sizes]
    write(Path(where), cells=(counts or [10_000])[0], epochs=(*counts, 20)[1] if len(counts) > 1 else 20)
