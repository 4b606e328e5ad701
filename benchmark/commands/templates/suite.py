"""The suite `my_name`: which cells a comparison needs.

python -m benchmark run --suite my_name.py
"""

from __future__ import annotations

from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell

DESCRIPTION = "methods at two densities on the embedded digits"
SEEDS = range(3)
DENSITIES = (0.1, 0.05)
DIGITS = Data(name="digits")
MODEL = Model(name="lenet-300-100")
SGD = Optimizer(name="sgd", lr=0.02, momentum=0.9, batch_size=64, epochs=10)


def suite() -> list[RunSpec]:
    """One dense cell for each seed, and each sparse method at each density."""
    specs = []
    for seed in SEEDS:
        specs.append(cell("dense", data=DIGITS, model=MODEL, optimizer=SGD, seed=seed, protocol=()))
        for density in DENSITIES:
            for method in ("static", "set"):
                specs.append(
                    cell(method, data=DIGITS, model=MODEL, optimizer=SGD, seed=seed, protocol=(), density=density)
                )
    return specs
