"""The promises of a method at work: one function per promise, which yields what is broken.

The checks look only at what the attachment, the model and the optimizer show. A check that does not
apply to a method raises NotApplicable with the reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from methods import units
from methods.conformance.networks import STEPS_PER_EPOCH
from methods.conformance.training import NotApplicable
from methods.conformance.trial import Check, Trial
from methods.drop_grow import Rewiring


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
    promise = trial.method.density_promise
    if promise == "emergent":
        raise NotApplicable("promises no density")
    density = 1.0 if promise == "dense" else getattr(trial.method, "density", None)
    if density is None:
        yield f"'{promise}' is the promise of a hyperparameter 'density', and there is none"
        return
    want = round(density * sum(p.numel() for p in trial.maskable.values()))
    slack = _largest_unit(trial) if trial.method.granularity == "unit" else 1
    for step, moment in enumerate(trial.moments):
        kept = sum(int(mask.sum()) for mask in moment.masks.values())
        if not want - slack < kept <= want and (promise != "final" or moment is trial.moments[-1]):
            yield f"{kept} weights kept, not {want}, after step {step}"


def _largest_unit(trial: Trial) -> int:
    weights = trial.training.attached.context.weights.values()
    return max(units.by_unit(weight, weight.parameter.detach()).shape[1] for weight in weights)


def check_units_are_whole(trial: Trial) -> Iterator[str]:
    """With granularity "unit" a neuron or filter is kept or pruned as a whole."""
    if trial.method.granularity != "unit":
        raise NotApplicable("prunes single weights")
    for step, moment in enumerate(trial.moments):
        for name, weight in trial.training.attached.context.weights.items():
            kept = units.by_unit(weight, moment.masks[name])
            if bool((kept.any(1) != kept.all(1)).any()):
                yield f"a unit of {name} is kept in part after step {step}"


def check_drop_fraction(trial: Trial) -> Iterator[str]:
    """At a fixed count, a step replaces at most `drop_fraction` of a layer's kept weights.

    Kept weights that are 0 may go beside these.
    """
    fraction = getattr(trial.method, "drop_fraction", None)
    if fraction is None or trial.method.density_promise != "exact":
        raise NotApplicable("has no drop_fraction at a fixed count")
    for step, (before, now) in enumerate(itertools.pairwise(trial.moments), start=1):
        for name, mask in before.masks.items():
            dropped = int((mask & ~now.masks[name]).sum())
            zeros = int((mask & (before.parameters[name] == 0)).sum())
            if dropped > (most := fraction * int(mask.sum()) + zeros + 1):
                yield f"{dropped} weights of {name} are dropped in step {step}, not at most {most:.0f}"


def check_layer_counts(trial: Trial) -> Iterator[str]:
    """Without redistribution every layer keeps its count.

    Without it are methods whose `redistribution` is "none", and those that extend Rewiring at a
    fixed count, without growth counts of their own.
    """
    method = trial.method
    plain = isinstance(method, Rewiring) and type(method).growth_counts is Rewiring.growth_counts
    if not (plain and method.density_promise == "exact") and getattr(method, "redistribution", None) != "none":
        raise NotApplicable("layers may exchange weights")
    for step, moment in enumerate(trial.moments):
        for name, mask in moment.masks.items():
            kept, first = int(mask.sum()), int(trial.moments[0].masks[name].sum())
            if kept != first:
                yield f"{name} keeps {kept} weights after step {step}, and {first} at the start"


def check_gradient_counts(trial: Trial) -> Iterator[str]:
    """`gradient_counts` names, for every weight, a number of its entries: int64 [weights]."""
    sizes = torch.tensor([p.numel() for p in trial.maskable.values()], device="cpu")
    for step, moment in enumerate(trial.moments):
        counts = moment.gradient_counts
        fits = counts.dtype == torch.int64 and counts.shape == sizes.shape
        if not fits or bool(((counts < 0) | (counts > sizes)).any()):
            yield f"{counts.tolist()} of {sizes.tolist()} weights after step {step}"


def check_other_parameters_untouched(trial: Trial) -> Iterator[str]:
    """Only the optimizer changes biases and normalisation, with their own gradients, except at a phase's start."""
    for step, moment in enumerate(trial.moments):
        if moment.others_moved:
            yield f"{', '.join(moment.others_moved)} changed by the method at step {step}"
    first, last = trial.moments[0].parameters, trial.moments[-1].parameters
    trained = [name for name, p in trial.training.plain.named_parameters() if p.requires_grad]
    others = [name for name in trained if name not in trial.maskable]
    if others and all(torch.equal(first[name], last[name]) for name in others):
        yield f"{', '.join(others)} never moved: after_backward has to return True where the optimizer steps"


