"""The promise of `Method.stackable`: trainings that are stacked move as each does alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, vmap

from methods.base import Method
from methods.conformance_cases import STEPS_PER_EPOCH, Network, Training
from methods.stacked import Stack, stackable

if TYPE_CHECKING:
    from methods.conformance_checks import Trial

STEPS, FACTOR = STEPS_PER_EPOCH + 1, 4
ROUNDING = 1e-4  # of means over a parameter: Adam turns single entries by the sign of a tiny gradient


def check_stacked_trainings_are_those_alone(trial: Trial) -> Iterator[str]:
    """Two trainings with other weights and other values of what `stackable` names; not of recurrent networks."""
    if stackable(type(trial.make())) is None or _is_recurrent(trial.network):
        return
    alone = [training.run(STEPS) for training in _begun(trial)]
    for number, (one, other) in enumerate(zip(alone, _stacked(trial), strict=True)):
        parameters = dict(other.model.named_parameters())
        for name, value in one.model.named_parameters():
            if not (value - parameters[name]).abs().mean() < ROUNDING:
                yield f"'{name}' of training {number} is another one than alone after {STEPS} steps"
        if one.attached.kept_counts().tolist() != other.attached.kept_counts().tolist():
            yield f"training {number} keeps other numbers of weights than alone"


def _is_recurrent(network: Network) -> bool:
    return any(isinstance(module, nn.RNNBase) for module in network.build(0).modules())


def _begun(trial: Trial) -> list[Training]:
    first, second = trial.make(), trial.make()
    _change(second)
    return [Training(first, trial.network), Training(second, trial.network, init_seed=1)]


def _change(method: Method) -> None:
    for name in stackable(type(method)) or ():
        setattr(method, name, FACTOR * getattr(method, name))


def _stacked(trial: Trial) -> list[Training]:
    """The same trainings after as many steps side by side."""
    trainings, batches = _begun(trial), trial.network.batches()
    stack, plain = Stack([training.attached for training in trainings], 2), trainings[0].plain
    optimizers = [trial.network.optimizer(training.attached.parameter_groups()) for training in trainings]
    for step in range(STEPS):
        x, target = batches[step % STEPS_PER_EPOCH]
        state = (stack.effective(), stack.shared_buffers)
        logits = vmap(lambda state, x=x: functional_call(plain, state, (x,)))(state)
        losses = torch.stack([F.cross_entropy(one, target) for one in logits])
        penalty = stack.penalty()
        torch.autograd.backward((losses if penalty is None else losses + penalty).sum())
        for at, (training, optimizer) in enumerate(zip(trainings, optimizers, strict=True)):
            for name, parameter in training.model.named_parameters():
                gradient = stack.shared_parameters[name].grad
                parameter.grad = None if gradient is None else gradient[at]
            optimizer.step()
        for parameter in stack.parameters():
            parameter.grad = None
        stack.after_step()
    return trainings
