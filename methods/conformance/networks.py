"""The small networks that the conformance checks train, and their data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 4
BATCH_SIZE = 16
STEPS_PER_EPOCH = 3
TOTAL_STEPS = 24


class Recurrent(nn.Module):
    """A recurrent layer over [batch, time, features], its last output classified."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.recurrent = layer
        self.classifier = nn.Linear(layer.hidden_size * (2 if layer.bidirectional else 1), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.recurrent(x)[0][:, -1])
        return logits


class Attention(nn.Module):
    """Self-attention over [batch, time, features], its mean over time classified."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(features, heads, batch_first=True)
        self.classifier = nn.Linear(features, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier((x + self.attention(x, x, x)[0]).mean(1))
        return logits


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, CLASSES))


class Shared(nn.Module):
    """A layer with two names, a classifier tied to an embedding, and a frozen layer before them.

    The layer with two names and the last layer are maskable.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(12, 16).requires_grad_(False)
        self.first = self.second = nn.Linear(16, 16)
        self.embedding = nn.Embedding(CLASSES, 16)
        self.last = nn.Linear(16, 16)
        self.classifier = nn.Linear(16, CLASSES)
        self.classifier.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(self.first(self.frozen(x).relu()).relu())
        token = self.embedding(x[:, :CLASSES].argmax(1))
        logits: Tensor = self.classifier(self.last((hidden + token).relu()))
        return logits


def _conv(conv: Any, norm: Any, pool: Any) -> nn.Module:
    return nn.Sequential(
        conv(3, 8, 3, stride=2, padding=1),
        norm(8),
        nn.ReLU(),
        conv(8, 8, 3, padding=1, groups=2),
        nn.ReLU(),
        conv(8, 8, 3, padding=1, groups=8),  # depthwise
        norm(8),
        nn.ReLU(),
        pool(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


def _transposed() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, CLASSES),
    )


Groups = list[dict[str, Any]]
MakeOptimizer = Callable[[Groups], torch.optim.Optimizer]


def sgd(groups: Groups) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def nesterov(groups: Groups) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)


def adam(groups: Groups) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=0.02)


def adamw(groups: Groups) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=0.02)


@dataclass(frozen=True)
class Network:
    """A model to check on. The parameters with two or more dimensions are maskable, except `dense`."""

    name: str
    make: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    optimizer: MakeOptimizer = sgd
    dense: tuple[str, ...] = ()

    def build(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            with torch.device("cpu"):
                return self.make()

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """One epoch of batches: inputs [BATCH_SIZE, *input_shape] around one centre per class."""
        with torch.device("cpu"):
            generator = torch.Generator().manual_seed(7)
            centres = torch.randn(CLASSES, *self.input_shape, generator=generator)
            target = torch.arange(BATCH_SIZE) % CLASSES
            noise = [torch.randn(BATCH_SIZE, *self.input_shape, generator=generator) for _ in range(STEPS_PER_EPOCH)]
            return [(centres[target] + 0.5 * each, target) for each in noise]


FAST = (
    Network("mlp", _mlp, (12,), adam),
    Network("conv2d", lambda: _conv(nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d), (3, 4, 4)),
    Network("lstm", lambda: Recurrent(nn.LSTM(6, 10, batch_first=True)), (5, 6), adam),
    Network("shared and frozen", Shared, (12,), dense=("frozen.weight", "embedding.weight")),
)
FULL = (
    *FAST,
    Network("gru", lambda: Recurrent(nn.GRU(6, 10, batch_first=True)), (5, 6), adam),
    Network(
        "deep bidirectional lstm",
        lambda: Recurrent(nn.LSTM(6, 8, num_layers=2, bidirectional=True, batch_first=True)),
        (5, 6),
        adam,
    ),
    Network("conv1d", lambda: _conv(nn.Conv1d, nn.BatchNorm1d, nn.AdaptiveAvgPool1d), (3, 4)),
    Network("conv3d", lambda: _conv(nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d), (3, 4, 4, 4)),
    Network("transposed convolutions", _transposed, (3, 3, 3)),
    Network("attention", lambda: Attention(8, 2), (5, 8), adam),
)
