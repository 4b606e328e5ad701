"""Schedule-free optimizers write other weights into the model when it evaluates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sparse_training import attach, check_sparse, library
from torch import Tensor, nn

import methods

schedulefree = library("schedulefree")
pytestmark = pytest.mark.slow
X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3


def build(kind: str, method: str, steps: int = 12) -> tuple[nn.Module, methods.Attachment, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    attached = attach(model, method, steps=steps)
    optimizer = getattr(schedulefree, kind)(attached.parameter_groups(), lr=0.05)
    attached.bind(optimizer)
    return model, attached, optimizer


def step(model: nn.Module, attached: methods.Attachment, optimizer: Any) -> dict[str, Tensor]:
    """One step; the weights that it grew, by name: bool."""
    before = attached.masks()
    optimizer.zero_grad()
    (F.cross_entropy(model(X), Y) + attached.penalty()).backward()
    attached.step()
    return {name: mask & ~before[name] for name, mask in attached.masks().items()}


@pytest.mark.parametrize("kind", ["SGDScheduleFree", "AdamWScheduleFree"])
@pytest.mark.parametrize("method", ["static", "set", "dst"])
def test_evaluations_are_sparse(method: str, kind: str) -> None:
    model, attached, optimizer = build(kind, method)
    for _ in range(3):
        model.train()
        optimizer.train()
        for _ in range(4):
            step(model, attached, optimizer)
            if method != "dst":
                check_sparse(model, attached)
        model.eval()
        optimizer.eval()
        model(X)
        check_sparse(model, attached)
    expected, masks = model(X), attached.masks()
    methods.finalize(model)
    torch.testing.assert_close(model(X), expected, rtol=1e-5, atol=1e-6)
    for name, mask in masks.items():
        assert not model.get_parameter(name)[~mask].any()


@pytest.mark.parametrize("kind", ["SGDScheduleFree", "AdamWScheduleFree"])
def test_grown_weights_start_at_0_in_training_and_evaluation(kind: str) -> None:
    """The optimizer's z holds what a weight was before it was pruned, so it is zeroed with the weight."""
    model, attached, optimizer = build(kind, "set")
    optimizer.train()
    seen = 0
    for _ in range(10):
        grown = step(model, attached, optimizer)
        seen += sum(int(mask.sum()) for mask in grown.values())
        assert not any(model.get_parameter(name)[mask].any() for name, mask in grown.items())
        optimizer.eval()
        model(X)
        assert not any(model.get_parameter(name)[mask].any() for name, mask in grown.items())
        optimizer.train()
        model(X)
        for name, mask in grown.items():
            assert not model.get_parameter(name)[mask].any()
    assert seen > 0
