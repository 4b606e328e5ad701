"""`absolute_threshold` trains |t| as torch's own derivatives train a parameter u where |u| prunes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from methods.thresholds import differentiable_product, long_tailed

ALPHA, STEPS = 1e-3, 60
INPUTS = torch.randn(STEPS, 16, 6, generator=torch.Generator().manual_seed(1))
LABELS = torch.randint(0, 3, (STEPS, 16), generator=torch.Generator().manual_seed(2))
Make = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "nesterov": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.02),
    "amsgrad": lambda parameters: torch.optim.AdamW(parameters, lr=0.02, amsgrad=True, weight_decay=0.0),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12, bias=False), nn.Linear(12, 3, bias=False)).double()


def absolute(u: Tensor) -> Tensor:
    """|u|, with the derivative 1 at 0."""
    return u * torch.where(u < 0, -1.0, 1.0)


def by_torch(make: Make) -> tuple[list[Tensor], list[Tensor], int]:
    """Weights, |u|, and how often a u was negative, after training u with autograd."""
    weights = [layer.weight for layer in network()]
    us = [torch.zeros(weight.shape[0], dtype=torch.float64, requires_grad=True) for weight in weights]
    optimizer, negative = make([*weights, *us]), 0
    for inputs, labels in zip(INPUTS.double(), LABELS, strict=True):
        x = inputs
        for weight, u in zip(weights, us, strict=True):
            x = F.linear(x, differentiable_product(weight, absolute(u), long_tailed))
        loss = F.cross_entropy(x, labels) + ALPHA * torch.cat([absolute(u) for u in us]).neg().exp().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        negative += sum(int((u < 0).sum()) for u in us)
    return [weight.detach() for weight in weights], [absolute(u).detach() for u in us], negative


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_the_training_of_the_absolute_value(name: str) -> None:
    weights, thresholds, negative = by_torch(OPTIMIZERS[name])
    assert negative > 20  # the case that the two could differ in
    model = network()
    attached = methods.attach(
        model, "dst", total_steps=STEPS, steps_per_epoch=STEPS, alpha=ALPHA, reset_density=None, absolute_threshold=True
    )
    optimizer = OPTIMIZERS[name](attached.parameter_groups())
    attached.bind(optimizer)
    for inputs, labels in zip(INPUTS.double(), LABELS, strict=True):
        loss = F.cross_entropy(model(inputs), labels) + attached.penalty()
        optimizer.zero_grad()
        loss.backward()
        attached.step()
    for weight, expected in zip(attached.weights().values(), weights, strict=True):
        torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-12)
    for threshold, expected in zip(attached.thresholds().values(), thresholds, strict=True):
        torch.testing.assert_close(threshold, expected, rtol=0, atol=1e-12)


def test_an_optimizer_whose_momentum_is_not_known_is_refused() -> None:
    attached = methods.attach(network(), "dst", total_steps=2, steps_per_epoch=2, absolute_threshold=True)
    with pytest.raises(ValueError, match="absolute_threshold changes the sign of momentum, which is not known for Ada"):
        attached.bind(torch.optim.Adadelta(attached.parameter_groups()))


def test_it_does_not_start_below_zero() -> None:
    with pytest.raises(ValueError, match=r"absolute_threshold with an initial_threshold of -0.1 starts with pruned"):
        methods.attach(
            network(), "dst", total_steps=2, steps_per_epoch=2, absolute_threshold=True, initial_threshold=-0.1
        )
