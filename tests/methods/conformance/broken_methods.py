"""Methods that break a promise of their class, of what they keep, or of repeating a training."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from good_methods import GrowByGradient, LargestInForward, Plugin
from torch import Tensor, nn

from methods import Context, Method, Phase, scores
from methods.budgets import allocate
from methods.drop_grow import random_masks
from methods.masks import Masks
from methods.schedules import every


class NoPromise(Plugin):
    density_promise = "sparse"  # type: ignore[assignment]


class NoReference(Method):
    name = "no_reference"
    version = 1
    density_promise = "dense"


class NeedsAnArgument(Plugin):
    def __init__(self, *, rate: float) -> None:
        self.rate = rate


class Random(Plugin):
    """Static masks; what the broken ones start from."""

    density: float

    def __init__(self, *, density: float = 0.5) -> None:
        self.density = density

    def enter_phase(self, ctx: Context) -> None:
        random_masks(ctx, density=self.density, allocation="erk")


class ForgetsAHyperparameter(Random):
    def __init__(self, *, density: float = 0.5, rate: float = 0.1) -> None:
        super().__init__(density=density)


class IgnoresAHyperparameter(Random):
    def __init__(self, *, density: float = 0.5) -> None:
        super().__init__(density=0.5)


class OverwritesAHyperparameter(Random):
    def __init__(self, *, density: float = 0.5, alpha: float = 0.1) -> None:
        super().__init__(density=density)
        self.alpha = 0.1

    def penalty(self, ctx: Context) -> Tensor:
        return self.alpha * torch.zeros(())


class TakesAnyHyperparameter(Random):
    def __init__(self, *, density: float = 0.5, **others: Any) -> None:
        super().__init__(density=density)


class RaisesLate(Random):
    def after_step(self, ctx: Context) -> None:
        if ctx.step == 5:
            raise KeyError("lost")


class EmptyPhase(Random):
    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        return Phase("nothing", 0), Phase("train", total_steps)


class ChangingPhases(Random):
    asked = 0

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        self.asked += 1
        return (Phase("train", total_steps + self.asked % 2),)


class VectorPenalty(Random):
    def penalty(self, ctx: Context) -> Tensor:
        return torch.zeros(1)


class InfinitePenalty(Random):
    def penalty(self, ctx: Context) -> Tensor:
        return torch.tensor(torch.inf)


class Numbers(Masks):
    def __getitem__(self, name: str) -> Tensor:
        return super().__getitem__(name).float()


class FloatMasks(Random):
    def enter_phase(self, ctx: Context) -> None:
        ctx.masks = Numbers(ctx.weights)
        super().enter_phase(ctx)


class UnzeroedWeights(Random):
    def after_step(self, ctx: Context) -> None:
        for weight in ctx.weights.values():
            weight.parameter.data.add_(1e-3)


class StaleCounts(LargestInForward):
    stale_counts = True


class ZeroesBehindTheMasks(Plugin):
    density_promise = "dense"

    def after_step(self, ctx: Context) -> None:
        for weight in ctx.weights.values():
            weight.parameter.data[:, ::2] = 0


class DriftingCount(Random):
    """Each entry is kept by a draw of its own, as published code has it."""

    def enter_phase(self, ctx: Context) -> None:
        keep = {n: torch.rand(w.parameter.shape, generator=ctx.generator) for n, w in ctx.weights.items()}
        ctx.masks.set({name: draw < self.density for name, draw in keep.items()})


class DriftsLater(Random):
    def after_step(self, ctx: Context) -> None:
        if ctx.step == 20:
            name = next(iter(ctx.weights))
            ctx.masks.set({name: ctx.masks[name] & (ctx.weights[name].parameter.abs() > 0.1)})


class PromisesDense(Random):
    density_promise = "dense"


class NeverArrives(Plugin):
    density_promise = "final"
    density = 0.5


class ExactlyWhat(Plugin):
    density_promise = "exact"


class PrunesBiases(Random):
    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        for name, parameter in ctx.model.named_parameters():
            if name not in ctx.weights:
                parameter[parameter.abs() < 0.05] = 0


class ScoresInTrainingMode(Random):
    def enter_phase(self, ctx: Context) -> None:
        super().enter_phase(ctx)
        for x, _ in ctx.train_batches():
            ctx.model(x)  # moves the running statistics


class PrunesTheExcluded(Random):
    """Looks for layers itself: zeroes a column of every matrix, excluded or not."""

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        for name, parameter in ctx.model.named_parameters():
            if parameter.dim() > 1 and name not in ctx.weights:
                parameter[:, 0] = 0


class KeepsMomentum(GrowByGradient):
    def update(self, ctx: Context) -> None:
        state = ctx.masks.zero_optimizer_state_
        ctx.masks.zero_optimizer_state_ = lambda *_: None  # type: ignore[method-assign]
        super().update(ctx)
        ctx.masks.zero_optimizer_state_ = state  # type: ignore[method-assign]


class KeepsMomentumAndSaysSo(KeepsMomentum):
    grown_state = "keep"


class OtherEachTime(Random):
    def enter_phase(self, ctx: Context) -> None:
        ctx.generator.manual_seed(random.SystemRandom().getrandbits(40))
        super().enter_phase(ctx)


_SEEDED_ONCE = torch.Generator().manual_seed(0)


class GoesOnDrawing(Random):
    """Seeds once in a process, so that trainings in one process are not repeated."""

    def enter_phase(self, ctx: Context) -> None:
        ctx.generator.manual_seed(int(torch.randint(2**40, (), generator=_SEEDED_ONCE)))
        super().enter_phase(ctx)


class FixedSeed(Random):
    """A subclass says how it draws with a seed of its own."""

    def enter_phase(self, ctx: Context) -> None:
        sizes = {name: tuple(weight.parameter.shape) for name, weight in ctx.weights.items()}
        counts = allocate(sizes, density=self.density, allocation="erk")
        ctx.masks.set({name: scores.top(self.draw(shape), counts[name]) for name, shape in sizes.items()})

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(0))


class FixedSeedOfNumPy(FixedSeed):
    def draw(self, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(np.random.default_rng(0).random(shape))


class FixedSeedOfPython(FixedSeed):
    def draw(self, shape: tuple[int, ...]) -> Tensor:
        generator = random.Random(0)
        return torch.tensor([generator.random() for _ in range(math.prod(shape))]).view(shape)


@dataclass(kw_only=True)
class ForgetsState(GrowByGradient):
    """Grows by a running mean of gradients that its state leaves out."""

    name = "forgets_state"

    def enter_phase(self, ctx: Context) -> None:
        super().enter_phase(ctx)
        self.mean = {name: torch.zeros_like(weight.parameter) for name, weight in ctx.weights.items()}

    def after_backward(self, ctx: Context) -> bool:
        for name, weight in ctx.weights.items():
            assert weight.parameter.grad is not None
            self.mean[name] = 0.9 * self.mean[name] + weight.parameter.grad
        return True

    def grown(self, ctx: Context, name: str, mask: Tensor, kept: Tensor, count: int) -> Tensor:
        return scores.top(self.mean[name].abs(), count, among=~kept)


@dataclass(kw_only=True)
class SavesState(ForgetsState):
    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean = dict(state["mean"])


class SavesWhatIsUnsafeToLoad(Random):
    def state_dict(self) -> dict[str, Any]:
        return {"own": np.random.default_rng(0)}


class CountsItsOwnSteps(GrowByGradient):
    """A clock of its own beside ctx.step, lost on resume."""

    steps = 0

    def after_step(self, ctx: Context) -> None:
        self.steps += 1
        if every(self.steps, 4):
            self.update(ctx)


class TorchRandomness(Random):
    def after_step(self, ctx: Context) -> None:
        torch.rand(1)


class NumpyRandomness(Random):
    def penalty(self, ctx: Context) -> None:
        np.random.rand()


class PythonRandomness(Random):
    def enter_phase(self, ctx: Context) -> None:
        super().enter_phase(ctx)
        random.random()


def double(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return 1.5 * output


class Hooks(Random):
    def enter_phase(self, ctx: Context) -> None:
        super().enter_phase(ctx)
        for weight in ctx.weights.values():
            weight.module.register_forward_hook(double)


class Unpicklable(Random):
    def enter_phase(self, ctx: Context) -> None:
        super().enter_phase(ctx)
        ctx.model.rule = lambda: None  # type: ignore[assignment]


class NeverTrains(Random):
    def after_backward(self, ctx: Context) -> bool:
        return False
