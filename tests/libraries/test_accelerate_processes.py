"""Two processes that accelerate joins: gradients are averaged, masks and thresholds stay equal."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sparse_training import attach, library
from torch import nn
from two_processes import in_two_processes

accelerate = library("accelerate")
pytestmark = pytest.mark.slow


def _train(rank: int) -> dict[str, Any]:
    os.environ |= {"LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"}
    found: dict[str, Any] = {}
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    assert accelerator.num_processes == 2
    for method in ("set", "dst"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
        attached = attach(model, method, steps=8)
        network, optimizer = accelerator.prepare(model, torch.optim.SGD(attached.parameter_groups(), 0.1, 0.9))
        attached.bind(optimizer)
        torch.manual_seed(rank)
        for _ in range(12):
            with accelerator.accumulate(network):
                loss = F.cross_entropy(network(torch.randn(8, 6)), torch.arange(8) % 3) + attached.penalty()
                accelerator.backward(loss)
                attached.step()
                optimizer.zero_grad()
        found[method] = attached.context.step, [t.tolist() for t in attached.masks().values()], attached.density()
        found[f"{method} weights"] = [p.tolist() for p in model.parameters()]
    return found


def test_two_processes_take_the_same_steps() -> None:
    first, second = in_two_processes(_train)
    assert first == second
    for method in ("set", "dst"):
        steps, _, density = first[method]
        assert steps == 6
        assert density < 1
