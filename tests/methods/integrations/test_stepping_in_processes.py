"""Two processes under DistributedDataParallel, with an optimizer that steps the method."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import in_two_processes

import methods
from methods.integrations.stepping import take_over

pytestmark = pytest.mark.rare
X, Y = torch.randn(64, 6, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3
OPTIONS: dict[str, dict[str, Any]] = {"set": {"density": 0.3, "update_every": 2}, "dst": {"alpha": 1e-2}}


def _attached(method: str) -> tuple[nn.Module, methods.Attachment]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    return model, methods.attach(model, method, total_steps=4, steps_per_epoch=2, **OPTIONS[method])


def _train(rank: int) -> dict[str, Any]:
    dist.init_process_group("gloo")
    found: dict[str, Any] = {}
    for method in OPTIONS:
        model, attached = _attached(method)
        wrapped = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9)
        take_over(attached, optimizer)
        for batch in range(4):  # a step is two passes over 4 examples here, 16 in all
            optimizer.zero_grad()
            for part in range(2):
                start = 16 * batch + 8 * part + 4 * rank
                examples = slice(start, start + 4)
                with wrapped.no_sync() if part == 0 else nullcontext():
                    (F.cross_entropy(wrapped(X[examples]), Y[examples]) / 2).backward()
            optimizer.step()
        found[method] = [p.tolist() for p in model.parameters()], [m.tolist() for m in attached.masks().values()]
    return found


def test_processes_stay_equal_and_train_as_one() -> None:
    first, second = in_two_processes(_train)
    assert first == second
    for method, (parameters, masks) in first.items():
        model, attached = _attached(method)
        optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9)
        attached.bind(optimizer)
        for x, y in zip(X.split(16), Y.split(16), strict=True):
            optimizer.zero_grad()
            (F.cross_entropy(model(x), y) + attached.penalty()).backward()
            attached.step()
        assert masks == [mask.tolist() for mask in attached.masks().values()]
        for value, expected in zip(parameters, model.parameters(), strict=True):
            torch.testing.assert_close(torch.tensor(value), expected.detach(), rtol=1e-4, atol=1e-6)
