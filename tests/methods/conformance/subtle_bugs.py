"""Methods with bugs of published code, and bugs that show only in units, gradients or some ways of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from broken_methods import KeepsMomentum, Random
from good_methods import GrowByGradient, LargestUnits, Plugin
from torch import Tensor, nn

from methods import Context, DensityKnob, Phase, scores
from methods.budgets import share
from methods.schedules import every


class KeepsTheComplement(GrowByGradient):
    """Drops what it should keep, as published code does, and grows as many weights as it dropped."""

    def dropped(self, ctx: Context, name: str, mask: Tensor) -> Tensor:
        return mask & ~super().dropped(ctx, name, mask)


class KeepsTheMostNegative(GrowByGradient):
    """Keeps the most negative half of its quota, as published code does, and not the weights nearest 0."""

    def dropped(self, ctx: Context, name: str, mask: Tensor) -> Tensor:
        quota = int((1 - self.drop_fraction) * int(mask.sum())) // 2
        return mask & ~scores.top(-ctx.weights[name].parameter.detach(), quota, among=mask)


@dataclass(kw_only=True)
class RedistributesAnyway(GrowByGradient):
    """`none` still gives every layer its share by size, as published code does."""

    redistribution: str = "none"

    def growth_counts(self, ctx: Context, masks: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> dict[str, int]:
        assert self.redistribution
        free = {name: int((~mask).sum()) for name, mask in kept.items()}
        dropped = sum(int(mask.sum()) - int(kept[name].sum()) for name, mask in masks.items())
        return share(free, room=free, total=dropped)


class LosesItsMasks(Random):
    """Has no masks at the end, as published code for a dense run."""

    def after_step(self, ctx: Context) -> None:
        if ctx.step == ctx.total_steps:
            ctx.masks = None  # type: ignore[assignment]


@dataclass(kw_only=True)
class ShufflesNothing(GrowByGradient):
    """The switch calls something, and the result is thrown away."""

    shuffle: bool = False

    def grown(self, ctx: Context, name: str, mask: Tensor, kept: Tensor, count: int) -> Tensor:
        if self.shuffle:
            kept.flatten().flip(0)
        return super().grown(ctx, name, mask, kept, count)


@dataclass(kw_only=True)
class DiscardsNewValues(GrowByGradient):
    """Draws new values for grown weights and does not store them."""

    reinitialize: bool = True

    def grown(self, ctx: Context, name: str, mask: Tensor, kept: Tensor, count: int) -> Tensor:
        grown = super().grown(ctx, name, mask, kept, count)
        if self.reinitialize:
            torch.where(grown, 0.1, ctx.weights[name].parameter)
        return grown


@dataclass(kw_only=True)
class IgnoresItsFrequency(GrowByGradient):
    decay_frequency: int = 2


class PartsOfUnits(Random):
    """Random single weights, called units."""

    granularity = "unit"


class LosesUnits(LargestUnits):
    """Keeps fewer units than it should."""

    def after_step(self, ctx: Context) -> None:
        LargestUnits(density=0.8 * self.density).after_step(ctx)


class CountsOneLayerLess(Random):
    def gradient_counts(self, ctx: Context) -> Tensor:
        return ctx.masks.kept_counts()[1:]


class ZeroesMomentumThatItKeeps(GrowByGradient):
    """Says "keep", and its base has read "zero" before."""

    def update(self, ctx: Context) -> None:
        type(self).grown_state = "zero"
        super().update(ctx)
        type(self).grown_state = "keep"

    grown_state = "keep"


class LetsGradientsPass(Random):
    pruned_gradients = "zero"

    def after_backward(self, ctx: Context) -> bool:
        ctx.masks.keep_gradients(True)
        return True


class FillsMomentum(Random):
    """The gradients of pruned weights are 0 as they arrive, and it writes them again."""

    pruned_gradients = "zero"

    def after_backward(self, ctx: Context) -> bool:
        for weight in ctx.weights.values():
            assert weight.parameter.grad is not None
            weight.parameter.grad.add_(0.01)
        return True


class MovesTheFrozen(Random):
    """Zeroes small weights of every layer, the frozen and the tied ones too."""

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        for parameter in ctx.model.parameters():
            if parameter.dim() > 1 and not parameter.requires_grad:
                parameter[parameter.abs() < 0.05] = 0


class ReadsMoments(Random):
    """Works with Adam and its relatives only, and does not say so."""

    def after_step(self, ctx: Context) -> None:
        assert ctx.optimizer is not None
        for weight in ctx.weights.values():
            assert ctx.optimizer.state[weight.parameter]["exp_avg"] is not None


class ZeroesTheMomentumBuffer(KeepsMomentum):
    """Knows the state of SGD only."""

    def update(self, ctx: Context) -> None:
        before = {name: ctx.masks[name] for name in ctx.weights}
        super().update(ctx)
        assert ctx.optimizer is not None
        for name, weight in ctx.weights.items():
            buffer = ctx.optimizer.state[weight.parameter].get("momentum_buffer")
            if buffer is not None:
                buffer[weight_grew(ctx.masks[name], before[name])] = 0


def weight_grew(now: Tensor, before: Tensor) -> Tensor:
    return now & ~before


class CountsBackwardPasses(GrowByGradient):
    """Updates after every fourth backward pass, which is not every fourth step."""

    passes = 0

    def enter_phase(self, ctx: Context) -> None:
        super().enter_phase(ctx)
        next(iter(ctx.weights.values())).parameter.register_hook(self.count)

    def count(self, gradient: Tensor) -> None:
        self.passes += 1

    def due(self, ctx: Context) -> bool:
        return every(self.passes, 4) and ctx.step < ctx.total_steps

    def state_dict(self) -> dict[str, Any]:
        return {"passes": self.passes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.passes = state["passes"]


class WritesToTheMemoryOfTheStart(Random):
    """Remembers where the weights are in memory, and later shrinks what is there."""

    pruned_gradients = "zero"

    def enter_phase(self, ctx: Context) -> None:
        super().enter_phase(ctx)
        self.memory = [weight.parameter.detach() for weight in ctx.weights.values()]

    def after_step(self, ctx: Context) -> None:
        for values in self.memory:
            values.mul_(0.99)


class UndoesClipping(Random):
    """Updates with the gradients that arrived, whatever became of them since."""

    def enter_phase(self, ctx: Context) -> None:
        super().enter_phase(ctx)
        self.arrived: dict[nn.Parameter, Tensor] = {}
        for parameter in ctx.model.parameters():
            parameter.register_post_accumulate_grad_hook(self.keep)

    def keep(self, parameter: Any) -> None:
        self.arrived[parameter] = parameter.grad.clone()

    def after_backward(self, ctx: Context) -> bool:
        for parameter, gradient in self.arrived.items():
            parameter.grad = gradient
        return True


class ScoresInLowPrecision(Plugin):
    """Computes scores in the forward pass's precision, where many are equal, and keeps all that are large enough."""

    density = 0.5

    def enter_phase(self, ctx: Context) -> None:
        self.penalty(ctx)

    @torch.no_grad()
    def penalty(self, ctx: Context) -> None:
        masks = {}
        for name, weight in ctx.weights.items():
            parameter = weight.parameter
            places = torch.linspace(1, 1.01, parameter.numel(), dtype=torch.float64).to(parameter.dtype)
            score = (places.view(-1, 4) @ torch.eye(4, dtype=parameter.dtype)).float().flatten()
            masks[name] = (score >= score.sort().values[len(score) // 2]).view(parameter.shape)
        ctx.masks.set(masks)


class ZeroesOtherGradients(Random):
    """Zeroes the gradients of all that it does not mask."""

    def after_backward(self, ctx: Context) -> bool:
        for name, parameter in ctx.model.named_parameters():
            if name not in ctx.weights and parameter.grad is not None:
                parameter.grad.zero_()
        return True


class ChangesTheLearningRate(Random):
    def after_step(self, ctx: Context) -> None:
        assert ctx.optimizer is not None
        for group in ctx.optimizer.param_groups:
            group["lr"] = 0.01


class WipesAllState(Random):
    """Zeroes the moments of every parameter."""

    def after_step(self, ctx: Context) -> None:
        assert ctx.optimizer is not None
        for state in ctx.optimizer.state.values():
            state["exp_avg"].zero_()


class TrainsAQuarter(Random):
    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        return (Phase("train", total_steps // 4),)


@dataclass(kw_only=True)
class PrunesNothing(Plugin):
    density_promise = "emergent"
    density_knob = DensityKnob(name="alpha", low=1e-8, high=1.0)

    alpha: float = 1e-3

    def penalty(self, ctx: Context) -> Tensor:
        return self.alpha * torch.stack([weight.parameter.abs().sum() for weight in ctx.weights.values()]).sum()
