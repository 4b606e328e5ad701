"""The engine of methods that drop some kept weights now and then and grow as many others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods import scores
from methods.base import Context, Method, check_choice, check_fraction
from methods.budgets import ALLOCATIONS, allocate
from methods.schedules import every, steps_of


@dataclass(kw_only=True)
class DropGrow(Method):
    """Starts from random masks of exact counts; a subclass says what to drop and what to grow.

    Each update keeps every layer's count. Grown weights start at 0 with zeroed optimizer state;
    the state of dropped weights is kept, where it no longer acts. No update at or after the last step.
    """

    density_promise = "exact"

    density: float = 0.05
    allocation: str = "erk"
    drop_fraction: float = 0.3
    update_every: int | str = "1 epoch"

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_fraction("drop_fraction", self.drop_fraction, low_open=False)
        check_choice("allocation", self.allocation, ALLOCATIONS)
        steps_of(self.update_every, steps_per_epoch=1)

    def enter_phase(self, ctx: Context) -> None:
        random_masks(ctx, density=self.density, allocation=self.allocation)

    def after_step(self, ctx: Context) -> None:
        period = steps_of(self.update_every, steps_per_epoch=ctx.steps_per_epoch)
        if every(ctx.step, period) and ctx.step < ctx.total_steps:
            self.update(ctx)

    @torch.no_grad()
    def update(self, ctx: Context) -> None:
        """One round of dropping and growing in every layer."""
        masks, grown = {}, {}
        for name, weight in ctx.weights.items():
            mask = ctx.masks[name]
            kept = mask & ~self.dropped(weight.parameter, mask)
            masks[name] = kept | self.grown(ctx, name, kept, int(mask.sum() - kept.sum()))
            grown[name] = masks[name] & ~kept
            weight.parameter.masked_fill_(grown[name], 0)
        ctx.masks.set(masks)
        assert ctx.optimizer is not None, "an update needs a bound optimizer"
        ctx.masks.zero_optimizer_state_(ctx.optimizer, grown)

    def dropped(self, weight: Tensor, mask: Tensor) -> Tensor:
        """Bool mask of the kept entries to drop, shape of the weight."""
        raise NotImplementedError

    def grown(self, ctx: Context, name: str, kept: Tensor, count: int) -> Tensor:
        """Bool mask of exactly `count` entries to grow, none of them in `kept`."""
        raise NotImplementedError


def random_masks(ctx: Context, *, density: float, allocation: str) -> None:
    """Prune every maskable weight to its exact share of the density, at random."""
    weights = {name: weight.parameter for name, weight in ctx.weights.items()}
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    counts = allocate(shapes, density=density, allocation=allocation)
    ctx.masks.set({n: scores.top(scores.random(w, ctx.generator), counts[n]) for n, w in weights.items()})
