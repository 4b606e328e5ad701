"""The method `my_name`, and a suite that compares it with others on the embedded digits.

python -m benchmark run --suite my_name.py
"""

from __future__ import annotations

from dataclasses import dataclass

import methods
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell
from methods import Context, Method, budgets, scores
from methods.base import check_fraction


@dataclass(kw_only=True)
class MyName(Method):
    """Halfway through the training, prunes the weights of least magnitude in each layer.

    Citation: authors, "title", arXiv id. Departures: what differs from the paper, and why.
    """

    name = "my_name"
    version = 1
    reference = "none"
    density_promise = "final"

    density: float = 0.1

    def __post_init__(self) -> None:
        check_fraction("density", self.density)

    def after_step(self, ctx: Context) -> None:
        if ctx.step != max(1, ctx.total_steps // 2):
            return
        weights = {name: weight.parameter for name, weight in ctx.weights.items()}
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        counts = budgets.allocate(shapes, density=self.density, allocation="uniform")
        ctx.masks.set({name: scores.top(scores.magnitude(w), counts[name]) for name, w in weights.items()})


methods.register("my_name", f"{__name__}:MyName")

DESCRIPTION = "my_name beside a random mask and SET, on the embedded digits"


def suite() -> list[RunSpec]:
    data, model = Data(name="digits"), Model(name="lenet-300-100")
    optimizer = Optimizer(name="sgd", lr=0.02, momentum=0.9, batch_size=64, epochs=10)
    return [
        cell(method, data=data, model=model, optimizer=optimizer, seed=seed, protocol=(), density=0.1)
        for seed in range(3)
        for method in ("static", "set", "my_name")
    ]
