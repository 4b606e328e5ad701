"""The best set-ups of the suite `gap`, on LeNet-5-Caffe and LSTM-a (docs/gap.md).

A set-up changes the network's own cell of Table 1: its inputs, its estimator, and its alpha and
epochs by a factor.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from benchmark.spec import Model, Optimizer, RunSpec
from benchmark.suites import BOTH_PROTOCOLS, cell, mnist

DESCRIPTION = "the set-ups that explain LeNet-300-100's density best, on LeNet-5-Caffe and LSTM-a"
EXHIBITS = ("gap-networks",)
SEEDS = range(5)
NETWORKS: dict[str, tuple[Optimizer, float]] = {
    "lenet-5-caffe": (mnist.SGD, mnist.LENET_ALPHA),
    "lstm-a": (mnist.ADAM, mnist.LSTM_ALPHA),
}
PROTOCOLS = {"lenet-5-caffe": BOTH_PROTOCOLS, "lstm-a": ("paper",)}


@dataclass(frozen=True)
class SetUp:
    """What differs from a network's cell of Table 1. alpha, epochs: factors."""

    standardize: bool = False
    estimator: str = "long_tailed"
    alpha: int = 1
    epochs: int = 1


CANDIDATES = (
    SetUp(standardize=True, estimator="straight_through"),
    SetUp(estimator="straight_through", epochs=2),
    SetUp(alpha=2),
)


def suite() -> list[RunSpec]:
    return [
        spec for seed in SEEDS for candidate in CANDIDATES for name in NETWORKS for spec in pair(candidate, name, seed)
    ]


def pair(candidate: SetUp, name: str, seed: int) -> list[RunSpec]:
    """The dense twin and DST; the cells of `mnist` where it has them."""
    own, alpha = NETWORKS[name]
    data = dataclasses.replace(mnist.MNIST, standardize=candidate.standardize)
    optimizer = dataclasses.replace(own, epochs=candidate.epochs * own.epochs)
    protocol = () if (data, optimizer) != (mnist.MNIST, own) else PROTOCOLS[name]
    dst: dict[str, Any] = {"alpha": candidate.alpha * alpha, "estimator": candidate.estimator}
    return [
        cell(
            method,
            data=data,
            model=Model(name=name),
            optimizer=optimizer,
            seed=seed,
            protocol=protocol,
            **(dst if method == "dst" else {}),
        )
        for method in ("dense", "dst")
    ]
