"""A method and a suite outside the package: one-shot magnitude pruning beside two baselines."""

from __future__ import annotations

from dataclasses import dataclass

import methods
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell
from methods import Context, Method, budgets, scores
from methods.base import check_fraction


@dataclass(kw_only=True)
class OneShot(Method):
    """Halfway through the training, prunes the weights of least magnitude in each layer.

    Han et al., "Learning both weights and connections for efficient neural networks", arXiv:1506.02626.
    Departures: one round in place of several; every layer keeps the same share.
    """

    name = "one_shot"
    version = 1
    reference = "arXiv:1506.02626"
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


methods.register("one_shot", f"{__name__}:OneShot")

DESCRIPTION = "one-shot magnitude pruning beside a static random mask and SET, on the embedded digits"


def suite() -> list[RunSpec]:
    data, model = Data(name="digits"), Model(name="lenet-300-100")
    optimizer = Optimizer(name="sgd", lr=0.02, momentum=0.9, batch_size=64, epochs=10)
    return [
        cell(method, data=data, model=model, optimizer=optimizer, seed=seed, protocol=(), density=0.05)
        for seed in range(2)
        for method in ("static", "set", "one_shot")
    ]
