"""Equation 3's long-tailed estimator of the step's derivative against the straight-through one
(Figure 2).

At A.1's alpha of each model and at twice that, as the estimators may leave different densities at
one alpha.
"""

from __future__ import annotations

from typing import Any

from benchmark.spec import RunSpec
from benchmark.suites import cifar10, mnist

DESCRIPTION = "the long-tailed estimator against the straight-through one: LeNets, LSTM-a and VGG-16, two alphas each"
EXHIBITS = ("estimators",)
SEEDS = range(3)
ALPHAS = {
    "lenet-300-100": (mnist.LENET_ALPHA, 1e-3),
    "lenet-5-caffe": (mnist.LENET_ALPHA, 1e-3),
    "lstm-a": (mnist.LSTM_ALPHA, 2e-3),
    "vgg16": (cifar10.ALPHA, 1e-5),
}
OTHER = {"estimator": "straight_through"}


def suite() -> list[RunSpec]:
    """The long-tailed cells are those of `mnist` and `cifar10`."""
    return [
        dst(name, seed, alpha=alpha, **estimator)
        for seed in SEEDS
        for name, alphas in ALPHAS.items()
        for alpha in alphas
        for estimator in ({}, OTHER)
    ]


def dst(name: str, seed: int, **hyperparameters: Any) -> RunSpec:
    if name in mnist.LSTMS:
        return mnist.lstm(name, "dst", "paper", seed, **hyperparameters)
    make = mnist.lenet if name in mnist.LENETS else cifar10.by_paper
    return make(name, "dst", seed, **hyperparameters)
