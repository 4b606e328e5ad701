"""Dynamic Sparse Reparameterization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from methods import scores
from methods.base import Context, check_duration, check_fraction
from methods.budgets import share
from methods.drop_grow import Rewiring, warn_where_never_due
from methods.schedules import every, steps_of


@dataclass(kw_only=True)
class DSR(Rewiring):
    """Drops weights below one adaptive global threshold and moves them to where most survive.

    Mostafa, Wang, "Parameter efficient training of deep convolutional neural networks by dynamic
    sparse reparameterization", ICML 2019, arXiv:1902.05967.

    Each update, with H the global threshold and N_p the number of weights to prune:
        drop every kept weight with |w| < H, except the largest weight of each layer;
        H <- H / 2 where more than (1 + tolerance) * N_p were dropped,
        H <- 2 H   where fewer than (1 - tolerance) * N_p were dropped;
        grow as many weights as were dropped. A layer's share is proportional to its surviving
        weights; what it has no room for goes to the other layers. Positions are random among those
        that were not kept before the update, which excludes the dropped ones.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | density | 1 - S | 0.1 to 0.5 |
    | allocation | | the same density everywhere |
    | pattern | | ours: the layer densities of the allocation `pattern` |
    | prune_fraction | N_p / kept weights | N_p = 20,000 for WRN-28-2: 0.03 to 0.14 |
    | initial_threshold | H | 1e-3 |
    | tolerance | | 0.1 |
    | update_every | P | 100 steps, doubled at each of doubles_at |
    | doubles_at | | epochs 25, 80, 140 of 200, here as fractions of the training |
    | stops_at | | epoch 190 of 200 |

    Departures: the default allocation is `erk`, so that methods are compared alike. Counts are exact
    from the start. N_p is relative to the kept weights, because 20,000
    exceeds what LeNet-300-100 keeps at 5 % (docs/decisions/0006). Every maskable layer is sparse;
    the authors keep the first, the shortcut and the last layers of a WRN dense, for which there is
    `exclude`. A layer keeps at least its largest weight; the authors keep any one. Where too few
    positions were not kept before the update, the dropped ones may be grown again. Grown weights
    start at 0 and with zeroed optimizer state. In the authors' code, as here, the gradient of a
    pruned weight is 0, so that its momentum decays: to 0.9^100 = 3e-5 of it by the next update.
    """

    name = "dsr"
    version = 2
    reference = "arXiv:1902.05967"
    pruned_gradients = "zero"

    update_every: int | str = "100 steps"
    prune_fraction: float = 0.05
    initial_threshold: float = 1e-3
    tolerance: float = 0.1
    doubles_at: tuple[float, ...] = (0.125, 0.4, 0.7)
    stops_at: float = 0.95
    _threshold: float = field(init=False, repr=False, default=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_duration("update_every", self.update_every)
        for name in ("prune_fraction", "tolerance", "stops_at"):
            check_fraction(name, getattr(self, name))
        if not self.initial_threshold > 0:
            raise ValueError(f"initial_threshold is {self.initial_threshold}: it must be above 0")
        self._threshold = self.initial_threshold

    def enter_phase(self, ctx: Context) -> None:
        super().enter_phase(ctx)
        warn_where_never_due(ctx, self.update_every, stops=self.stops_at * ctx.total_steps)

    def due(self, ctx: Context) -> bool:
        progress = ctx.step / ctx.total_steps
        doublings = sum(progress >= point for point in self.doubles_at)
        period = steps_of(self.update_every, steps_per_epoch=ctx.steps_per_epoch) * 2**doublings
        return every(ctx.step, period) and progress < self.stops_at

    def dropped(self, ctx: Context, name: str, mask: Tensor) -> Tensor:
        size = scores.magnitude(ctx.weights[name].parameter)
        return mask & (size < self._threshold) & ~scores.top(size, 1, among=mask)

    def growth_counts(self, ctx: Context, masks: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> dict[str, int]:
        before = {name: int(torch.count_nonzero(mask)) for name, mask in masks.items()}
        survivors = {name: int(torch.count_nonzero(mask)) for name, mask in kept.items()}
        dropped = sum(before.values()) - sum(survivors.values())
        self._adapt(dropped, wanted=self.prune_fraction * sum(before.values()))
        never_kept = {name: mask.numel() - before[name] for name, mask in masks.items()}
        free = {name: mask.numel() - survivors[name] for name, mask in masks.items()}
        return share(survivors, room=never_kept if sum(never_kept.values()) >= dropped else free, total=dropped)

    def _adapt(self, dropped: int, *, wanted: float) -> None:
        if dropped > (1 + self.tolerance) * wanted:
            self._threshold /= 2
        elif dropped < (1 - self.tolerance) * wanted:
            self._threshold *= 2

    def grown(self, ctx: Context, name: str, mask: Tensor, kept: Tensor, count: int) -> Tensor:
        score = scores.random(kept, ctx.generator)
        return scores.top(torch.where(mask, score - 1, score), count, among=~kept)

    def state_dict(self) -> dict[str, Any]:
        return {"threshold": self._threshold}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._threshold = state["threshold"]
