"""The default suite: every model and this package's methods on scikit-learn's digits, embedded.

A new method needs one line here, in OTHERS.
"""

from __future__ import annotations

from typing import Any

import methods
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell

DESCRIPTION = "all methods on a small model, six of them on all four, on embedded digits: minutes, no download"
EXHIBITS = ("digits",)
SEEDS = range(3)
DIGITS = Data(name="digits")
OPTIMIZERS_AND_ALPHAS = {
    "lenet-300-100": (Optimizer(name="sgd", lr=0.02, momentum=0.9, batch_size=64, epochs=15), 5e-3),
    "lenet-5-caffe": (Optimizer(name="sgd", lr=0.05, momentum=0.9, batch_size=64, epochs=8), 1e-3),
    "lstm-a": (Optimizer(name="adam", lr=0.005, batch_size=100, epochs=4), 2e-3),
    "lstm-b": (Optimizer(name="adam", lr=0.005, batch_size=100, epochs=3), 2e-3),
}
DENSITY = 0.1
UPDATE_EVERY = "5 steps"  # an epoch has 23, or 15: methods that drop and grow get some rounds
METHODS = ("dense", "dsr", "dst", "set", "sparse_momentum", "static")  # on every model, with SEEDS
OTHER_MODEL = "lenet-300-100"
# On OTHER_MODEL only, with the first seed: each method with the hyperparameters that it needs beside `_given`.
OTHERS: dict[str, dict[str, Any]] = {
    "acdc": {},
    "deep_r": {},
    "dns": {},
    "gradual": {},
    "granet": {},
    "grasp": {},
    "l1_filters": {},
    "lottery": {"prune_fraction": 0.7},
    "narang": {},
    "obd": {},
    "prune_finetune": {},
    "rigl": {},
    "snip": {},
    "soft_filter": {},
    "str": {"threshold_weight_decay": 0.07},
    "synflow": {},
    "taylor": {},
    "top_kast": {},
    "variational_dropout": {"train_examples": 20000},  # with the true number, 1437, it prunes everything
}


def suite() -> list[RunSpec]:
    """The cells. Methods have DENSITY, except those without a hyperparameter `density`."""
    return [
        _cell(method, model, seed)
        for seed in SEEDS
        for model in OPTIMIZERS_AND_ALPHAS
        for method in (*METHODS, *(OTHERS if (model, seed) == (OTHER_MODEL, SEEDS[0]) else ()))
    ]


def _cell(method: str, model: str, seed: int) -> RunSpec:
    optimizer, alpha = OPTIMIZERS_AND_ALPHAS[model]
    given = _given(method, alpha) | OTHERS.get(method, {})
    return cell(method, data=DIGITS, model=Model(name=model), optimizer=optimizer, seed=seed, protocol=(), **given)


def _given(method: str, alpha: float) -> dict[str, Any]:
    """The hyperparameters of this suite that a method has."""
    names = methods.create(method).hyperparameters()
    wanted = {"alpha": alpha, "density": DENSITY, "update_every": UPDATE_EVERY}
    return {name: value for name, value in wanted.items() if name in names}
