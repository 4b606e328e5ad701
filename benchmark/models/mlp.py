"""A fully connected network with batch normalisation after every layer, the output included.

The MNIST network of the table in which sparse momentum's authors compare SET, DSR, DEEP-R and their
own method (TimDettmers/sparse_learning 19dcdff, results/MNIST_sparse_summary.csv). Initial weights
are torch's default, kaiming-uniform with a = sqrt 5.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn


class NormalizedMLP(nn.Module):
    """pixels - 300 - 100 - classes without biases; [b, c, h, w] to [b, classes].

    Each layer is followed by batch normalisation, and each hidden one by ReLU. In training b is at
    least 2. widths: units of the two hidden layers.
    """

    uncounted: ClassVar[tuple[str, ...]] = ()

    def __init__(self, in_shape: tuple[int, ...], classes: int, *, widths: tuple[int, ...] = (300, 100)) -> None:
        super().__init__()
        first, second = widths
        self.fc1 = nn.Linear(math.prod(in_shape), first, bias=False)
        self.norm1 = nn.BatchNorm1d(first)
        self.fc2 = nn.Linear(first, second, bias=False)
        self.norm2 = nn.BatchNorm1d(second)
        self.fc3 = nn.Linear(second, classes, bias=False)
        self.norm3 = nn.BatchNorm1d(classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.fc1(images.flatten(1))))
        hidden = F.relu(self.norm2(self.fc2(hidden)))
        logits: Tensor = self.norm3(self.fc3(hidden))
        return logits
