"""The gradient of one optimizer step: one forward and backward pass, or many, in one process or in several.

A step's batch is cut into micro-batches of equal size, in order; each process takes as many
consecutive ones. What a step computes does not depend on the number of processes but for the
order in which gradients are added up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from benchmark import seeds
from benchmark.distributed import Group
from benchmark.engine import Engine
from benchmark.ranks import check_processes
from benchmark.spec import RunSpec
from methods import Attachment


class Gradient:
    """Passes of one cell's model. Raises SpecError where the processes cannot share a step's passes equally.

    share: this process's places in a batch. whole: a step is one pass.
    """

    def __init__(self, spec: RunSpec, model: nn.Module, attached: Attachment, group: Group) -> None:
        check_processes(spec, group.size)
        self._spec, self._model, self._attached, self._group = spec, model, attached, group
        self._engine = Engine(spec, next(model.parameters()).device.type)
        self._size = spec.optimizer.micro_batch_size or spec.optimizer.batch_size
        self._passes = spec.optimizer.batch_size // self._size
        self.whole = self._passes == 1
        mine = self._passes // group.size
        self._first = group.rank * mine
        self.share = slice(self._first * self._size, (self._first + mine) * self._size)

    def wrap(self) -> None:
        """Join the model's parameters as they are now with those of the other processes."""
        self._network = self._group.wrap(self._model)

    def backward(self, inputs: Tensor, labels: Tensor, *, step: int, examples: int) -> Tensor:
        """The gradients of a step where there were none, penalty included; its mean loss, 0-dim, detached.

        inputs, labels: this process's share of the step's batch of so many examples.
        """
        with self._engine.arithmetic():
            if self.whole:
                return self._one_pass(inputs, labels)
            return self._passes_of(inputs, labels, step, examples)

    def _one_pass(self, inputs: Tensor, labels: Tensor) -> Tensor:
        loss = self._engine.loss(self._model, inputs, labels)
        torch.autograd.backward(self._penalized(loss))
        return loss.detach()

    def _penalized(self, loss: Tensor) -> Tensor:
        penalty = self._attached.penalty()
        return loss + penalty if penalty.requires_grad else loss

    def _passes_of(self, inputs: Tensor, labels: Tensor, step: int, examples: int) -> Tensor:
        buffers = list(self._model.buffers())
        before = [buffer.clone() for buffer in buffers]
        batches = list(zip(torch.split(inputs, self._size), torch.split(labels, self._size), strict=True))
        total = torch.zeros(1 + sum(b.numel() for b in buffers), dtype=torch.float64, device=inputs.device)
        for at, (x, y) in enumerate(batches):
            torch.manual_seed(seeds.derive(self._spec.seed, "pass", step * self._passes + self._first + at))
            if at:
                restore_(buffers, before)
            weight = len(y) / examples
            loss = self._pass(x, y, weight, last=at == len(batches) - 1)
            total += weight * torch.cat([loss.double().view(1), *(b.double().flatten() for b in buffers)])
        self._group.sum_(total)
        loss, *means = torch.split(total, [1, *(b.numel() for b in buffers)])
        restore_(buffers, [mean.view_as(buffer) for mean, buffer in zip(means, buffers, strict=True)])
        return loss[0]

    def _pass(self, inputs: Tensor, labels: Tensor, weight: float, *, last: bool) -> Tensor:
        """One forward and backward pass; the last one of a step exchanges the gradients and has the penalty."""
        if not len(labels):  # no example is left for this process; its gradients, 0, are waited for
            inputs, labels = inputs.new_zeros(2, *inputs.shape[1:]), labels.new_zeros(2)
        with contextlib.nullcontext() if last else self._group.local(self._network):
            loss = self._engine.loss(self._network, inputs, labels)
            objective = loss * (weight * self._group.size)  # the exchange takes the mean over the processes
            torch.autograd.backward(self._penalized(objective) if last else objective)
        return loss.detach()


@torch.no_grad()
def restore_(buffers: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    """Give a model's buffers, such as batch normalisation's running statistics, these values in place."""
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)
