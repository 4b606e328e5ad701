"""The promises under other optimizers and other ways of training: one function per way."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from methods.arguments import execution_of
from methods.conformance import promises, repeats
from methods.conformance.networks import MakeOptimizer, adam, adamw, nesterov, sgd
from methods.conformance.training import SPARSE, NotApplicable, differing
from methods.conformance.trial import Check, Trial

AT_EVERY_STEP: tuple[Check, ...] = (
    promises.check_training,
    promises.check_masks_cover_the_maskable_weights,
    promises.check_pruned_weights_are_zero,
    promises.check_kept_counts,
    promises.check_masks_are_the_zeros_of_the_finalized_weights,
    promises.check_density_promise,
    promises.check_units_are_whole,
    promises.check_other_parameters_untouched,
    promises.check_optimizer_state_of_grown_weights,
    promises.check_gradients_of_pruned_weights,
    promises.check_optimizer_state_of_pruned_weights,
)
LIMIT = 1e-3


def broken_at_a_step(other: Trial, *, plain: Trial) -> Iterator[str]:
    """What another way of training breaks of the promises that hold at every step, and that the plain way keeps."""
    for check in AT_EVERY_STEP:
        try:
            problem = next(check(other), None)
        except NotApplicable:
            if check is promises.check_training:
                raise
            continue
        if problem is not None and next(check(plain), None) is None:
            yield f"{check.__name__}: {problem}"


def check_with_sgd(trial: Trial) -> Iterator[str]:
    """The promises of every step hold with SGD with momentum and weight decay."""
    yield from _with(trial, sgd)


def check_with_nesterov(trial: Trial) -> Iterator[str]:
    """The promises of every step hold with Nesterov momentum and weight decay."""
    yield from _with(trial, nesterov)


def check_with_adam(trial: Trial) -> Iterator[str]:
    """The promises of every step hold with Adam and weight decay."""
    yield from _with(trial, adam)


def check_with_adamw(trial: Trial) -> Iterator[str]:
    """The promises of every step hold with AdamW, whose weight decay is beside the gradient."""
    yield from _with(trial, adamw)


def _with(trial: Trial, optimizer: MakeOptimizer) -> Iterator[str]:
    return broken_at_a_step(trial.in_way(optimizer=optimizer, weight_decay=1e-3), plain=trial)


def check_with_accumulated_gradients(trial: Trial) -> Iterator[str]:
    """The gradients of two halves of a batch make one step, with the masks that the whole batch gives.

    Both are computed in float64, where the order of a sum decides nothing.
    """
    accumulated = trial.in_way(parts=2, double=True)
    yield from broken_at_a_step(accumulated, plain=trial)
    if trial.random_outputs or any(isinstance(module, _BatchNorm) for module in trial.training.plain.modules()):
        return
    whole = trial.in_way(double=True)
    for step, (a, b) in enumerate(zip(whole.moments, accumulated.moments, strict=True)):
        if names := differing(a.masks, b.masks):
            yield f"masks of {', '.join(names)} are not those of whole batches after step {step}"
        if step and abs(a.loss - b.loss) > 1e-6:
            yield f"the loss is {b.loss}, and {a.loss} with whole batches, in step {step}"


def check_with_clipped_gradients(trial: Trial) -> Iterator[str]:
    """The promises hold with gradients that are clipped after the backward pass, and the step uses these.

    SGD with learning rate 0.1 and momentum 0.9 moves a parameter by at most their norm then.
    """
    clipped = trial.in_way(optimizer=sgd, clip=LIMIT)
    yield from broken_at_a_step(clipped, plain=trial)
    for step, moment in enumerate(clipped.moments):
        if moment.largest_move > 1.01 * LIMIT:
            yield f"step {step} moves a bias by {moment.largest_move:.3g}, with gradients clipped to {LIMIT:g}"


def check_with_kept_weights_only(trial: Trial) -> Iterator[str]:
    """With execution="sparse" the promises hold, and float64 gives what dense execution gives.

    Where a resume is tried from every step, it is bit-exact here too.
    """
    try:
        execution_of("sparse", trial.make())
        dense, sparse = (trial.in_way(double=True, execution=how) for how in ("dense", "sparse"))
        pairs = list(zip(dense.moments, sparse.moments, strict=True))
    except ValueError as error:
        if "execution=" not in str(error):
            raise
        raise NotApplicable(str(error)) from error
    for step, (a, b) in enumerate(pairs):
        if names := differing(a.masks, b.masks):
            yield f"masks of {', '.join(names)} are not those of dense execution after step {step}"
        for name, value in a.parameters.items():
            if not torch.allclose(value, b.parameters[name], rtol=0, atol=1e-9):
                yield f"{name} is not that of dense execution after step {step}"
    in_float32 = Trial(trial.make, trial.network, SPARSE)
    yield from broken_at_a_step(in_float32, plain=trial)
    if trial.every_step:
        yield from repeats.check_resume_is_bit_exact(in_float32)


def check_with_autocast(trial: Trial) -> Iterator[str]:
    """The promises hold with a forward pass in bfloat16, and weights and masks keep their types."""
    _require_bfloat16(trial)
    cast = trial.in_way(autocast=True)
    yield from broken_at_a_step(cast, plain=trial)
    for step, moment in enumerate(cast.moments):
        kinds = {str(p.dtype) for p in moment.parameters.values()}
        if kinds != {"torch.float32"}:
            yield f"parameters are {', '.join(sorted(kinds))} after step {step}"


def _require_bfloat16(trial: Trial) -> None:
    plain: nn.Module = copy.deepcopy(trial.training.plain)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            total = plain(trial.network.batches()[0][0]).float().sum()
        total.backward()
    except RuntimeError as error:
        raise NotApplicable(f"this CPU does not train it in bfloat16: {str(error).splitlines()[0]}") from error


CHECKS: tuple[Check, ...] = (
    check_with_sgd,
    check_with_nesterov,
    check_with_adam,
    check_with_adamw,
    check_with_accumulated_gradients,
    check_with_clipped_gradients,
    check_with_autocast,
    check_with_kept_weights_only,
)