def check_excluded_untouched(trial: Trial) -> Iterator[str]:
    """An excluded layer has no mask or threshold and its own class. Only the optimizer moves it."""
    excluded = list(trial.maskable)[-1]
    module = excluded.rpartition(".")[0]
    training = trial.train(exclude=[module], recorded=True).run(2 * STEPS_PER_EPOCH)
    for kind, found in (("mask", training.attached.masks()), ("threshold", training.attached.thresholds())):
        if excluded in found:
            yield f"'{excluded}' has a {kind}"
    if type(training.model.get_submodule(module)) is not type(training.plain.get_submodule(module)):
        yield f"'{module}' became a {type(training.model.get_submodule(module)).__name__}"
    for step, moment in enumerate(training.moments):
        if excluded in moment.others_moved:
            yield f"'{excluded}' changed by the method at step {step}"


def check_optimizer_state_of_grown_weights(trial: Trial) -> Iterator[str]:
    """Masked in place: optimizer state of grown weights is 0, or as it was with grown_state "keep"."""
    _require_masks_in_place(trial)
    keeps = trial.method.grown_state == "keep"
    for step, moment in enumerate(trial.moments):
        if names := moment.altered_state if keeps else moment.stale_state:
            yield f"{'changed' if keeps else 'not 0'} where {', '.join(names)} grew at step {step}"


def check_gradients_of_pruned_weights(trial: Trial) -> Iterator[str]:
    """With pruned_gradients "zero" nothing sees a gradient of pruned weights, but for dense steps."""
    _require_zeroed_gradients(trial)
    for step, moment in enumerate(trial.moments):
        if moment.pruned_gradients:
            yield f"pruned weights of {', '.join(moment.pruned_gradients)} had gradients in step {step}"


def check_optimizer_state_of_pruned_weights(trial: Trial) -> Iterator[str]:
    """With pruned_gradients "zero" the optimizer's state of pruned weights only decays, but for dense steps."""
    _require_zeroed_gradients(trial)
    for step, moment in enumerate(trial.moments):
        if moment.pruned_state:
            yield f"grew where {', '.join(moment.pruned_state)} is pruned in step {step}"


def _require_masks_in_place(trial: Trial) -> None:
    if trial.training.attached.thresholds() or not any(moment.masks_in_place for moment in trial.moments):
        raise NotApplicable("has no masks in place")
    if any(bool(m.parameters[n][~mask].any()) for m in trial.moments for n, mask in m.masks.items()):
        raise NotApplicable("keeps the values of pruned weights")


def _require_zeroed_gradients(trial: Trial) -> None:
    _require_masks_in_place(trial)
    if trial.method.pruned_gradients != "zero":
        raise NotApplicable("keeps the gradients of pruned weights")


def check_task_loss_falls(trial: Trial) -> Iterator[str]:
    """The loss of the last epoch is at least 1 % below that of the first."""
    losses = [moment.loss for moment in trial.moments[1:]]
    first, last = sum(losses[:STEPS_PER_EPOCH]), sum(losses[-STEPS_PER_EPOCH:])
    if not last < 0.99 * first:
        yield f"from {first / STEPS_PER_EPOCH:.3f} to {last / STEPS_PER_EPOCH:.3f} in {len(losses)} steps"


CHECKS: tuple[Check, ...] = (
    check_penalty_is_a_finite_scalar,
    check_masks_cover_the_maskable_weights,
    check_pruned_weights_are_zero,
    check_kept_counts,
    check_masks_are_the_zeros_of_the_finalized_weights,
    check_density_promise,
    check_units_are_whole,
    check_drop_fraction,
    check_layer_counts,
    check_gradient_counts,
    check_other_parameters_untouched,
    check_excluded_untouched,
    check_optimizer_state_of_grown_weights,
    check_gradients_of_pruned_weights,
    check_optimizer_state_of_pruned_weights,
    check_task_loss_falls,
)
