"""Gradual magnitude pruning."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods import scores
from methods.base import Context, Method, check_choice, check_duration, check_fraction
from methods.budgets import ALLOCATIONS
from methods.drop_grow import layer_counts
from methods.schedules import cubic, steps_of


@dataclass(kw_only=True)
class Gradual(Method):
    """Prunes the smallest weights little by little during the training, fast at first.

    Zhu, Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
    compression", arXiv:1710.01878.

    At steps t = t_0, t_0 + Delta t, ..., t_0 + n Delta t, each layer keeps its largest magnitudes,
    so that its sparsity is (eq. 1; `schedules.cubic`)
        s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n Delta t))^3.
    Pruned weights get no gradient.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | density | 1 - s_f | |
    | initial_density | 1 - s_i | usually 1 |
    | allocation | | uniform: the same s_f in every layer |
    | starts_at | t_0 / steps of the training | |
    | stops_at | (t_0 + n Delta t) / steps of the training | |
    | update_every | Delta t | |

    Gale, Elsen, Hooker, arXiv:1902.09574, prune ResNet-50 every 2,000 steps from step 40,000 to
    100,000. The defaults of the last three are ours, for trainings of some thousand steps.

    Departures: a pruned weight is 0 and stays pruned; in the authors' TensorFlow code it keeps its
    value, unused and untrained, and may return where kept weights fall below it. A layer's final
    count comes from `budgets.allocate`, so that the total is exact. A layer whose final density
    exceeds initial_density starts with its final count. The last update is at stops_at, even within
    a period.
    """

    name = "gradual"
    version = 1
    reference = "arXiv:1710.01878"
    density_promise = "final"
    pruned_gradients = "zero"

    density: float = 0.05
    initial_density: float = 1.0
    allocation: str = "uniform"
    starts_at: float = 0.1
    stops_at: float = 0.75
    update_every: int | str = "100 steps"

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_fraction("initial_density", self.initial_density)
        check_choice("allocation", self.allocation, ALLOCATIONS)
        check_fraction("starts_at", self.starts_at, low_open=False)
        check_fraction("stops_at", self.stops_at)
        check_duration("update_every", self.update_every)
        if self.initial_density < self.density:
            raise ValueError(f"initial_density is {self.initial_density}: it must be density, {self.density}, or more")
        if self.starts_at > self.stops_at:
            raise ValueError(f"starts_at is {self.starts_at}: it must be stops_at, {self.stops_at}, or less")

    def enter_phase(self, ctx: Context) -> None:
        self.prune(ctx)

    def after_step(self, ctx: Context) -> None:
        begin, end = self._range(ctx)
        period = steps_of(self.update_every, steps_per_epoch=ctx.steps_per_epoch)
        if begin <= ctx.step <= end and ((ctx.step - begin) % period == 0 or ctx.step == end):
            self.prune(ctx)

    def prune(self, ctx: Context) -> None:
        """Prune the smallest kept weights of each layer, down to the count of eq. 1."""
        masks = {}
        for name, count in self.counts(ctx).items():
            mask = ctx.masks[name]
            size = scores.magnitude(ctx.weights[name].parameter)
            masks[name] = scores.top(size, min(count, int(torch.count_nonzero(mask))), among=mask)
        ctx.masks.set(masks)

    def counts(self, ctx: Context) -> dict[str, int]:
        """How many weights of each layer eq. 1 keeps after ctx.step steps."""
        begin, end = self._range(ctx)
        final = layer_counts(ctx, density=self.density, allocation=self.allocation)
        sizes = {name: weight.parameter.numel() for name, weight in ctx.weights.items()}
        start = {name: max(self.initial_density * size, final[name]) for name, size in sizes.items()}
        return {n: round(cubic(ctx.step, begin=begin, end=end, start=start[n], final=final[n])) for n in final}

    def _range(self, ctx: Context) -> tuple[int, int]:
        """The steps of the first and of the last update, t_0 and t_0 + n Delta t."""
        begin = max(1, round(self.starts_at * ctx.total_steps))
        return begin, max(begin, round(self.stops_at * ctx.total_steps))
