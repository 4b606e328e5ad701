"""The training dynamics of Figures 3 and 5 to 7 on a VGG-16 of an eighth of the width.

It trains on a CPU in hours. It is ours and no test of Table 2; exhibits name the widths.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmark.spec import SCHEDULED, Model, Optimizer, RunSpec
from benchmark.suites import cell
from benchmark.suites.cifar10 import ALPHA, CIFAR10, FIGURE_6_LR, SGD

DESCRIPTION = "VGG-16 with every width divided by 8 on CIFAR-10: dense and DST over alpha, learning rates 0.1 and 0.01"
FIGURES = ("figure3", "figure5", "figure6", "figure7")
EXHIBITS = tuple(f"vgg16-narrow-{name}" for name in (*FIGURES, "claims", "schedules"))
SEEDS = range(2)
NARROW = Model(name="vgg16", widths=(8, 8, 16, 16, 32, 32, 32, *6 * (64,), 64))  # models.vgg.WIDTHS / 8
ALPHAS = (1e-7, 1e-6, ALPHA, 1e-5, 2e-5, 5e-5)  # meant to span 5 to 80 % of the weights; not measured


def suite() -> list[RunSpec]:
    """The schedules after the first seed: one seed each."""
    first, *others = SEEDS
    return [*one_seed(first), *schedules(first), *(spec for seed in others for spec in one_seed(seed))]


def one_seed(seed: int) -> list[RunSpec]:
    """Dense and DST at both learning rates; the other alphas at 0.1."""
    twins = []
    for optimizer in (SGD, dataclasses.replace(SGD, lr=FIGURE_6_LR)):
        twins += [one("dense", seed, optimizer=optimizer), one("dst", seed, optimizer=optimizer, alpha=ALPHA)]
    return [*twins, *(one("dst", seed, alpha=alpha) for alpha in ALPHAS if alpha != ALPHA)]


def schedules(seed: int) -> list[RunSpec]:
    """The learning rate decays for the weights only and for the thresholds only; in no protocol."""
    optimizers = [dataclasses.replace(SGD, schedule_of=of) for of in SCHEDULED]
    return [one("dst", seed, optimizer=optimizer, protocol=(), alpha=ALPHA) for optimizer in optimizers]


def one(
    method: str,
    seed: int,
    *,
    optimizer: Optimizer = SGD,
    protocol: tuple[str, ...] = ("paper",),
    **hyperparameters: Any,
) -> RunSpec:
    return cell(
        method, data=CIFAR10, model=NARROW, optimizer=optimizer, seed=seed, protocol=protocol, **hyperparameters
    )
