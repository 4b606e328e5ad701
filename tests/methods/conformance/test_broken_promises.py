"""Methods that break one promise each: the kit names it, and no other."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from good_methods import GrowByGradient, LargestInForward, LargestUnits, Plugin
from torch import Tensor, nn

from methods import Context, Method, Phase, scores
from methods.budgets import allocate, share
from methods.conformance import ConformanceError, check, check_method
from methods.conformance import ways as other_ways
from methods.conformance.networks import FAST
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
    def enter_phase(self, ctx: Context) -> None:
        sizes = {name: tuple(weight.parameter.shape) for name, weight in ctx.weights.items()}
        counts = allocate(sizes, density=self.density, allocation="erk")
        generator = torch.Generator().manual_seed(0)
        ctx.masks.set({n: scores.top(torch.rand(shape, generator=generator), counts[n]) for n, shape in sizes.items()})


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


def broken_promises(method: type[Method] | Any, **values: Any) -> set[str]:
    try:
        check_method(method, **values)
    except ConformanceError as error:
        return set(re.findall(r"^  (\w+)", str(error), flags=re.MULTILINE))
    return set()


@pytest.mark.parametrize(
    ("method", "want"),
    [
        (object, {"check_class"}),
        (7, {"check_class"}),
        (NoPromise, {"check_class"}),
        (NoReference, {"check_class"}),
        (NeedsAnArgument, {"check_class"}),
        (ForgetsAHyperparameter, {"check_hyperparameters", "check_training"}),
        (IgnoresAHyperparameter, {"check_hyperparameters"}),
        (TakesAnyHyperparameter, {"check_unknown_hyperparameter_is_refused"}),
        (RaisesLate, {"check_training"}),
        (EmptyPhase, {"check_phases", "check_training"}),
        (ChangingPhases, {"check_phases"}),
        (VectorPenalty, {"check_penalty_is_a_finite_scalar"}),
        (InfinitePenalty, {"check_penalty_is_a_finite_scalar"}),
        (UnzeroedWeights, {"check_pruned_weights_are_zero"}),
        (StaleCounts, {"check_kept_counts"}),
        (ZeroesBehindTheMasks, {"check_masks_are_the_zeros_of_the_finalized_weights"}),
        (DriftingCount, {"check_density_promise"}),
        (DriftsLater, {"check_density_promise"}),
        (PromisesDense, {"check_density_promise"}),
        (NeverArrives, {"check_density_promise"}),
        (ExactlyWhat, {"check_density_promise"}),
        (PrunesBiases, {"check_other_parameters_untouched", "check_excluded_untouched"}),
        (ScoresInTrainingMode, {"check_other_parameters_untouched"}),
        (PrunesTheExcluded, {"check_excluded_untouched"}),
        (KeepsMomentum, {"check_optimizer_state_of_grown_weights"}),
        (OtherEachTime, {"check_same_seed_same_run"}),
        (GoesOnDrawing, {"check_same_seed_same_run"}),
        (FixedSeed, {"check_other_seed_other_masks"}),
        (ForgetsState, {"check_resume_is_bit_exact"}),
        (SavesWhatIsUnsafeToLoad, {"check_resume_is_bit_exact"}),
        (CountsItsOwnSteps, {"check_resume_is_bit_exact"}),
        (TorchRandomness, {"check_global_randomness_untouched"}),
        (NumpyRandomness, {"check_global_randomness_untouched"}),
        (PythonRandomness, {"check_global_randomness_untouched"}),
        (Hooks, {"check_finalize_gives_a_plain_model"}),
        (Unpicklable, {"check_copies_compute_the_same"}),
        (NeverTrains, {"check_task_loss_falls"}),
        (KeepsTheComplement, {"check_drop_fraction", "check_task_loss_falls"}),
        (KeepsTheMostNegative, {"check_drop_fraction"}),
        (RedistributesAnyway, {"check_layer_counts"}),
        (LosesItsMasks, {"check_training"}),
        (ShufflesNothing, {"check_every_hyperparameter_has_an_effect"}),
        (DiscardsNewValues, {"check_every_hyperparameter_has_an_effect"}),
        (IgnoresItsFrequency, {"check_every_hyperparameter_has_an_effect"}),
        (PartsOfUnits, {"check_units_are_whole"}),
        (LosesUnits, {"check_density_promise"}),
        (CountsOneLayerLess, {"check_gradient_counts"}),
        (ZeroesMomentumThatItKeeps, {"check_optimizer_state_of_grown_weights"}),
        (LetsGradientsPass, {"check_gradients_of_pruned_weights", "check_optimizer_state_of_pruned_weights"}),
        (FillsMomentum, {"check_optimizer_state_of_pruned_weights"}),
        (MovesTheFrozen, {"check_other_parameters_untouched"}),
        (ReadsMoments, {"check_with_sgd", "check_with_nesterov", "check_with_clipped_gradients"}),
        (ZeroesTheMomentumBuffer, {"check_with_adam", "check_with_adamw"}),
        (CountsBackwardPasses, {"check_with_accumulated_gradients"}),
        (UndoesClipping, {"check_with_clipped_gradients"}),
        (ScoresInLowPrecision, {"check_with_autocast"}),
        (Random, set()),
        (KeepsMomentumAndSaysSo, set()),
        (SavesState, set()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_promise_is_named_and_no_other(method: Any, want: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    only_on(monkeypatch, ON.get(method, "mlp"), ways=any(name.startswith("check_with") for name in want))
    assert broken_promises(method) == want


ON = {ScoresInTrainingMode: "conv2d", MovesTheFrozen: "shared and frozen", ZeroesTheMomentumBuffer: "conv2d"}


def only_on(monkeypatch: pytest.MonkeyPatch, name: str, *, ways: bool) -> None:
    """Check on one network; other ways of training cost half of the time."""
    monkeypatch.setattr(check, "FAST", tuple(network for network in FAST if network.name == name))
    if not ways:
        monkeypatch.setattr(other_ways, "CHECKS", ())


def test_masks_that_are_not_bool_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    only_on(monkeypatch, "mlp", ways=False)
    assert broken_promises(FloatMasks) >= {"check_training"}


def test_the_error_lists_every_promise_with_network_and_fault() -> None:
    class Bad(Random):
        def after_step(self, ctx: Context) -> None:
            torch.rand(1)
            next(iter(ctx.weights.values())).parameter.data.add_(1.0)

    with pytest.raises(ConformanceError) as caught:
        check_method(Bad)
    lines = str(caught.value).splitlines()
    assert lines[0] == "method 'plugin' breaks its promises:"
    for network in FAST:
        for promise, fault in (
            ("check_pruned_weights_are_zero", r"\d+ pruned weights of .*weight.* are not 0 after step 1"),
            ("check_global_randomness_untouched", r"a global generator moved at step 1: draw from ctx\.generator"),
        ):
            assert any(re.fullmatch(f"  {promise} on {network.name}: {fault}", line) for line in lines)
