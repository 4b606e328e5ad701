"""The training dynamics of Figures 3 and 5 to 7 on a VGG-16 of an eighth of the width.

It trains on a CPU in hours. It is ours and no test of Table 2; exhibits name the widths.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmark.spec import Model, RunSpec
from benchmark.suites import cell
from benchmark.suites.cifar10 import ALPHA, CIFAR10, FIGURE_6_LR, SGD

DESCRIPTION = "VGG-16 with every width divided by 8 on CIFAR-10: dense and DST over alpha, learning rates 0.1 and 0.01"
EXHIBITS = tuple(f"vgg16-narrow-{name}" for name in ("figure3", "figure5", "figure6", "figure7", "claims"))
SEEDS = range(2)
NARROW = Model(name="vgg16", widths=(8, 8, 16, 16, 32, 32, 32, *6 * (64,), 64))  # models.vgg.WIDTHS / 8
ALPHAS = (1e-7, 1e-6, ALPHA, 1e-5, 2e-5, 5e-5)  # meant to span 5 to 80 % of the weights; not measured


def suite() -> list[RunSpec]:
    return [spec for seed in SEEDS for spec in one_seed(seed)]


def one_seed(seed: int) -> list[RunSpec]:
    """Dense and DST at both learning rates; the other alphas at 0.1."""
    rates = (SGD.lr, FIGURE_6_LR)
    twins = [spec for lr in rates for spec in (one("dense", seed, lr=lr), one("dst", seed, lr=lr, alpha=ALPHA))]
    return [*twins, *(one("dst", seed, alpha=alpha) for alpha in ALPHAS if alpha != ALPHA)]


def one(method: str, seed: int, *, lr: float = SGD.lr, **hyperparameters: Any) -> RunSpec:
    optimizer = dataclasses.replace(SGD, lr=lr)
    return cell(
        method, data=CIFAR10, model=NARROW, optimizer=optimizer, seed=seed, protocol=("paper",), **hyperparameters
    )
