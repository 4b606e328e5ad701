"""The promises of a method at work: one function per promise, which yields what is broken.

The checks look only at what the attachment, the model and the optimizer show.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import Method
from methods.conformance.networks import STEPS_PER_EPOCH, Network
from methods.conformance.training import Moment, Training
from methods.units import by_unit
from methods.weights.finalization import finalize


@dataclass
class Trial:
    """One method on one network. The training that most checks look at runs once."""

    make: Callable[[], Method]
    network: Network

    def train(self, **options: Any) -> Training:
        return Training(self.make(), self.network, **options)

    @cached_property
    def training(self) -> Training:
        return self.train(recorded=True).run()

    @property
    def moments(self) -> list[Moment]:
        return self.training.moments

    @cached_property
    def maskable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.training.plain.named_parameters() if p.dim() > 1}

    @property
    def largest_unit(self) -> int:
        """The number of weights in the largest unit."""
        weights = self.training.attached.context.weights.values()
        return max(by_unit(weight, weight.parameter.detach()).shape[1] for weight in weights)


Check = Callable[[Trial], Iterator[str]]


def check_training(trial: Trial) -> Iterator[str]:
    """A training takes all its steps."""
    if len(trial.moments) != trial.training.attached.total_steps + 1:
        yield f"{len(trial.moments) - 1} steps, not total_steps = {trial.training.attached.total_steps}"


def check_penalty_is_a_finite_scalar(trial: Trial) -> Iterator[str]:
    """The penalty is a finite 0-dim tensor at every step."""
    for step, moment in enumerate(trial.moments):
        if moment.penalty.dim() != 0 or not bool(moment.penalty.isfinite()):
            yield f"{moment.penalty} at step {step}"


def check_masks_cover_the_maskable_weights(trial: Trial) -> Iterator[str]:
    """There is a bool mask, in the weight's shape, for every maskable weight."""
    for step, moment in enumerate(trial.moments):
        if list(moment.masks) != list(trial.maskable):
            yield f"masks of {list(moment.masks)}, not of {list(trial.maskable)}, at step {step}"
        for name, mask in moment.masks.items():
            if mask.dtype != torch.bool or mask.shape != trial.maskable[name].shape:
                yield f"mask of {name} is {mask.dtype} {list(mask.shape)} at step {step}"


def check_pruned_weights_are_zero(trial: Trial) -> Iterator[str]:
    """After every step the weights in use are exactly 0 where the mask is false.

    So are the parameters under masks in place, which the next forward pass uses as they are.
    """
    for step, moment in enumerate(trial.moments):
        for name, mask in moment.masks.items():
            pruned = [moment.effective[name][~mask]]
            if name in moment.masks_in_place:
                pruned.append(moment.parameters[name][~moment.masks_in_place[name]])
            if wrong := max(int(torch.count_nonzero(values)) for values in pruned):
                yield f"{wrong} pruned weights of {name} are not 0 after step {step}"


def check_kept_counts(trial: Trial) -> Iterator[str]:
    """After every step kept_counts and density equal a count of the masks."""
    for step, moment in enumerate(trial.moments):
        counts = [int(mask.sum()) for mask in moment.masks.values()]
        if moment.kept_counts != counts:
            yield f"kept_counts is {moment.kept_counts}, the masks keep {counts}, after step {step}"
        if moment.density != (density := sum(counts) / sum(p.numel() for p in trial.maskable.values())):
            yield f"density is {moment.density}, the masks' is {density}, after step {step}"


def check_masks_are_the_zeros_of_the_finalized_weights(trial: Trial) -> Iterator[str]:
    """Where a parameter is not 0, the finalized weight is 0 exactly where the mask is false.

    A kept parameter is 0 after it was dropped and grown in one update, and stays 0 where no
    gradient reaches it. Over two steps this may be a quarter of the kept parameters at most.
    """
    pruned_once = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in trial.maskable.items()}
    before = trial.moments[0]
    for step, moment in enumerate(trial.moments):
        silent = 0
        for name, mask in moment.masks.items():
            parameter, effective = moment.parameters[name], moment.effective[name]
            if wrong := int(((effective != 0) != mask)[parameter != 0].sum()):
                yield f"{wrong} entries of {name} after step {step}"
            pruned_once[name] |= ~mask
            silent += int(((parameter == 0) & (before.parameters[name] == 0) & ~pruned_once[name]).sum())
        if silent > sum(moment.kept_counts) / 4:
            yield f"{silent} weights are 0 that the masks keep, after step {step}"
        before = moment


