"""All methods in one setting: LeNet-300-100 on MNIST at 5 and 2.5 %, 20 epochs, as in suite `mnist`.

A method joins with one line in FIELD. Cells that `mnist` has too are the same cells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmark.spec import Model, RunSpec
from benchmark.suites import cell
from benchmark.suites.mnist import MNIST, SGD
from methods.registry import method_class

DESCRIPTION = "all methods on LeNet-300-100 and MNIST at 5 and 2.5 %, each at the budget of DST and at its own"
EXHIBITS = ("field",)
SEEDS = range(3)
MODEL = "lenet-300-100"
DENSITIES = (0.05, 0.025)
# The layer densities of DST at alpha 1e-3 (2.59 %): kept / all weights of fc1, fc2 and fc3 over seeds 0 to 9,
# from paper_figures/results. At 5 % no cell of DST is finished yet.
DST_LAYERS = {0.025: (52_977 / 2_352_000, 9_629 / 300_000, 6_390 / 10_000)}
# The alphas whose densities are nearest: 1e-3 gives 2.59 % over seeds 0 to 9. 6.6e-4 lies between 5e-4 (8.23 %)
# and 7.5e-4 (4.00 %) where a straight line through their logarithms crosses 5 %.
DST_ALPHAS = {0.05: 6.6e-4, 0.025: 1e-3}


def pattern(density: float) -> dict[str, Any]:
    return {"allocation": "pattern", "pattern": DST_LAYERS[density]}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A method's cells in the field: one for each density, which a method that takes one is given.

    hyperparameters: what is not at its default. at_density: more of them that depend on the
    density; only the densities that it names are run then. epochs: the budget; None is DST's.
    """

    method: str
    hyperparameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    at_density: Mapping[float, Mapping[str, Any]] | None = None
    epochs: int | None = None


FIELD = (
    Entry("dense", at_density={1.0: {}}),
    # Methods that keep a chosen number of weights, at their own defaults: Erdos-Renyi-Kernel masks at first.
    Entry("static"),
    Entry("set"),
    Entry("dsr"),
    Entry("sparse_momentum"),
    # Methods that find their density: the hyperparameter that gives it (`python -m benchmark match`).
    Entry("dst", at_density={density: {"alpha": alpha} for density, alpha in DST_ALPHAS.items()}),
    # Does the layer-wise pattern that DST finds help a method that starts from random masks, at equal count?
    Entry("static", at_density={density: pattern(density) for density in DST_LAYERS}),
    Entry("set", at_density={density: pattern(density) for density in DST_LAYERS}),
    # A method that trains longer by itself has two lines, such as Entry("lottery") and Entry("lottery", epochs=60).
)


def suite() -> list[RunSpec]:
    return [spec for seed in SEEDS for entry in FIELD for spec in cells(entry, seed)]


def cells(entry: Entry, seed: int) -> list[RunSpec]:
    """One cell for each density of the entry."""
    takes_density = "density" in method_class(entry.method).hyperparameter_names()
    optimizer = SGD if entry.epochs is None else dataclasses.replace(SGD, epochs=entry.epochs)
    at = entry.at_density if entry.at_density is not None else {density: {} for density in DENSITIES}
    specs = []
    for density, more in at.items():
        given: dict[str, Any] = {**entry.hyperparameters, **more, **({"density": density} if takes_density else {})}
        specs.append(cell(entry.method, data=MNIST, model=Model(name=MODEL), optimizer=optimizer, seed=seed, **given))
    return specs
