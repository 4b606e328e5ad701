"""DEEP R: deep rewiring."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from methods.base import Context, check_positive
from methods.drop_grow import Rewiring


@dataclass(kw_only=True)
class DeepR(Rewiring):
    """Drops every weight that changes its sign and grows as many at random, after every step.

    Bellec, Kappel, Maass, Legenstein, "Deep rewiring: training very sparse deep networks", ICLR
    2018, arXiv:1711.05136.

    A kept weight is w_k = s_k theta_k with a fixed sign s_k and theta_k >= 0. Each step
    (algorithm 1), with eta the learning rate and nu_k normal noise:
        theta_k <- theta_k - eta dE/dtheta_k - eta alpha + sqrt(2 eta T) nu_k;
        a weight with theta_k < 0 is dropped;
        as many weights grow, uniformly among those that are not kept, with theta_k = 0.
    The optimizer makes the gradient step. This class adds the terms with alpha and nu_k.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | density | | authors' code: 0.01, 0.03 and 0.3 in the layers of LeNet-300-100 |
    | allocation | | each layer's density is given |
    | l1 | alpha | authors' code: 1e-5 |
    | noise | sqrt(2 T / eta) | authors' code: 1e-5, so T = eta noise^2 / 2 |

    Departures: the authors use plain gradient descent with a learning rate of 0.5 that falls by 0.8
    an epoch, batches of 10 and no biases; here any optimizer takes the step, and alpha and the
    noise are not multiplied by its momentum. The optimizer state of a grown weight starts at 0. A
    kept weight has the sign that it has after the first step, and the other signs are drawn. So
    weights that are initialised or loaded after `attach` are not dropped for their signs. Each
    layer keeps its count, as in the authors' first script; algorithm 1 keeps only the total. Their
    code draws initial positions with replacement, so that layers are slightly sparser, and grows
    from theta_k = 1e-12. Frozen layers keep their masks. Every step waits for the device, to count
    the dropped weights.

    It starts slowly. On 6,000 examples of MNIST, LeNet-300-100 at a density of 0.05 has a test
    accuracy of 65 % after 940 steps (two seeds), and 70 % with `static`. After 20 epochs of all of
    MNIST it is ahead, with 95.9 % (one seed) against 95.7 %.
    """

    name = "deep_r"
    version = 1
    reference = "arXiv:1711.05136"
    pruned_gradients = "zero"

    l1: float = 1e-5
    noise: float = 1e-5
    _positive: dict[str, Tensor] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("l1", "noise"):
            check_positive(name, getattr(self, name), or_zero=True)

    def due(self, ctx: Context) -> bool:
        return True

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        if not self._positive:
            self._positive = {name: self._signs_of(ctx, name) for name in ctx.weights}
        for name in self.moving(ctx):
            self._regularize_(ctx, name)
        super().after_step(ctx)

    def _signs_of(self, ctx: Context, name: str) -> Tensor:
        """True where a weight may be positive: bool, shape of the weight."""
        weight = ctx.weights[name].parameter
        drawn = torch.randint(2, weight.shape, generator=ctx.generator, dtype=torch.bool, device="cpu")
        return torch.where(weight == 0, drawn.to(weight.device), weight > 0)

    def _positive_in(self, ctx: Context, name: str) -> Tensor:
        """The signs of a layer, on its device."""
        self._positive[name] = self._positive[name].to(ctx.weights[name].parameter.device)
        return self._positive[name]

    def _regularize_(self, ctx: Context, name: str) -> None:
        """Move the kept weights towards zero by eta alpha, and at random."""
        weight, kept = ctx.weights[name].parameter, ctx.masks[name].nonzero(as_tuple=True)
        change = torch.where(self._positive_in(ctx, name)[kept], -self.l1, self.l1).to(weight.dtype)
        if self.noise:
            drawn = torch.randn(len(change), generator=ctx.generator, dtype=torch.float32, device="cpu")
            change += self.noise * drawn.to(weight)
        weight[kept] += ctx.lr_of(weight) * change

    def dropped(self, ctx: Context, name: str, mask: Tensor) -> Tensor:
        weight = ctx.weights[name].parameter
        return mask & ((weight > 0) ^ self._positive_in(ctx, name)) & (weight != 0)

    def grown(self, ctx: Context, name: str, mask: Tensor, kept: Tensor, count: int) -> Tensor:
        grown = torch.zeros_like(kept)
        if count:
            free = (~kept).nonzero()
            grown[tuple(free[_sample(len(free), count, ctx.generator).to(free.device)].T)] = True
        return grown

    def state_dict(self) -> dict[str, Any]:
        return {"positive": self._positive}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._positive = dict(state["positive"])


def _sample(size: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` different numbers below `size`, in time proportional to the count: int64 [count], on the CPU."""
    seed = int(torch.randint(2**62, (), generator=generator, device="cpu"))
    return torch.tensor(random.Random(seed).sample(range(size), count), device="cpu")
