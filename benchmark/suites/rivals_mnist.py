"""Rivals' published numbers on MNIST, in the protocol of sparse momentum's code (docs/protocols.md).

Two protocols: `rivals` is the published one, 100 epochs, about 28 core-hours. `rivals-short` is a
quarter of it at three densities, about one core-hour: `--where protocol=rivals-short`. The same
densities of the published protocol take four, with LeNet-5-Caffe at one seed; the page has the two
commands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell

DESCRIPTION = "rivals' published numbers on MNIST: LeNets with sparse momentum; a normalised MLP with its rivals too"
EXHIBITS = ("rivals-mnist",)
SEEDS = range(3)
MNIST = Data(name="mnist", standardize=True, train_limit=54_000)  # 10 % are held out and not used
SGD = Optimizer(
    name="sgd",
    lr=0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    batch_size=100,
    epochs=100,
    schedule="step",
    milestones=(46, 93),  # after 25,000 and 50,000 steps of 540 per epoch, to the nearest epoch
    gamma=0.1,
)
SHORT = dataclasses.replace(SGD, epochs=25, milestones=(12, 23))
SHORT_DENSITIES = (0.01, 0.02, 0.05)
# Each network with its published densities: MNIST_compression_comparison_*.csv, MNIST_sparse_summary.csv.
DENSITIES = {
    "lenet-300-100": (0.01, 0.015, 0.018, 0.02, 0.044, 0.05, 0.08, 0.083),
    "lenet-5-caffe": (0.004, 0.005, 0.009, 0.01, 0.02, 0.05, 0.08, 0.093),
    "mlp-300-100-bn": (0.01, 0.02, 0.03, 0.04, 0.05, 0.1),
}
SPARSE_MOMENTUM: dict[str, dict[str, Any]] = {"sparse_momentum": {"allocation": "uniform"}}  # as its authors start
ALL: dict[str, dict[str, Any]] = {
    **SPARSE_MOMENTUM,
    "dsr": {"allocation": "uniform"},  # the same density everywhere, as its authors start
    "set": {},  # Erdos-Renyi, its equation 1
    "deep_r": {"allocation": "uniform"},  # the table does not say; it keeps each layer's count
}
METHODS = {"lenet-300-100": SPARSE_MOMENTUM, "lenet-5-caffe": SPARSE_MOMENTUM, "mlp-300-100-bn": ALL}
ONE_SHORT_SEED = ("lenet-5-caffe",)  # it takes 8 minutes for 25 epochs on one core, the others less than one


def suite() -> list[RunSpec]:
    return [spec for seed in SEEDS for spec in [*short(seed), *published(seed)]]


def published(seed: int) -> list[RunSpec]:
    return [spec for name in DENSITIES for spec in network(name, DENSITIES[name], SGD, "rivals", seed)]


def short(seed: int) -> list[RunSpec]:
    names = [name for name in DENSITIES if seed == SEEDS[0] or name not in ONE_SHORT_SEED]
    return [spec for name in names for spec in network(name, SHORT_DENSITIES, SHORT, "rivals-short", seed)]


def network(name: str, densities: Iterable[float], optimizer: Optimizer, protocol: str, seed: int) -> list[RunSpec]:
    """The dense network, and each method at each density."""
    given: dict[str, Any] = {
        "data": MNIST, "model": Model(name=name), "optimizer": optimizer, "seed": seed, "protocol": (protocol,)
    }  # fmt: skip
    dense = cell("dense", **given)
    return [
        dense,
        *(cell(m, density=d, **METHODS[name][m], **given) for d in densities for m in METHODS[name]),
    ]
