"""The default suite: every model and method on scikit-learn's digits, embedded, in minutes on a
laptop.
"""

from __future__ import annotations

from typing import Any

import methods
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell

DESCRIPTION = "all four models and all methods on embedded digits: minutes on a laptop, no download"
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


def suite() -> list[RunSpec]:
    """Methods without a density hyperparameter keep their own.

    dense keeps all weights, others what alpha leaves.
    """
    specs = []
    for seed in SEEDS:
        for name, (optimizer, alpha) in OPTIMIZERS_AND_ALPHAS.items():
            for method in methods.available():
                names = methods.create(method).hyperparameters()
                wanted = {"alpha": alpha, "density": DENSITY, "update_every": UPDATE_EVERY}
                given: dict[str, Any] = {key: value for key, value in wanted.items() if key in names}
                model = Model(name=name)
                specs.append(
                    cell(method, data=DIGITS, model=model, optimizer=optimizer, seed=seed, protocol=(), **given)
                )
    return specs
