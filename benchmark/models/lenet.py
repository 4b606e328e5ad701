"""LeNet-300-100 and LeNet-5-Caffe, the paper's MNIST models (its table 1).

LeCun et al., Gradient-based learning applied to document recognition, 1998,
doi:10.1109/5.726791; the second with the widths of Caffe's example.
Initial weights are torch's default, kaiming-uniform with a = sqrt 5, in both protocols.
initialization: "xavier-uniform" (Glorot and Bengio, AISTATS 2010) or "kaiming-normal" (He et al.,
arXiv:1502.01852, with the gain of ReLU) draws the weights of all layers anew; biases stay.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.spec import SpecError


class LeNet300100(nn.Module):
    """pixels - 300 - 100 - classes with ReLU between; [b, c, h, w] to [b, classes].

    Takes images of any shape. widths: units of the two hidden layers.
    """

    uncounted: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        in_shape: tuple[int, ...],
        classes: int,
        *,
        widths: tuple[int, ...] = (300, 100),
        initialization: str | None = None,
    ) -> None:
        super().__init__()
        first, second = widths
        self.fc1 = nn.Linear(math.prod(in_shape), first)
        self.fc2 = nn.Linear(first, second)
        self.fc3 = nn.Linear(second, classes)
        _initialize(self, initialization)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.fc1(images.flatten(1)))
        logits: Tensor = self.fc3(F.relu(self.fc2(hidden)))
        return logits


class LeNet5Caffe(nn.Module):
    """Two 5x5 convolutions, each with ReLU and 2x2 max-pooling, and two fully connected layers.

    [b, c, h, w] to [b, classes]; h and w at least 16. ReLU after the convolutions as in the
    authors' code. widths: channels of the convolutions, units of the hidden layer. Raises SpecError
    for smaller images.
    """

    uncounted: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        in_shape: tuple[int, ...],
        classes: int,
        *,
        widths: tuple[int, ...] = (20, 50, 500),
        initialization: str | None = None,
    ) -> None:
        super().__init__()
        first, second, third = widths
        channels, *size = in_shape
        rows, columns = (((length - 4) // 2 - 4) // 2 for length in size)
        if min(rows, columns) < 1:
            raise SpecError(f"lenet-5-caffe cannot take images of {size[0]}x{size[1]}: 16x16 are the smallest")
        self.conv1 = nn.Conv2d(channels, first, kernel_size=5)
        self.conv2 = nn.Conv2d(first, second, kernel_size=5)
        self.fc3 = nn.Linear(second * rows * columns, third)
        self.fc4 = nn.Linear(third, classes)
        _initialize(self, initialization)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.max_pool2d(F.relu(self.conv1(images)), 2)
        hidden = F.max_pool2d(F.relu(self.conv2(hidden)), 2)
        logits: Tensor = self.fc4(F.relu(self.fc3(hidden.flatten(1))))
        return logits


def _initialize(model: nn.Module, initialization: str | None) -> None:
    if initialization is None:
        return
    for module in model.children():
        assert isinstance(module, nn.Linear | nn.Conv2d)
        if initialization == "xavier-uniform":
            nn.init.xavier_uniform_(module.weight)
        else:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
