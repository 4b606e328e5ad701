"""The gradient of one optimizer step: one pass or many, in one process or in several.

A step's batch is cut into micro-batches of equal size, in order, and each process takes an equal
number of consecutive ones. The number of processes changes only the order in which gradients are
added up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from benchmark import seeds
from benchmark.spec import RunSpec, check_processes
from benchmark.training.engine import Engine
from benchmark.training.process_group import Group
from methods import Attachment


class Gradient:
    """The passes of one cell's model.

    Raises SpecError where the processes cannot share a step's passes equally. share: which examples
    of a batch are this process's. whole: a step is one pass.
    """

    def __init__(self, spec: RunSpec, model: nn.Module, attached: Attachment, group: Group, engine: Engine) -> None:
        check_processes(spec, group.size)
        self._spec, self._model, self._attached, self._group = spec, model, attached, group
        self._engine = engine
        self._size = spec.optimizer.micro_batch_size or spec.optimizer.batch_size
        self._passes = spec.optimizer.batch_size // self._size
        self.whole = self._passes == 1
        mine = self._passes // group.size
        self._first = group.rank * mine
        self.share = slice(self._first * self._size, (self._first + mine) * self._size)

    def wrap(self) -> None:
        """Wrap the model with its present parameters: gradients become means over the processes."""
        self._network = self._group.wrap(self._model)

    def backward(self, inputs: Tensor, labels: Tensor, *, step: int, examples: int) -> Tensor:
        """Compute the gradients of a step, penalty included; its mean loss, 0-dim, detached.

        inputs, labels: this process's share of the step's batch. examples: of the whole batch.
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
        """One forward and backward pass.

        The last pass of a step exchanges gradients and adds the penalty.
        """
        if not len(labels):  # the others wait for this process's gradients, which are 0
            inputs, labels = inputs.new_zeros(2, *inputs.shape[1:]), labels.new_zeros(2)
        with contextlib.nullcontext() if last else self._group.local(self._network):
            loss = self._engine.loss(self._network, inputs, labels)
            objective = loss * (weight * self._group.size)  # the exchange takes the mean over the processes
            torch.autograd.backward(self._penalized(objective) if last else objective)
        return loss.detach()


@torch.no_grad()
def restore_(buffers: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    """Set a model's buffers in place, such as batch normalisation's running statistics and counts."""
    for buffer, value in zip(buffers, values, strict=True):
        is_count = not buffer.is_floating_point() and buffer.dtype != torch.bool
        buffer.copy_(value.round() if is_count and value.is_floating_point() else value)
