"""Gradual pruning with zero-cost neuroregeneration."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from methods import scores, scoring
from methods.base import Context, check_fraction
from methods.drop_grow import DropGrow, random_masks
from methods.schedules import cosine, cubic, every, steps_of


@dataclass(kw_only=True)
class GraNet(DropGrow):
    """Prunes gradually by magnitude, and each time regrows the weights of largest gradient.

    Liu, Chen, Chen, Atashgahi, Yin, Kou, Shen, Pechenizkiy, Wang, Mocanu, "Sparse Training via
    Boosting Pruning Plasticity with Neuroregeneration", NeurIPS 2021, arXiv:2106.10404.

    The training starts from random masks of initial_density. Every update_every steps, at step t:
        s_t = s_f + (s_i - s_f) (1 - t / T)^3, a sparsity, until t reaches T = prune_until;
        keep the share 1 - s_t of all weights with the largest |w| over all layers;
        in each layer drop the ceil(r n) smallest of the n kept weights, and grow as many with the
        largest |gradient| of the step. r falls along a cosine.
    Grown weights start at 0 with zeroed optimizer state. A weight that is dropped and grown in one
    update keeps its value and its state.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | density | 1 - s_f | 0.2 and 0.1 (ResNet-50) |
    | initial_density | 1 - s_i | 0.5, or 1 |
    | allocation | of the initial masks | erk |
    | drop_fraction | r at the start | 0.5 |
    | final_drop_fraction | r at the end | 0.005 |
    | update_every | Delta T | 1000 steps (CIFAR), 4000 (ImageNet) |
    | prune_until | T / steps of the training | 110 / 160 (CIFAR), 0.3 (ImageNet) |

    Departures: update_every is 100 steps by default, because the trainings here are shorter. Counts
    are exact; the authors' code may lose ties. There is an update at T itself, so that the density
    is reached; the authors' code stops one period before it. The optimizer state of pruned weights
    stays: it gets the gradients of the updates' steps and decays in all others; the authors' code
    zeroes it. There is no update at the last step. Frozen layers keep their masks; where they were
    frozen after attach, the others shrink as without them. Layers without a gradient are pruned and
    grow nothing.
    """

    name = "granet"
    version = 1
    reference = "arXiv:2106.10404"
    density_promise = "final"
    pruned_gradients = "zero"
    regrown = "keep"

    initial_density: float = 0.5
    drop_fraction: float = 0.5
    final_drop_fraction: float = 0.005
    update_every: int | str = "100 steps"
    prune_until: float = 110 / 160

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("final_drop_fraction", self.final_drop_fraction, low_open=False)
        check_fraction("prune_until", self.prune_until)
        if not self.density <= self.initial_density <= 1:
            raise ValueError(f"initial_density is {self.initial_density}: it must lie in [{self.density}, 1]")

    def enter_phase(self, ctx: Context) -> None:
        random_masks(ctx, density=self.initial_density, allocation=self.allocation, pattern=self.pattern)
        self._count(ctx, self._end(ctx))  # a density that keeps too few weights fails at once

    def due(self, ctx: Context) -> bool:
        return self._due(ctx, ctx.step)

    def dense_gradient(self, ctx: Context) -> bool:
        return self._due(ctx, ctx.step + 1)

    def _due(self, ctx: Context, step: int) -> bool:
        period = steps_of(self.update_every, steps_per_epoch=ctx.steps_per_epoch)
        return (every(step, period) and step < ctx.total_steps) or step == self._end(ctx)

    def _end(self, ctx: Context) -> int:
        """The step of the last pruning, T."""
        return max(1, round(self.prune_until * ctx.total_steps))

    def update(self, ctx: Context) -> None:
        if ctx.step <= self._end(ctx):
            self._prune(ctx)
        if ctx.step < ctx.total_steps:
            super().update(ctx)

    def _prune(self, ctx: Context) -> None:
        """Prune the smallest weights of all layers that train, so that the sparsity is s_t."""
        trains = {name: weight.parameter for name, weight in ctx.weights.items() if weight.parameter.requires_grad}
        kept = {name: ctx.masks[name] for name in trains}
        sizes = {name: scores.magnitude(weight) for name, weight in trains.items()}
        now, count = sum(int(torch.count_nonzero(mask)) for mask in kept.values()), self._count(ctx, ctx.step)
        if ctx.masks.frozen():  # these have a share of the count, and the others shrink as without them
            before = next((step for step in range(ctx.step - 1, 0, -1) if self._due(ctx, step)), 0)
            count = max(1, round(now * count / self._count(ctx, before)))
        if count < now:
            ctx.masks.set(scoring.highest_of_all(ctx, sizes, count, among=kept))

    def _count(self, ctx: Context, step: int) -> int:
        """How many weights s_t keeps, beside those of layers that were frozen at attach."""
        density = cubic(step, begin=0, end=self._end(ctx), start=self.initial_density, final=self.density)
        total, later = ctx.kept_count(density), ctx.masks.frozen()
        frozen = [n for n, weight in ctx.weights.items() if not weight.parameter.requires_grad and n not in later]
        held = sum(int(torch.count_nonzero(ctx.masks[name])) for name in frozen)
        if held >= total:
            raise ValueError(
                f"granet: density {density:g} keeps {total} weights, and the frozen layers {', '.join(frozen)} hold "
                f"{held}: exclude them"
            )
        return total - held

    def dropped(self, ctx: Context, name: str, mask: Tensor) -> Tensor:
        rate = cosine(ctx.step, ctx.total_steps, start=self.drop_fraction, end=self.final_drop_fraction)
        count = math.ceil(rate * int(torch.count_nonzero(mask)))
        return scores.top(-scores.magnitude(ctx.weights[name].parameter), count, among=mask)

    def grown(self, ctx: Context, name: str, mask: Tensor, kept: Tensor, count: int) -> Tensor:
        gradient = ctx.weights[name].parameter.grad
        if gradient is None:
            raise RuntimeError(
                f"granet grows the weights of largest gradient after the step, and the gradient of {name} was cleared "
                "in it: let the optimizer keep gradients (zero_grad=False)"
            )
        return scores.top(gradient.abs(), count, among=~kept)
