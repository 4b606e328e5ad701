"""Methods that another process can import, and that go wrong there or when they are compiled."""

from __future__ import annotations

from typing import Any

import torch
from good_methods import GrowByGradient, Plugin
from torch import Tensor

from methods import Context, scores
from methods.weights.reparametrization import EffectiveWeight


class SeedsByHash(GrowByGradient):
    """The seed depends on Python's string hashing, as in published code."""

    def enter_phase(self, ctx: Context) -> None:
        ctx.generator.manual_seed(hash(self.name) % 2**40)
        super().enter_phase(ctx)


class GrowsByItsOwnGradient(GrowByGradient):
    """Reads the gradient of its process, before all processes have averaged it."""

    def enter_phase(self, ctx: Context) -> None:
        super().enter_phase(ctx)
        self.seen: dict[str, Tensor] = {}
        for name, weight in ctx.weights.items():
            weight.parameter.register_hook(self.keeper(name))

    def keeper(self, name: str) -> Any:
        return lambda gradient: self.seen.__setitem__(name, gradient.clone())

    def grown(self, ctx: Context, name: str, mask: Tensor, kept: Tensor, count: int) -> Tensor:
        return scores.top(self.seen[name].abs(), count, among=~kept)


class LargeOnly(EffectiveWeight):
    """Weights above 0.1 in size; all of them where torch.compile traces the layer."""

    def __call__(self, weight: Tensor, extra: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return weight + 0 * extra
        return torch.where(weight.abs() > 0.1, weight + 0 * extra, 0)


class DenseWhereCompiled(Plugin):
    density_promise = "emergent"

    def enter_phase(self, ctx: Context) -> None:
        ctx.thresholds.attach_own(LargeOnly(), lambda weight: weight.parameter.new_zeros(()))

    def after_step(self, ctx: Context) -> None:
        ctx.thresholds.count_()


class EndsItsProcess(Plugin):
    """Ends one of two processes without a word."""

    density_promise = "dense"

    def after_step(self, ctx: Context) -> None:
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            raise SystemExit(7)
