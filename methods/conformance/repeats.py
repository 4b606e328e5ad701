"""The promises that show in a second training, or in a copy of the model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import torch

from methods.conformance.networks import STEPS_PER_EPOCH
from methods.conformance.training import NotApplicable, differing
from methods.conformance.trial import Check, Trial, differences, outputs
from methods.weights.finalization import finalize


def check_same_seed_same_run(trial: Trial) -> Iterator[str]:
    """Two trainings with one seed are equal, bit for bit."""
    yield from differences(trial.moments, trial.train().run().moments)


def check_other_seed_other_masks(trial: Trial) -> Iterator[str]:
    """The masks of a method that draws random numbers depend on the seed that attach is given.

    Where the outputs are random in training mode, the weights do.
    """
    prunes = any(not mask.all() for moment in trial.moments for mask in moment.masks.values())
    if not trial.training.drew:
        raise NotApplicable("draws no random numbers")
    if not prunes and not trial.random_outputs:
        raise NotApplicable("prunes nothing here")
    other = trial.train(seed=1).run().moments
    pairs = list(zip(trial.moments, other, strict=True))
    if trial.random_outputs:
        if all(not differing(a.parameters, b.parameters) for a, b in pairs):
            yield "random numbers are drawn, and seeds 0 and 1 give the same weights: draw from ctx.generator"
    elif all(not differing(a.masks, b.masks) for a, b in pairs):
        yield "random numbers are drawn, and seeds 0 and 1 give the same masks: draw from ctx.generator"


def check_global_randomness_untouched(trial: Trial) -> Iterator[str]:
    """The global generators of torch, NumPy and Python are not used."""
    for step, moment in enumerate(trial.moments):
        if moment.global_randomness:
            yield f"a global generator moved at step {step}: draw from ctx.generator"


def check_resume_is_bit_exact(trial: Trial) -> Iterator[str]:
    """A fresh model and method that load the state of a step continue with the same bits.

    They go on for two epochs. The last step before a phase is among the steps.
    """
    for step in _resume_points(trial):
        training = trial.train(init_seed=1)
        training.load(trial.moments[step].saved, step)
        resumed = training.run(2 * STEPS_PER_EPOCH).moments[1:]
        for problem in differences(trial.moments[step + 1 :][: len(resumed)], resumed, first=step + 1):
            yield f"resumed after step {step}, {problem}"


def _resume_points(trial: Trial) -> list[int]:
    """Steps at the start, in the middle and near the end, and around updates and phase changes; or every step."""
    moments, last = trial.moments, len(trial.moments) - 2
    if trial.every_step:
        return list(range(last + 1))
    changes = [i for i in range(1, last) if moments[i].began or differing(moments[i - 1].masks, moments[i].masks)]
    begins = [i for i in changes if moments[i].began]
    points = {0, last // 2, last}.union(*({i - 1, i} for i in [*changes[:1], *changes[-1:], *begins]))
    return sorted(i for i in points if 0 <= i <= last)


def check_finalize_gives_a_plain_model(trial: Trial) -> Iterator[str]:
    """A finalized model has its original classes, keys and shapes, no hooks, and equal outputs."""
    plain, model = trial.training.plain, copy.deepcopy(trial.training.model)
    before = outputs(model, trial.network)
    finalize(model)
    for name, module in model.named_modules():
        if type(module) is not type(plain.get_submodule(name)) or module._forward_hooks or module._forward_pre_hooks:
            yield f"'{name}' is a {type(module).__name__}, or has hooks"
    if [(k, v.shape) for k, v in model.state_dict().items()] != [(k, v.shape) for k, v in plain.state_dict().items()]:
        yield f"state_dict has {list(model.state_dict())}, not {list(plain.state_dict())}"
    if not torch.allclose(outputs(model, trial.network), before, rtol=0, atol=1e-6):
        yield "outputs differ"


def check_copies_compute_the_same(trial: Trial) -> Iterator[str]:
    """copy.deepcopy and pickle of an attached model compute the same outputs."""
    model = trial.training.model
    want = outputs(model, trial.network)
    for how, copied in (("deepcopy", copy.deepcopy(model)), ("pickle", pickle.loads(pickle.dumps(model)))):
        if not torch.equal(outputs(copied, trial.network), want):
            yield f"{how}: outputs differ"


CHECKS: tuple[Check, ...] = (
    check_same_seed_same_run,
    check_other_seed_other_masks,
    check_global_randomness_untouched,
    check_resume_is_bit_exact,
    check_finalize_gives_a_plain_model,
    check_copies_compute_the_same,
)
