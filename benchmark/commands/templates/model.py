"""The model `my_name`, and a suite that trains it on the embedded digits.

python -m benchmark run --suite my_name.py
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark import models
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell


class MyName(nn.Module):
    """Two convolutions and a linear layer, for images of 8x8 pixels or more."""

    def __init__(self, in_shape: tuple[int, ...], classes: int, widths: tuple[int, ...] = (16, 32)) -> None:
        """in_shape: [c, h, w] of the images. widths: `Model.widths`, the channels of each convolution."""
        super().__init__()
        channels, rows, columns = in_shape
        self.conv1 = nn.Conv2d(channels, widths[0], kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(widths[0], widths[1], kernel_size=3, padding=1)
        self.classifier = nn.Linear(widths[1] * (rows // 4) * (columns // 4), classes)

    def forward(self, images: Tensor) -> Tensor:
        """float32 [b, c, h, w] to logits float32 [b, classes]."""
        hidden = F.max_pool2d(F.relu(self.conv1(images)), 2)
        hidden = F.max_pool2d(F.relu(self.conv2(hidden)), 2)
        logits: Tensor = self.classifier(hidden.flatten(1))
        return logits


models.register("my_name", f"{__name__}:MyName")

DESCRIPTION = "my_name on the embedded digits: dense, DST and SET"


def suite() -> list[RunSpec]:
    data, model = Data(name="digits"), Model(name="my_name")
    optimizer = Optimizer(name="sgd", lr=0.05, momentum=0.9, batch_size=64, epochs=8)
    given: dict[str, dict[str, Any]] = {"dense": {}, "dst": {"alpha": 1e-3}, "set": {"density": 0.3}}
    return [
        cell(method, data=data, model=model, optimizer=optimizer, seed=seed, protocol=(), **hyperparameters)
        for seed in range(3)
        for method, hyperparameters in given.items()
    ]
