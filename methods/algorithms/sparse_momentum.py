"""Sparse momentum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from methods import scores
from methods.base import Context, check_fraction
from methods.budgets import share_overflow_evenly
from methods.drop_grow import DropGrow
from methods.schedules import cosine

DENSE_LAYER_SPARSITY = 0.2


@dataclass(kw_only=True)
class SparseMomentum(DropGrow):
    """Moves weights to the layers, and grows them at the places, where the momentum is largest.

    Dettmers, Zettlemoyer, "Sparse Networks from Scratch: Faster Training without Losing
    Performance", arXiv:1907.04840.

    After every epoch except the last, with m the optimizer's momentum (`scores.momentum`; for Adam
    the first moment over the root of the second):
        layer importance: mean |m| over the kept weights, normalised over the layers;
        drop the ceil(rate * kept) smallest magnitudes of each layer. The rate falls along a cosine.
        It is at most the layer's sparsity where the sparsity is below 0.2 and the importance is
        above the mean;
        grow as many weights as were dropped. A layer's share is its importance, up to 99 % of its
        free positions, the dropped ones included. What exceeds that is divided evenly among all
        layers, until none exceeds it. A layer grows where |m| is largest.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | density | d | 0.01 to 0.5 |
    | allocation | | uniform |
    | pattern | | ours: the layer densities of the allocation `pattern` |
    | drop_fraction | p | 0.5 |
    | final_drop_fraction | | 0.005 |
    | update_every | | 1 epoch |

    Grown weights start at 0. A weight that the same update dropped keeps its value. The momentum is
    dense and never reset. All this is as in the authors' code since version 1.0.

    Departures: the default allocation is `erk`, so that methods are compared alike. Counts are
    exact; the authors' rounding drifts and is corrected later. A layer keeps at least one weight.
    Where 99 % of all free positions are too few, all of them may be used; the authors' code grows
    fewer weights then. Layers that are frozen or had no gradient so far keep their masks and take no
    part. Raises ValueError where an optimizer without momentum is bound.
    """

    name = "sparse_momentum"
    version = 3
    reference = "arXiv:1907.04840"
    grown_state = "keep"
    regrown = "keep"
    weight_gradient = "dense"

    drop_fraction: float = 0.5
    final_drop_fraction: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("final_drop_fraction", self.final_drop_fraction, low_open=False)

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        scores.check_momentum(optimizer)

    def moving(self, ctx: Context) -> list[str]:
        """The layers that take part: neither frozen nor without a gradient so far."""
        optimizer = _optimizer(ctx)
        return [name for name, weight in ctx.weights.items() if scores.has_momentum(optimizer, weight.parameter)]

    def dropped(self, ctx: Context, name: str, mask: Tensor) -> Tensor:
        kept = int(torch.count_nonzero(mask))
        rate = cosine(ctx.step, ctx.total_steps, start=self.drop_fraction, end=self.final_drop_fraction)
        sparsity = 1 - kept / mask.numel()
        if sparsity < DENSE_LAYER_SPARSITY and self.importance(ctx)[name] > 1 / len(self.moving(ctx)):
            rate = min(rate, sparsity)
        count = max(0, min(math.ceil(rate * kept), kept - 1))
        return scores.top(-scores.magnitude(ctx.weights[name].parameter), count, among=mask)

    def importance(self, ctx: Context) -> dict[str, float]:
        """Mean |momentum| of each layer's kept weights, normalised to sum 1.

        Layers that take no part are left out. A mean that is not finite counts as 0: that of a
        layer without kept weights, or of a training that diverged.
        """
        means = {}
        for name in self.moving(ctx):
            mean = float(_momentum(ctx, name)[ctx.masks[name]].abs().mean())
            means[name] = mean if math.isfinite(mean) else 0.0
        total = sum(means.values())
        return {name: mean / total if total > 0 else 1 / len(means) for name, mean in means.items()}

    def growth_counts(self, ctx: Context, masks: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> dict[str, int]:
        count = torch.count_nonzero
        total = sum(int(count(mask)) - int(count(kept[name])) for name, mask in masks.items())
        importance = self.importance(ctx)
        free = {name: int(count(~kept[name])) for name in importance}
        most = {name: math.floor(0.99 * places) for name, places in free.items()}
        room = most if sum(most.values()) >= total else free
        return share_overflow_evenly(importance, room=room, total=total)

    def grown(self, ctx: Context, name: str, mask: Tensor, kept: Tensor, count: int) -> Tensor:
        return scores.top(_momentum(ctx, name).abs(), count, among=~kept)


def _momentum(ctx: Context, name: str) -> Tensor:
    return scores.momentum(_optimizer(ctx), ctx.weights[name].parameter)


def _optimizer(ctx: Context) -> torch.optim.Optimizer:
    assert ctx.optimizer is not None, "an update needs a bound optimizer"
    return ctx.optimizer
