"""Wide residual networks, pre-activation, without dropout (WRN-depth-width).

Zagoruyko & Komodakis, arXiv:1605.07146; the details as in the authors' code
(junjieliu2910/DynamicSparseTraining 595c91e, cifar/models/wideresnet.py and masked_wideresnet.py):
where a block changes the width, its shortcut is a 1x1 convolution of the activated input.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

STEM = 16


class Block(nn.Module):
    """Batch normalisation, ReLU and a 3x3 convolution, twice, around a shortcut; [b, c, h, w]."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, kernel_size=3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, kernel_size=1, stride=stride, bias=False) if c_in != c_out else None

    def forward(self, images: Tensor) -> Tensor:
        activated = F.relu(self.norm1(images))
        kept = images if self.shortcut is None else self.shortcut(activated)
        residual: Tensor = self.conv2(F.relu(self.norm2(self.conv1(activated))))
        return kept + residual


class WideResNet(nn.Module):
    """[b, c, h, w] to [b, classes], images of any size.

    It has (depth - 4) / 6 blocks in each of three groups. The maskable layers in the authors'
    order, which the paper's figures 8 to 12 are numbered by (inferred): `conv1`, then of each block
    in turn `conv1`, `conv2` and, in the first of a group, `shortcut`, and at last `fc`; so
    `group1.0.shortcut` is the fourth convolution.

    initialization: None is torch's own, kaiming-uniform with a = sqrt 5, and "official-masked" is
    the same, since that is what the authors' masked network has. "official-dense": convolutions
    kaiming-normal by fan-out, that is N(0, 2 / (k_h k_w c_out)), and the bias of `fc` 0.
    """

    uncounted: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, in_shape: tuple[int, ...], classes: int, *, depth: int, width: int, initialization: str | None = None
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        assert rest == 0, "the catalogue's depths are 6n + 4"
        widths = [STEM * width * 2**group for group in range(3)]
        self.conv1 = nn.Conv2d(in_shape[0], STEM, kernel_size=3, padding=1, bias=False)
        self.group1 = _group(STEM, widths[0], blocks, stride=1)
        self.group2 = _group(widths[0], widths[1], blocks, stride=2)
        self.group3 = _group(widths[1], widths[2], blocks, stride=2)
        self.norm = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], classes)
        if initialization == "official-dense":
            self._initialize_as_the_dense_twin()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.group3(self.group2(self.group1(self.conv1(images))))
        hidden = F.adaptive_avg_pool2d(F.relu(self.norm(hidden)), 1)
        logits: Tensor = self.fc(hidden.flatten(1))
        return logits

    def _initialize_as_the_dense_twin(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)


def _group(c_in: int, c_out: int, blocks: int, *, stride: int) -> nn.Sequential:
    """The first block changes width and size, the others keep them."""
    return nn.Sequential(Block(c_in, c_out, stride), *(Block(c_out, c_out, 1) for _ in range(blocks - 1)))
