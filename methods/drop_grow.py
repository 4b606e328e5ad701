"""The bases of methods that repeatedly drop some kept weights and grow as many others."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from methods import scores
from methods.base import Context, DensityPromise, Method, check_duration, check_fraction
from methods.budgets import allocate, check_allocation, layer_densities
from methods.schedules import every, steps_of


@dataclass(kw_only=True)
class Rewiring(Method):
    """Starts from random masks with exact counts; a subclass says when and what to drop and grow.

    pattern: the layer densities that the allocation `pattern` scales to the density.

    Each update keeps the total count, and the count of every layer unless a method moves weights
    between layers. Grown weights start at 0. Their optimizer state is zeroed unless grown_state is
    "keep". The optimizer state of dropped weights is kept.

    regrown: what happens to a weight that one update drops and grows again. `restart`: it starts as
    other grown weights do. `keep`: it stays as it was, with its optimizer state.
    """

    density_promise: ClassVar[DensityPromise] = "exact"
    regrown: ClassVar[Literal["restart", "keep"]] = "restart"
    added: ClassVar[Mapping[str, Any]] = {"pattern": None}

    density: float = 0.05
    allocation: str = "erk"
    pattern: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_allocation(self.allocation, self.pattern)

    def enter_phase(self, ctx: Context) -> None:
        random_masks(ctx, density=self.density, allocation=self.allocation, pattern=self.pattern)

    def after_step(self, ctx: Context) -> None:
        if self.due(ctx):
            self.update(ctx)

    def due(self, ctx: Context) -> bool:
        """Whether this step ends with an update."""
        raise NotImplementedError

    @torch.no_grad()
    def update(self, ctx: Context) -> None:
        """Drop and grow once in every layer that takes part. Waits for the device."""
        assert ctx.optimizer is not None, "an update needs a bound optimizer"
        masks = {name: ctx.masks[name] for name in self.moving(ctx)}
        kept = {name: mask & ~self.dropped(ctx, name, mask) for name, mask in masks.items()}
        counts = self.growth_counts(ctx, masks, kept)
        grown = {name: self.grown(ctx, name, masks[name], kept[name], counts[name]) for name in masks}
        if self.regrown == "restart":
            ctx.masks.set(kept)  # zeroes the dropped weights, which may grow again from 0
        ctx.masks.set({name: kept[name] | grown[name] for name in masks})
        if self.grown_state == "zero":
            new = {n: grown[n] & ~masks[n] if self.regrown == "keep" else grown[n] for n in masks}
            ctx.masks.zero_optimizer_state_(ctx.optimizer, new)

    def moving(self, ctx: Context) -> list[str]:
        """The layers that take part in updates: those that train and have a gradient. Others keep their masks.

        Weights that grow in a layer that is frozen or unused would stay 0. A gradient that the
        optimizer cleared in its step counts.
        """
        trained = {name: weight.parameter for name, weight in ctx.weights.items() if weight.held.requires_grad}
        return [name for name, weight in trained.items() if weight.grad is not None or name in ctx.with_gradient]

    def dropped(self, ctx: Context, name: str, mask: Tensor) -> Tensor:
        """Bool mask of the entries of one weight to drop. mask: the entries that are kept now."""
        raise NotImplementedError

    def growth_counts(self, ctx: Context, masks: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> dict[str, int]:
        """How many weights each layer grows: as many as it dropped, unless a method moves weights.

        masks, kept: bool masks before and after dropping. The counts sum to the number of dropped
        weights.
        """
        count = torch.count_nonzero
        return {name: int(count(mask)) - int(count(kept[name])) for name, mask in masks.items()}

    def grown(self, ctx: Context, name: str, mask: Tensor, kept: Tensor, count: int) -> Tensor:
        """Bool mask of exactly `count` entries of one weight to grow, none of them in `kept`.

        mask, kept: bool masks before and after dropping.
        """
        raise NotImplementedError


@dataclass(kw_only=True)
class DropGrow(Rewiring):
    """Rewiring at a fixed period, where drop_fraction says how much a subclass drops.

    There is no update at the last step.
    """

    drop_fraction: float = 0.3
    update_every: int | str = "1 epoch"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("drop_fraction", self.drop_fraction, low_open=False)
        check_duration("update_every", self.update_every)

    def enter_phase(self, ctx: Context) -> None:
        super().enter_phase(ctx)
        warn_where_never_due(ctx, self.update_every, stops=self.stops(ctx))

    def stops(self, ctx: Context) -> int:
        """The step from which on there are no updates."""
        return ctx.total_steps

    def due(self, ctx: Context) -> bool:
        period = steps_of(self.update_every, steps_per_epoch=ctx.steps_per_epoch)
        return every(ctx.step, period) and ctx.step < self.stops(ctx)


def warn_where_never_due(ctx: Context, update_every: int | str, *, stops: float) -> None:
    """Warn that a training has no update: the first would come at the step `stops` or later."""
    period = steps_of(update_every, steps_per_epoch=ctx.steps_per_epoch)
    if period >= stops:
        warnings.warn(
            f"{ctx.method_name} changes its masks every {period:,} steps before step {stops:,.0f}: in this training of "
            f"{ctx.total_steps:,} they never change. Give attach the total_steps of the training, in optimizer steps, "
            "or a smaller update_every",
            stacklevel=5,
        )


def random_masks(ctx: Context, *, density: float, allocation: str, pattern: Sequence[float] | None = None) -> None:
    """Prune every maskable weight at random, to its exact share of the density (`layer_counts`)."""
    counts = layer_counts(ctx, density=density, allocation=allocation, pattern=pattern)
    weights = {name: weight.parameter for name, weight in ctx.weights.items()}
    ctx.masks.set({n: scores.top(scores.random(w, ctx.generator), counts[n]) for n, w in weights.items()})


def layer_counts(
    ctx: Context, *, density: float, allocation: str, pattern: Sequence[float] | None = None
) -> dict[str, int]:
    """How many weights each layer keeps at the density, by `budgets.allocate`.

    Warns where a layer keeps its one weight only because no layer may be empty. Raises ValueError,
    with the method, the layer and its value, where the allocation cannot give the density.
    """
    shapes = {name: tuple(weight.parameter.shape) for name, weight in ctx.weights.items()}
    try:
        counts = allocate(shapes, density=density, allocation=allocation, pattern=pattern)
    except ValueError as error:
        raise ValueError(f"{ctx.method_name}: {error}") from None
    if 1 in counts.values():
        shares = layer_densities(shapes, density=density, allocation=allocation, pattern=pattern)
        if raised := [name for name, shape in shapes.items() if shares[name] * math.prod(shape) < 0.5]:
            warnings.warn(
                f"{ctx.method_name}: density {density:g} leaves less than half a weight for {', '.join(raised)}: every "
                "layer keeps at least one, and the others keep fewer, so that the total is exact",
                stacklevel=2,
            )
    return counts
