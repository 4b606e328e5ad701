"""When the gradients of pruned weights are there, and how many a step needs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import methods
from methods import Context
from methods.algorithms.static import Static


@dataclass(kw_only=True)
class DenseEveryThird(Static):
    """Needs a dense gradient in the third, the sixth, … step."""

    name = "dense_every_third"
    pruned_gradients = "zero"

    def dense_gradient(self, ctx: Context) -> bool:
        return ctx.step % 3 == 2


def training(method: methods.Method | str) -> tuple[nn.Module, methods.Attachment, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    at = methods.attach(model, method, total_steps=9, steps_per_epoch=3)
    optimizer = torch.optim.SGD(at.parameter_groups(), lr=0.1, momentum=0.9)
    at.bind(optimizer)
    return model, at, optimizer


def gradients_of_pruned(model: nn.Module, at: methods.Attachment) -> bool:
    model.zero_grad()
    model(torch.randn(4, 6)).sum().backward()
    return any(bool(weight.grad[~at.masks()[name]].any()) for name, weight in at.weights().items())


def test_they_are_there_in_the_steps_that_need_them_only_and_after_a_resume() -> None:
    model, at, _ = training(DenseEveryThird(density=0.5))
    sizes, seen, counted = [48, 24], [], []
    for step in range(6):
        counted.append(at.gradient_counts().tolist() == sizes)
        seen.append(gradients_of_pruned(model, at))
        at.step()
        if step == 4:
            state = at.state_dict()
    assert seen == counted == [False, False, True, False, False, True]
    other, resumed, _ = training(DenseEveryThird(density=0.5))
    resumed.load_state_dict(state)
    assert gradients_of_pruned(other, resumed)


@pytest.mark.parametrize(("method", "dense"), [("static", False), ("set", False), ("sparse_momentum", True)])
def test_counts_follow_the_methods_weight_gradient(method: str, dense: bool) -> None:
    _, at, _ = training(methods.create(method, density=0.5))
    assert at.gradient_counts().tolist() == ([48, 24] if dense else at.kept_counts().tolist())
