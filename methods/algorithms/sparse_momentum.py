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

    After every epoch except the last, with m the optimizer's momentum (for Adam the first moment
    over the root of the second):
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
    | drop_fraction | p | 0.5 |
    | final_drop_fraction | | 0.005 |
    | update_every | | 1 epoch |

    Departures: counts are exact; the authors' rounding drifts and is corrected later. A layer keeps
    at least one weight. Where 99 % of all free positions are too few, all of them may be used; the
    authors' code grows fewer weights then. Grown weights start at 0 and keep their momentum, which
    is dense and never reset, as in the authors' code since version 1.0.
    Raises ValueError at the first update where the optimizer has no momentum.
    """

    name = "sparse_momentum"
    version = 2
    reference = "arXiv:1907.04840"
    grown_state = "keep"
    weight_gradient = "dense"

    drop_fraction: float = 0.5
    final_drop_fraction: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("final_drop_fraction", self.final_drop_fraction, low_open=False)

    def dropped(self, ctx: Context, name: str, mask: Tensor) -> Tensor:
        kept = int(torch.count_nonzero(mask))
        rate = cosine(ctx.step, ctx.total_steps, start=self.drop_fraction, end=self.final_drop_fraction)
        sparsity = 1 - kept / mask.numel()
        if sparsity < DENSE_LAYER_SPARSITY and self.importance(ctx)[name] > 1 / len(ctx.weights):
            rate = min(rate, sparsity)
        count = min(math.ceil(rate * kept), kept - 1)
        return scores.top(-scores.magnitude(ctx.weights[name].parameter), count, among=mask)

    def importance(self, ctx: Context) -> dict[str, float]:
        """Mean |momentum| of each layer's kept weights, normalised to sum 1."""
        means = {}
        for name, weight in ctx.weights.items():
            assert ctx.optimizer is not None, "an update needs a bound optimizer"
            means[name] = float(scores.momentum(ctx.optimizer, weight.parameter)[ctx.masks[name]].abs().mean())
        total = sum(means.values())
        return {name: mean / total if total > 0 else 1 / len(means) for name, mean in means.items()}

    def growth_counts(self, ctx: Context, masks: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> dict[str, int]:
        total = sum(int(torch.count_nonzero(mask)) for mask in masks.values()) - sum(
            int(torch.count_nonzero(mask)) for mask in kept.values()
        )
        free = {name: int(torch.count_nonzero(~mask)) for name, mask in kept.items()}
        most = {name: math.floor(0.99 * count) for name, count in free.items()}
        room = most if sum(most.values()) >= total else free
        return share_overflow_evenly(self.importance(ctx), room=room, total=total)

    def grown(self, ctx: Context, name: str, mask: Tensor, kept: Tensor, count: int) -> Tensor:
        assert ctx.optimizer is not None, "an update needs a bound optimizer"
        momentum = scores.momentum(ctx.optimizer, ctx.weights[name].parameter)
        return scores.top(torch.abs(momentum), count, among=~kept)
