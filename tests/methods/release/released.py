"""A small trained network, released into a folder, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods

X = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
        self.hidden = nn.Linear(54, 20)
        self.head = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(self.hidden(self.features(x).flatten(1))))
        return logits


def trained(method: str = "set", density: float = 0.1) -> tuple[nn.Module, methods.Attachment]:
    """Finalized and in evaluation mode; at this density some of its 20 hidden neurons are dead."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Network()
        attached = methods.attach(model, method, total_steps=6, steps_per_epoch=3, density=density)
        optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9)
        attached.bind(optimizer)
        for _ in range(6):
            optimizer.zero_grad()
            (F.cross_entropy(model(X), torch.arange(4) % 3) + attached.penalty()).backward()
            attached.step()
    return methods.finalize(model).eval(), attached


def release(folder: Path) -> nn.Module:
    """The network that the folder holds afterwards."""
    model, attached = trained()
    methods.save(model, folder, masks=attached.masks(), example=X)
    return model
