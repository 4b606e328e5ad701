"""Made-up examples of any shape: one random prototype a class, under noise twice as strong.

Easy to learn, the same bits everywhere, and never put in the place of real data: only the
name `synthetic` leads here.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from benchmark.data.tensors import Examples, Split
from benchmark.seeds import generator
from benchmark.spec import Data, SpecError

SHAPE, CLASSES, TRAIN, TEST = (1, 28, 28), 10, 2000, 500
SEED = 0


def read(spec: Data, data_dir: Path) -> Examples:
    """Examples of spec.shape and spec.classes; the limits set how many there are. Raises SpecError.

    With a validation split there are train_limit training examples beside it.
    """
    shape = SHAPE if spec.shape is None else spec.shape
    if len(shape) != 3 or not all(isinstance(size, int) and size >= 1 for size in shape):
        raise SpecError(f"data.shape is {list(shape)}: it must be channels, rows and columns, each at least 1")
    classes = CLASSES if spec.classes is None else spec.classes
    train = TRAIN if spec.train_limit is None else spec.train_limit + (spec.validation or 0)
    test = TEST if spec.test_limit is None else spec.test_limit
    prototypes = torch.randint(256, (classes, *shape), generator=generator(SEED, "synthetic prototypes"))
    return Examples(_split(prototypes, train, "train"), _split(prototypes, test, "test"), classes)


def fetch(data_dir: Path) -> None:
    """Nothing to fetch."""


def verify(data_dir: Path) -> list[str]:
    """One line, no file."""
    return ["synthetic: made when it is loaded, no files"]


def fingerprint(data_dir: Path) -> str:
    """The recipe's version: raised whenever its bytes change."""
    return "synthetic-1"


def _split(prototypes: Tensor, examples: int, stream: str) -> Split:
    # whole numbers throughout: floating-point noise differs between processors
    labels = torch.arange(examples) % len(prototypes)
    shape = (examples, *prototypes.shape[1:])
    noise = torch.randint(256, shape, generator=generator(SEED, f"synthetic {stream}"))
    return Split(((prototypes[labels] + 2 * noise) // 3).to(torch.uint8), labels)
