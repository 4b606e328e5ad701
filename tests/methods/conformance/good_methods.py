"""Methods that keep their promises, one per family and some more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from methods import Context, Method, Phase, scores, units
from methods.budgets import allocate
from methods.drop_grow import DropGrow


class Plugin(Method):
    version = 1
    reference = "none"
    name = "plugin"
    density_promise = "exact"


@dataclass(kw_only=True)
class GrowByGradient(DropGrow):
    """Masked in place: grows where the gradient is largest, and not by its own clock."""

    name = "grow_by_gradient"
    version = 1
    reference = "none"

    def dropped(self, ctx: Context, name: str, mask: Tensor) -> Tensor:
        count = int(self.drop_fraction * int(mask.sum()))
        return scores.top(-scores.magnitude(ctx.weights[name].parameter), count, among=mask)

    def grown(self, ctx: Context, name: str, mask: Tensor, kept: Tensor, count: int) -> Tensor:
        gradient = ctx.weights[name].parameter.grad
        assert gradient is not None
        return scores.top(gradient.abs(), count, among=~kept)


@dataclass(kw_only=True)
class CountsInSteps(GrowByGradient):
    """Its period is a number of steps and no duration in epochs."""

    update_every: int = 100

    def due(self, ctx: Context) -> bool:
        return ctx.step % self.update_every == 0 and ctx.step < ctx.total_steps


@dataclass(kw_only=True)
class LargestInForward(Plugin):
    """Masked forward: all weights are trained, the largest of each layer compute."""

    density: float = 0.5
    stale_counts: ClassVar[bool] = False

    def enter_phase(self, ctx: Context) -> None:
        ctx.thresholds.attach(shape="scalar", estimator="straight_through")
        self.after_step(ctx)

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        shapes = {name: tuple(weight.parameter.shape) for name, weight in ctx.weights.items()}
        counts = allocate(shapes, density=self.density, allocation="erk")
        for name, threshold in ctx.thresholds.parameters().items():
            sizes = ctx.weights[name].parameter.abs().flatten().sort(descending=True).values
            threshold.fill_(sizes[counts[name]] if counts[name] < len(sizes) else -1.0)
        if not self.stale_counts:
            ctx.thresholds.update_(reset_below=None)


@dataclass(kw_only=True)
class DecayingThresholds(Plugin):
    """Reparametrized: thresholds grow by the pressure of a penalty of its own."""

    density_promise = "emergent"
    pressure: float = 0.05

    def enter_phase(self, ctx: Context) -> None:
        ctx.thresholds.attach(shape="matrix", estimator="long_tailed")

    def penalty(self, ctx: Context) -> Tensor:
        return -self.pressure * torch.stack([t.sum() for t in ctx.thresholds.parameters().values()]).sum()

    def after_step(self, ctx: Context) -> None:
        ctx.thresholds.update_(reset_below=0.1)


@dataclass(kw_only=True)
class ScoreOnDataThenRetrain(Plugin):
    """Three phases: dense, pruned once by |weight * gradient| on the data, rewound and trained anew."""

    density_promise = "final"
    density: float = 0.5

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        return (
            Phase("dense", total_steps // 2),
            Phase("tune", 3, lr=0.01),
            Phase("retrain", total_steps, new_optimizer=True, lr=0.1),
        )

    @torch.no_grad()
    def enter_phase(self, ctx: Context) -> None:
        weights = {name: weight.parameter for name, weight in ctx.weights.items()}
        if ctx.phase.name == "dense":
            self.initial = {name: weight.clone() for name, weight in weights.items()}
        if ctx.phase.name == "tune":
            counts = allocate({n: tuple(w.shape) for n, w in weights.items()}, density=self.density, allocation="erk")
            gradients = self.gradients(ctx, weights)
            ctx.masks.set({n: scores.top((w * gradients[n]).abs(), counts[n]) for n, w in weights.items()})
        if ctx.phase.name == "retrain":
            for name, weight in weights.items():
                weight.copy_(self.initial[name] * ctx.masks[name])

    def gradients(self, ctx: Context, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        modes = [(module, module.training) for module in ctx.model.modules()]
        ctx.model.eval()
        with torch.enable_grad():
            losses = [ctx.loss_fn(ctx.model(x), target) for x, target in ctx.train_batches()]
            gradients = torch.autograd.grad(torch.stack(losses).sum(), list(weights.values()))
        for module, mode in modes:
            module.training = mode
        return dict(zip(weights, gradients, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"initial": self.initial}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.initial = dict(state["initial"])


@dataclass(kw_only=True)
class LargestUnits(Plugin):
    """Whole neurons and filters: after half of the training those of the largest norm stay."""

    density_promise = "final"
    granularity = "unit"
    density: float = 0.5

    def after_step(self, ctx: Context) -> None:
        if ctx.step == ctx.total_steps // 2:
            total = round(self.density * sum(weight.parameter.numel() for weight in ctx.weights.values()))
            norms = {n: units.by_unit(w, w.parameter.detach()).norm(dim=1) for n, w in ctx.weights.items()}
            ctx.masks.set(units.keep_best(ctx.weights, norms, total=total))


class NoisyGradients(Plugin):
    """Dense, takes its own steps on the whole model, with noise from ctx.generator."""

    density_promise = "dense"

    @torch.no_grad()
    def after_backward(self, ctx: Context) -> bool:
        for parameter in ctx.model.parameters():
            if parameter.grad is not None:
                noise = torch.randn(parameter.shape, generator=ctx.generator)
                parameter -= ctx.lr * (parameter.grad + 0.001 * noise)
        return False
