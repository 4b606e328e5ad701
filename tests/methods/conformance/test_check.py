"""The conformance kit: our methods and good plug-ins pass, and each broken promise is named."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import methods
from methods import Context, Method, Phase, registry, scores
from methods.budgets import allocate
from methods.conformance import ConformanceError, check, check_method
from methods.conformance.networks import FAST, FULL
from methods.conformance.training import Training
from methods.drop_grow import DropGrow, random_masks
from methods.masks import Masks
from methods.schedules import every


@pytest.mark.parametrize("name", methods.available())
def test_every_method_keeps_its_promises(name: str) -> None:
    check_method(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.available())
def test_every_method_keeps_its_promises_on_every_network(name: str) -> None:
    check_method(name, level="full")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("dst", {"alpha": 0.2}),  # resets, see below
        ("dst", {"alpha": 0.05, "threshold": "scalar", "estimator": "straight_through"}),
        ("dst", {"alpha": 0.05, "threshold": "matrix", "reset_density": None, "threshold_weight_decay": 0.01}),
        ("set", {"drop": "magnitude", "drop_fraction": 0.5, "update_every": 1}),
        ("static", {"allocation": "uniform", "density": 0.6}),
    ],
)
def test_methods_keep_their_promises_with_other_hyperparameters(name: str, values: dict[str, Any]) -> None:
    check_method(name, **values)


def test_the_kit_trains_dst_through_resets_and_set_through_updates() -> None:
    dst = Training(methods.create("dst", alpha=0.2), FAST[1]).run()
    assert dst.attached.threshold_resets() > 0
    updated = Training(methods.create("set", density=0.3), FAST[0]).run()
    masks = [moment.masks["0.weight"] for moment in updated.moments]
    assert [i for i in range(1, 25) if not torch.equal(masks[i], masks[i - 1])] == [3, 6, 9, 12, 15, 18, 21]


# ---- plug-ins that keep their promises, one per family and some more


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
class LargestInForward(Plugin):
    """Masked forward: all weights are trained, the largest of each layer compute."""

    density: float = 0.5
    stale_counts: bool = False

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


@pytest.mark.parametrize(
    "plugin",
    [GrowByGradient, LargestInForward, DecayingThresholds, ScoreOnDataThenRetrain, NoisyGradients],
    ids=lambda cls: cls.__name__,
)
def test_plug_ins_of_every_family_pass_without_being_registered(plugin: type[Method]) -> None:
    check_method(plugin)


def test_a_registered_plug_in_passes_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "FAST", FAST[:1])
    with registry.temporary():
        methods.register("mine", f"{__name__}:GrowByGradient")
        check_method("mine")
        check_method("mine", density=0.4, drop_fraction=0.1)


# ---- plug-ins that break one promise


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


@dataclass(kw_only=True)
class StaleCounts(LargestInForward):
    stale_counts: bool = True


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
        (UnzeroedWeights, {"check_pruned_weights_are_zero", "check_masks_are_the_zeros_of_the_finalized_weights"}),
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
        (Random, set()),
        (KeepsMomentumAndSaysSo, set()),
        (SavesState, set()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_promise_is_named_and_no_other(method: Any, want: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "FAST", FAST[1:2] if method is ScoresInTrainingMode else FAST[:1])
    assert broken_promises(method) == want


def test_masks_that_are_not_bool_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "FAST", FAST[:1])
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


def test_the_kit_leaves_global_generators_alone() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    check_method("dense")
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_unknown_names_and_levels_are_refused_with_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown method 'dts': did you mean 'dst'\?"):
        check_method("dts")
    with pytest.raises(ValueError, match="level is 'slow'; valid: fast, full"):
        check_method("dst", level="slow")  # type: ignore[arg-type]


def test_the_networks_cover_what_the_kit_promises() -> None:
    kinds = {type(module) for network in FULL for module in network.build(0).modules()}
    assert {nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.LSTM, nn.GRU, nn.BatchNorm2d} <= kinds
    for network in FULL:
        maskable = [name for name, p in network.build(0).named_parameters() if p.dim() > 1]
        assert list(methods.attach(network.build(0), "dense", total_steps=1, steps_per_epoch=1).masks()) == maskable
