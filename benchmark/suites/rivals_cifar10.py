"""Rivals' published numbers on CIFAR-10: two thin wide residual networks. Defined, not run.

WRN-28-2 is the network of sparse momentum's comparison with DSR, SET and DEEP-R, WRN-22-2 that of
RigL's (docs/protocols.md).
"""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmark.spec import Data, Model, RunSpec
from benchmark.suites import cell, rivals_mnist

DESCRIPTION = "rivals' published numbers on CIFAR-10: WRN-28-2 (sparse momentum's) and WRN-22-2 (RigL's)"
EXHIBITS = ("rivals-cifar10",)
SEEDS = range(3)
# 10 % are held out and not used; sparse momentum's code has the normalisation of DST's.
CIFAR10 = Data(name="cifar10", standardize=True, normalization="official", augment="crop-flip", train_limit=45_000)
# Milestones: after 30,000 and 60,000 steps of 352 per epoch, to the nearest epoch.
SGD = dataclasses.replace(rivals_mnist.SGD, batch_size=128, epochs=250, milestones=(85, 170))
RIGL_SGD = dataclasses.replace(SGD, gamma=0.2)  # rigl-reproducibility's, whose milestones and examples are the same
WRN_28_2_WEIGHTS = 1_463_984  # maskable
DSR_WEIGHTS_PER_UPDATE = 20_000  # of its authors' code for WRN-28-2
WRN_28_2_DENSITIES = (0.1, 0.2, 0.3, 0.4, 0.5)
WRN_22_2_DENSITIES = (0.5, 0.2, 0.1, 0.05)


def suite() -> list[RunSpec]:
    return [spec for seed in SEEDS for spec in [*wrn_28_2(seed), *wrn_22_2(seed)]]


def wrn_28_2(seed: int) -> list[RunSpec]:
    specs = [one("wrn-28-2", "dense", seed)]
    for density in WRN_28_2_DENSITIES:
        moved = DSR_WEIGHTS_PER_UPDATE / round(density * WRN_28_2_WEIGHTS)
        specs += [
            one("wrn-28-2", "sparse_momentum", seed, density=density, allocation="uniform"),
            one("wrn-28-2", "dsr", seed, density=density, allocation="uniform", prune_fraction=moved),
            one("wrn-28-2", "deep_r", seed, density=density, allocation="uniform"),
            one("wrn-28-2", "set", seed, density=density),
        ]
    return specs


def wrn_22_2(seed: int) -> list[RunSpec]:
    specs = [one("wrn-22-2", "dense", seed)]
    for density in WRN_22_2_DENSITIES:
        specs += [one("wrn-22-2", method, seed, density=density) for method in ("static", "rigl", "gradual")]
    # near to rigl-reproducibility's SET, whose drop fraction falls to 0 along a cosine over 75 % of the training
    at = {"density": 0.2, "drop": "magnitude", "update_every": "100 steps"}
    specs += [one("wrn-22-2", "set", seed, allocation=allocation, **at) for allocation in ("erk", "uniform")]
    return [*specs, *(one("wrn-22-2", m, seed, density=0.2, allocation="uniform") for m in ("static", "rigl"))]


def one(name: str, method: str, seed: int, **hyperparameters: Any) -> RunSpec:
    model = Model(name=name, initialization="official-dense")  # as in sparse momentum's code
    optimizer = RIGL_SGD if name == "wrn-22-2" else SGD
    return cell(
        method, data=CIFAR10, model=model, optimizer=optimizer, seed=seed, protocol=("rivals",), **hyperparameters
    )  # fmt: skip
