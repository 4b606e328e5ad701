"""Training a model of another library with a method attached, and what has to be true of it then."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import methods

Loss = Callable[[], Tensor]


def library(name: str) -> Any:
    """The module, or a skip that says how to get it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name.partition(".")[0]:
            raise
        pytest.skip(f"{name} is not installed: make test-all", allow_module_level=True)


def attach(model: nn.Module, method: str, steps: int = 4, **options: Any) -> methods.Attachment:
    """30 % is kept, or alpha is large; SET moves weights at every second step but the last."""
    options = ({"alpha": 1e-2} if method == "dst" else {"density": 0.3}) | options
    return methods.attach(model, method, total_steps=steps, steps_per_epoch=2, **options)


def sgd(attached: methods.Attachment, lr: float = 0.05) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(attached.parameter_groups(), lr=lr, momentum=0.9)
    attached.bind(optimizer)
    return optimizer


def train(attached: methods.Attachment, optimizer: torch.optim.Optimizer, loss: Loss, steps: int = 4) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss() + attached.penalty()
        value.backward()
        attached.step()
        losses.append(float(value.detach()))
    return losses


def computed_weights(model: nn.Module, attached: methods.Attachment) -> dict[str, Tensor]:
    """What the layers compute with, by name."""
    found = {}
    for name in attached.masks():
        module, _, parameter = name.rpartition(".")
        found[name] = torch.Tensor(getattr(model.get_submodule(module), parameter).detach()).clone()
    return found


def check_sparse(model: nn.Module, attached: methods.Attachment) -> None:
    """Pruned weights are 0 in what the layers compute with, and density() is the share that is not pruned."""
    masks, weights = attached.masks(), computed_weights(model, attached)
    assert all(not weights[name][~mask].any() for name, mask in masks.items())
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert attached.density() == kept / sum(mask.numel() for mask in masks.values()) < 1
    if attached.method.name in ("static", "dst"):  # weights that others have just grown are 0
        assert sum(int(weight.count_nonzero()) for weight in weights.values()) == kept
