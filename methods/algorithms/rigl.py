"""RigL."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods import scores
from methods.base import Context, check_fraction
from methods.drop_grow import DropGrow
from methods.schedules import cosine, every, steps_of


@dataclass(kw_only=True)
class RigL(DropGrow):
    """Drops the smallest weights and grows those whose gradient is largest.

    Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners", ICML 2020,
    arXiv:1911.11134.

    After t steps, with t a multiple of update_every and below T_end, the next step is replaced by
    an update of the masks. In each layer with N kept weights (section 3, algorithm 1):
        f_decay(t) = alpha / 2 * (1 + cos(pi t / T_end));
        drop the k = floor(f_decay(t) * N) kept weights of smallest |w|;
        grow the k weights of largest |dL/dw| among those that are not kept now, with the dense
        gradient of that step's batch.
    Grown weights start at 0. A weight that was just dropped may grow again: it keeps its value.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | density | 1 - S | 0.2, 0.1 (ResNet-50) |
    | allocation | | erk, uniform |
    | drop_fraction | alpha | 0.3 |
    | update_every | Delta T | 100 steps |
    | stops_at | T_end / steps of the training | about 0.75 |

    Departures from the authors' TensorFlow code: it breaks ties in |w| by noise of deviation 1e-5;
    here the earlier one of two equal entries is dropped, or grown. Its first update replaces the
    very first step, on random weights; here the first update follows a full period. Its CIFAR-10
    script has a constant drop fraction by default; the paper's falls. Its uniform allocation leaves
    the first layer dense; here both allocations cover every layer. As in that code, counts are
    exact, and the optimizer state of grown weights is set to 0, but not that of weights that grow
    again. Layers that are frozen or got no gradient keep their masks. Where a gradient is not
    finite, there is no update, and the optimizer makes its step (a gradient scaler skips it).
    """

    name = "rigl"
    version = 1
    reference = "arXiv:1911.11134"
    pruned_gradients = "zero"
    regrown = "keep"

    update_every: int | str = "100 steps"
    stops_at: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("stops_at", self.stops_at)

    def due(self, ctx: Context) -> bool:
        """Whether the next step is an update."""
        period = steps_of(self.update_every, steps_per_epoch=ctx.steps_per_epoch)
        return every(ctx.step, period) and ctx.step < self.stops(ctx)

    def dense_gradient(self, ctx: Context) -> bool:
        return self.due(ctx)

    def after_backward(self, ctx: Context) -> bool:
        if not self.due(ctx) or not all(bool(_gradient(ctx, n).isfinite().all()) for n in self.moving(ctx)):
            return True
        self.update(ctx)
        return False

    def after_step(self, ctx: Context) -> None:
        """Nothing: the update replaces a step."""

    def dropped(self, ctx: Context, name: str, mask: Tensor) -> Tensor:
        fraction = cosine(ctx.step, self.stops(ctx), start=self.drop_fraction)
        count = int(fraction * int(torch.count_nonzero(mask)))
        return scores.top(-scores.magnitude(ctx.weights[name].parameter), count, among=mask)

    def grown(self, ctx: Context, name: str, mask: Tensor, kept: Tensor, count: int) -> Tensor:
        return scores.top(_gradient(ctx, name).abs(), count, among=~kept)

    def stops(self, ctx: Context) -> int:
        """T_end in steps."""
        return max(1, round(self.stops_at * ctx.total_steps))


def _gradient(ctx: Context, name: str) -> Tensor:
    gradient = ctx.weights[name].parameter.grad
    assert gradient is not None, "layers without a gradient take no part"
    return gradient