def check_density_promise(trial: Trial) -> Iterator[str]:
    """dense: all weights; exact: round(density * weights) after every step; final: at the end.

    Where whole units are pruned, fewer may be kept, by less than the largest unit.
    """
    method = trial.training.method
    promise = method.density_promise
    if promise == "emergent":
        return
    density = 1.0 if promise == "dense" else getattr(method, "density", None)
    if density is None:
        yield f"'{promise}' is the promise of a hyperparameter 'density', and there is none"
        return
    want = round(density * sum(p.numel() for p in trial.maskable.values()))
    slack = trial.largest_unit if method.granularity == "unit" else 1
    for step, moment in enumerate(trial.moments):
        kept = sum(int(mask.sum()) for mask in moment.masks.values())
        if not want - slack < kept <= want and (promise != "final" or moment is trial.moments[-1]):
            yield f"{kept} weights kept, not {want}, after step {step}"


def check_other_parameters_untouched(trial: Trial) -> Iterator[str]:
    """Only the optimizer changes biases and normalisation, except at a phase's start."""
    for step, moment in enumerate(trial.moments):
        if moment.others_moved:
            yield f"{', '.join(moment.others_moved)} changed by the method at step {step}"


def check_excluded_untouched(trial: Trial) -> Iterator[str]:
    """An excluded layer has no mask or threshold and its own class. Only the optimizer moves it."""
    excluded = list(trial.maskable)[-1]
    module = excluded.rpartition(".")[0]
    training = trial.train(exclude=[module]).run(2 * STEPS_PER_EPOCH)
    for kind, found in (("mask", training.attached.masks()), ("threshold", training.attached.thresholds())):
        if excluded in found:
            yield f"'{excluded}' has a {kind}"
    if type(training.model.get_submodule(module)) is not type(training.plain.get_submodule(module)):
        yield f"'{module}' became a {type(training.model.get_submodule(module)).__name__}"
    for step, moment in enumerate(training.moments):
        if excluded in moment.others_moved:
            yield f"'{excluded}' changed by the method at step {step}"


def check_optimizer_state_of_grown_weights(trial: Trial) -> Iterator[str]:
    """Masked in place: optimizer state of grown weights is 0, unless grown_state is "keep"."""
    in_place = all(not m.parameters[n][~mask].any() for m in trial.moments for n, mask in m.masks.items())
    if trial.training.method.grown_state == "keep" or trial.training.attached.thresholds() or not in_place:
        return
    for step, moment in enumerate(trial.moments):
        if moment.stale_state:
            yield f"not 0 where {', '.join(moment.stale_state)} grew at step {step}"


def check_same_seed_same_run(trial: Trial) -> Iterator[str]:
    """Two trainings with one seed are equal, bit for bit."""
    yield from _differences(trial.moments, trial.train().run().moments)


def check_other_seed_other_masks(trial: Trial) -> Iterator[str]:
    """The masks of a method that draws random numbers depend on the seed that attach is given."""
    prunes = any(not mask.all() for moment in trial.moments for mask in moment.masks.values())
    if not (trial.training.drew and prunes):
        return
    other = trial.train(seed=1).run().moments
    if all(not _differing(a.masks, b.masks) for a, b in zip(trial.moments, other, strict=True)):
        yield "random numbers are drawn, and seeds 0 and 1 give the same masks: draw from ctx.generator"


def check_resume_is_bit_exact(trial: Trial) -> Iterator[str]:
    """A fresh model and method that load the state of a step continue with the same bits."""
    for step in _resume_points(trial.moments):
        training = trial.train(init_seed=1)
        training.load(trial.moments[step].saved, step)
        resumed = training.run(2 * STEPS_PER_EPOCH).moments[1:]
        for problem in _differences(trial.moments[step + 1 :][: len(resumed)], resumed, first=step + 1):
            yield f"resumed after step {step}, {problem}"


