"""Gradual pruning of recurrent networks by a rising threshold."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods import scores
from methods.base import Context, Method, check_choice, check_duration, check_fraction, check_positive
from methods.budgets import ALLOCATIONS
from methods.drop_grow import layer_counts
from methods.schedules import every, steps_of


@dataclass(kw_only=True)
class Narang(Method):
    """Prunes the weights below a threshold that rises slowly at first, and then faster.

    Narang, Diamos, Sengupta, Elsen, "Exploring Sparsity in Recurrent Neural Networks", ICLR 2017,
    arXiv:1704.05119.

    Every freq steps, in step t between start and end, for each layer (algorithm 1):
        epsilon = theta (t - start + 1) / freq                                 where t < ramp
        epsilon = (theta (ramp - start + 1) + phi (t - ramp + 1)) / freq       from ramp on
        prune the weights with |w| < epsilon, for good
        theta = 2 q freq / (2 (ramp - start) + 3 (end - ramp)),  phi = 1.5 theta    (1)
    so that epsilon rises to q, the threshold that leaves the wanted density.

    | hyperparameter | symbol | paper (not verified) |
    |---|---|---|
    | density | | 0.1, by q: the 90th percentile of abs(w) |
    | allocation | | the same q for layers of one type |
    | start | start_itr | the second epoch |
    | ramp | ramp_itr | 0.25 of the training |
    | end | end_itr | 0.5 of the training |
    | ramp_slope | phi / theta | 1.5 to 2 |
    | update_every | freq | 100 steps |

    start, ramp and end are shares of the training's steps; 0.05 is one of 20 epochs.

    Departures: the paper takes q from a dense network that was trained before, and so reaches the
    wanted density approximately. Here each update takes q from the layer's own weights: q is the
    smallest magnitude among the weights that are to stay in the end. One more update, at step end,
    keeps exactly the wanted count. For a ramp_slope other than 1.5, theta is such that epsilon
    still rises to q; the paper keeps eq. 1. Pruned weights stay pruned and their gradients are 0.
    Linear and convolution layers are pruned by the same rule. The density is divided by `erk`; the
    paper has one q for all layers of a type.
    """

    name = "narang"
    version = 1
    reference = "arXiv:1704.05119"
    density_promise = "final"
    pruned_gradients = "zero"

    density: float = 0.05
    allocation: str = "erk"
    start: float = 0.05
    ramp: float = 0.25
    end: float = 0.5
    ramp_slope: float = 1.5
    update_every: int | str = "100 steps"

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_choice("allocation", self.allocation, ALLOCATIONS)
        check_duration("update_every", self.update_every)
        if not 0 <= self.start <= self.ramp <= self.end <= 1 or self.end == 0:
            raise ValueError(
                f"start, ramp and end are {self.start}, {self.ramp} and {self.end}: they must rise from 0 to at most 1"
            )
        check_positive("ramp_slope", self.ramp_slope)

    def enter_phase(self, ctx: Context) -> None:
        self._counts(ctx)  # a density that the allocation cannot give fails at once

    def _counts(self, ctx: Context) -> dict[str, int]:
        return layer_counts(ctx, density=self.density, allocation=self.allocation)

    def after_step(self, ctx: Context) -> None:
        start, ramp, end = self._times(ctx.total_steps)
        period = steps_of(self.update_every, steps_per_epoch=ctx.steps_per_epoch)
        if ctx.step == end or (start < ctx.step < end and every(ctx.step, period)):
            share = 1.0 if ctx.step == end else rise(ctx.step, start=start, ramp=ramp, end=end, slope=self.ramp_slope)
            self._prune(ctx, share)

    def _times(self, total_steps: int) -> tuple[int, int, int]:
        start, ramp, end = (round(share * total_steps) for share in (self.start, self.ramp, self.end))
        return start, ramp, max(1, end)

    @torch.no_grad()
    def _prune(self, ctx: Context, share: float) -> None:
        """Prune below epsilon = share * q; with a share of 1, keep exactly the wanted count."""
        counts, masks = self._counts(ctx), {}
        for name, weight in ctx.weights.items():
            size = torch.where(ctx.masks[name], scores.magnitude(weight.parameter), -1)
            largest = scores.top(size, counts[name])
            masks[name] = largest if share == 1 else largest | (size >= share * size[largest].min())
        ctx.masks.set(masks)


def rise(step: int, *, start: int, ramp: int, end: int, slope: float) -> float:
    """epsilon / q in one step, at most 1. slope: phi / theta."""
    theta = 1 / max(1.0, (ramp - start) + slope * (end - ramp))  # per step; eq. 1 for a slope of 1.5
    if step < ramp:
        return min(1.0, theta * (step - start + 1))
    return min(1.0, theta * (ramp - start + 1) + slope * theta * (step - ramp + 1))
