"""Scoring weights on training data, outside of the training steps.

A method that scores calls these in `enter_phase` or after a step. The model is as before when they
return: gradients, buffers, modes and the random state of dropout. The examples are counted in
`Context.scored_examples`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from methods.base import Context


def batches(ctx: Context, count: int) -> list[tuple[Tensor, Tensor]]:
    """The first `count` batches of `train_batches`, or all where there are fewer.

    Raises ValueError where there is none.
    """
    found = list(itertools.islice(ctx.train_batches(), count))
    if not found:
        raise ValueError(f"{ctx.method_name}: train_batches() gave no batch to score on")
    return found


@contextlib.contextmanager
def undisturbed(ctx: Context, *, train: bool = True) -> Iterator[None]:
    """Inside, the model may compute with gradients; after it the model is as before.

    train: the mode of the model inside. Weights stay what they are, so a caller that writes them
    has to restore them.
    """
    model = ctx.model
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    try:
        model.train(train)
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            torch.manual_seed(ctx.generator.initial_seed())
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def gradients(ctx: Context, *, among: Sequence[tuple[Tensor, Tensor]], create_graph: bool = False) -> dict[str, Tensor]:
    """The gradient of the mean loss over batches, for each maskable weight, in its shape.

    A weight that does not reach the loss has gradient 0. among: (inputs, targets) batches; each
    counts by its number of examples. create_graph: the gradients can be differentiated. Call it
    inside `undisturbed`. Raises ValueError where the loss or a gradient is not finite.
    """
    weights = [weight.parameter for weight in ctx.weights.values()]
    examples = sum(len(target) for _, target in among)
    sums: list[Tensor] = [torch.zeros_like(weight) for weight in weights]
    with _all_require_grad(weights):
        for inputs, target in among:
            loss = ctx.loss_fn(ctx.model(inputs), target)
            if not bool(torch.isfinite(loss)):
                raise ValueError(f"{ctx.method_name}: the loss of a batch to score on is {loss.item()}")
            found = torch.autograd.grad(loss, weights, create_graph=create_graph, allow_unused=True)
            share = len(target) / examples
            sums = [total if part is None else total + share * part for total, part in zip(sums, found, strict=True)]
            ctx.scored_examples += len(target)
    named = dict(zip(ctx.weights, sums, strict=True))
    check_finite(ctx, named)
    return named


def check_finite(ctx: Context, scores: Mapping[str, Tensor]) -> None:
    """Raises ValueError naming the method, the layer and the value where a score is not finite."""
    for name, score in scores.items():
        bad = score.detach()[~torch.isfinite(score.detach())]
        if len(bad):
            raise ValueError(f"{ctx.method_name}: {len(bad)} scores of {name} are not finite, such as {bad[0].item()}")


@contextlib.contextmanager
def _all_require_grad(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    frozen = [weight for weight in weights if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