def _resume_points(moments: list[Moment]) -> list[int]:
    """Steps at the start, in the middle and near the end, and around updates and phase changes."""
    last = len(moments) - 2
    changes = [i for i in range(1, last) if moments[i].began or _differing(moments[i - 1].masks, moments[i].masks)]
    begins = [i for i in changes if moments[i].began]
    points = {0, last // 2, last}.union(*({i - 1, i} for i in [*changes[:1], *changes[-1:], *begins]))
    return sorted(i for i in points if 0 <= i <= last)


def check_global_randomness_untouched(trial: Trial) -> Iterator[str]:
    """The global generators of torch, NumPy and Python are not used."""
    for step, moment in enumerate(trial.moments):
        if moment.global_randomness:
            yield f"a global generator moved at step {step}: draw from ctx.generator"


def check_finalize_gives_a_plain_model(trial: Trial) -> Iterator[str]:
    """A finalized model has its original classes, keys and shapes, no hooks, and equal outputs."""
    plain, model = trial.training.plain, copy.deepcopy(trial.training.model)
    before = _outputs(model, trial.network)
    finalize(model)
    for name, module in model.named_modules():
        if type(module) is not type(plain.get_submodule(name)) or module._forward_hooks or module._forward_pre_hooks:
            yield f"'{name}' is a {type(module).__name__}, or has hooks"
    if [(k, v.shape) for k, v in model.state_dict().items()] != [(k, v.shape) for k, v in plain.state_dict().items()]:
        yield f"state_dict has {list(model.state_dict())}, not {list(plain.state_dict())}"
    if not torch.allclose(_outputs(model, trial.network), before, rtol=0, atol=1e-6):
        yield "outputs differ"


def check_copies_compute_the_same(trial: Trial) -> Iterator[str]:
    """copy.deepcopy and pickle of an attached model compute the same outputs."""
    model = trial.training.model
    want = _outputs(model, trial.network)
    for how, copied in (("deepcopy", copy.deepcopy(model)), ("pickle", pickle.loads(pickle.dumps(model)))):
        if not torch.equal(_outputs(copied, trial.network), want):
            yield f"{how}: outputs differ"


def check_task_loss_falls(trial: Trial) -> Iterator[str]:
    """The loss of the last epoch is at least 1 % below that of the first."""
    losses = [moment.loss for moment in trial.moments[1:]]
    first, last = sum(losses[:STEPS_PER_EPOCH]), sum(losses[-STEPS_PER_EPOCH:])
    if not last < 0.99 * first:
        yield f"from {first / STEPS_PER_EPOCH:.3f} to {last / STEPS_PER_EPOCH:.3f} in {len(losses)} steps"


@torch.no_grad()
def _outputs(model: nn.Module, network: Network) -> Tensor:
    modes = [(module, module.training) for module in model.modules()]
    outputs: Tensor = model.eval()(network.batches()[0][0])
    for module, mode in modes:
        module.training = mode
    return outputs


def _differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    return [name for name in {**a, **b} if name not in a or name not in b or not torch.equal(a[name], b[name])]


def _differences(want: list[Moment], got: list[Moment], *, first: int = 0) -> Iterator[str]:
    for step, (a, b) in enumerate(zip(want, got, strict=True), start=first):
        if names := _differing(a.masks, b.masks):
            yield f"masks of {', '.join(names)} differ at step {step}"
        if names := _differing(a.parameters, b.parameters):
            yield f"{', '.join(names)} differ at step {step}"
        if step and a.loss != b.loss:
            yield f"the loss differs at step {step}"


CHECKS: tuple[Check, ...] = (
    check_penalty_is_a_finite_scalar,
    check_masks_cover_the_maskable_weights,
    check_pruned_weights_are_zero,
    check_kept_counts,
    check_masks_are_the_zeros_of_the_finalized_weights,
    check_density_promise,
    check_other_parameters_untouched,
    check_excluded_untouched,
    check_optimizer_state_of_grown_weights,
    check_same_seed_same_run,
    check_other_seed_other_masks,
    check_resume_is_bit_exact,
    check_global_randomness_untouched,
    check_finalize_gives_a_plain_model,
    check_copies_compute_the_same,
    check_task_loss_falls,
)
