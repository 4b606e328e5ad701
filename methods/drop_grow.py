"""The engine of methods that drop some kept weights now and then and grow as many others."""

from __future__ import annotations

from collections.abc import Mapping
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

    Each update keeps the total count, and every layer's unless a method moves weights between
    layers. Grown weights start at 0, and with zeroed optimizer state unless grown_state is "keep";
    the state of dropped weights is kept. No update at or after the last step.
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
        if self.due(ctx):
            self.update(ctx)

    def due(self, ctx: Context) -> bool:
        """Whether this step ends with an update: after each period but the last step."""
        period = steps_of(self.update_every, steps_per_epoch=ctx.steps_per_epoch)
        return every(ctx.step, period) and ctx.step < ctx.total_steps

    @torch.no_grad()
    def update(self, ctx: Context) -> None:
        """One round of dropping and growing in every layer. It waits for the device."""
        assert ctx.optimizer is not None, "an update needs a bound optimizer"
        masks = {name: ctx.masks[name] for name in ctx.weights}
        kept = {name: mask & ~self.dropped(ctx, name, mask) for name, mask in masks.items()}
        counts = self.growth_counts(ctx, masks, kept)
        grown = {name: self.grown(ctx, name, masks[name], kept[name], counts[name]) for name in masks}
        ctx.masks.set(kept)  # zeroes what was dropped, so that weights grown in its place start at 0
        ctx.masks.set({name: kept[name] | grown[name] for name in masks})
        if self.grown_state == "zero":
            ctx.masks.zero_optimizer_state_(ctx.optimizer, grown)

    def dropped(self, ctx: Context, name: str, mask: Tensor) -> Tensor:
        """Bool mask of the kept entries of one weight to drop; mask: the kept ones."""
        raise NotImplementedError

    def growth_counts(self, ctx: Context, masks: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> dict[str, int]:
        """How many weights each layer grows: as many as it dropped, unless a method moves them.

        masks, kept: bool, before and after dropping. The counts sum to all that was dropped.
        """
        return {name: int(mask.sum()) - int(kept[name].sum()) for name, mask in masks.items()}

    def grown(self, ctx: Context, name: str, mask: Tensor, kept: Tensor, count: int) -> Tensor:
        """Bool mask of exactly `count` entries of one weight to grow, none of them in `kept`."""
        raise NotImplementedError


def random_masks(ctx: Context, *, density: float, allocation: str) -> None:
    """Prune every maskable weight to its exact share of the density, at random."""
    weights = {name: weight.parameter for name, weight in ctx.weights.items()}
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    counts = allocate(shapes, density=density, allocation=allocation)
    ctx.masks.set({n: scores.top(scores.random(w, ctx.generator), counts[n]) for n, w in weights.items()})
