"""A small model with a method attached, for the tests of the public face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from methods import Context, Method, Phase
from methods.registry import method_class


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(6, 8), nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


BATCH = torch.randn(12, 6, generator=torch.Generator().manual_seed(5)), torch.arange(12) % 3  # to score weights on


def attach(model: nn.Module, method: str | Method = "static", **options: Any) -> methods.Attachment:
    """Methods of whole units get a density at which each layer of `Block` keeps one, and the head all."""
    defaults: dict[str, Any] = {"total_steps": 6, "steps_per_epoch": 2, "train_batches": lambda: [BATCH]}
    if isinstance(method, str) and method_class(method).granularity == "unit":
        defaults |= {"density": 0.7}
    return methods.attach(model, method, **(defaults | options))


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.bool)


def sgd(attached: methods.Attachment, lr: float = 0.1) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(attached.parameter_groups(), lr=lr, momentum=0.9)
    attached.bind(optimizer)
    return optimizer


def backward(model: nn.Module, attached: methods.Attachment) -> Tensor:
    loss = F.cross_entropy(model(torch.randn(8, 6)), torch.arange(8) % 3) + attached.penalty()
    model.zero_grad()
    loss.backward()
    return loss


@dataclass(kw_only=True)
class TwoPhases(Method):
    """Dense, then pruned by magnitude with a fresh optimizer."""

    name = "two_phases"
    version = 1
    reference = "none"
    density_promise = "final"

    density: float = 0.5
    sparse_steps: int = 3

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        return Phase("dense", total_steps), Phase("sparse", self.sparse_steps, new_optimizer=True, lr=0.01)

    def enter_phase(self, ctx: Context) -> None:
        if ctx.phase.name == "sparse":
            sizes = {name: weight.parameter.abs() for name, weight in ctx.weights.items()}
            ctx.masks.set({name: size > size.median() for name, size in sizes.items()})


def write_by_copy(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.full_like(parameter, 0.5))


def write_by_data_assigned(model: nn.Module) -> None:
    for parameter in model.parameters():
        for _ in range(3):  # the allocator may give the first memory again
            parameter.data = torch.full_like(parameter, 0.5)


def zeros_where_pruned(model: nn.Module, attached: methods.Attachment) -> bool:
    weights = dict(model.named_parameters())
    return all(torch.equal(weights[name] != 0, mask) for name, mask in attached.masks().items())
