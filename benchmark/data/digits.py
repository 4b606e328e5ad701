"""scikit-learn's handwritten digits, enlarged from 8x8 to 28x28: real data without a download."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.data.catalogue import DataError
from benchmark.data.tensors import Examples, Split
from benchmark.spec import Data

CLASSES, SIZE, LEVELS = 10, 28, 16
SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def read(spec: Data, data_dir: Path) -> Examples:
    """1,437 training and 360 test images, uint8 [n, 1, 28, 28].

    Every fifth image of each class is a test image. Raises DataError if scikit-learn's copy has
    other bytes.
    """
    images, labels = _embedded()
    enlarged = enlarge(images)
    in_test = torch.zeros(len(labels), dtype=torch.bool)
    in_test[torch.argsort(labels, stable=True)[::5]] = True
    train, test = (Split(enlarged[chosen], labels[chosen]) for chosen in (~in_test, in_test))
    return Examples(train, test, CLASSES)


def fetch(data_dir: Path) -> None:
    """Nothing to fetch."""


def verify(data_dir: Path) -> list[str]:
    """One line for scikit-learn's copy. Raises DataError if it has other bytes."""
    _embedded()
    return [f"digits: embedded in scikit-learn, good, SHA-256 {SHA256}"]


def fingerprint(data_dir: Path) -> str:
    """SHA-256 over the 8x8 images and the labels, one byte per value; `read` checks it."""
    return SHA256


def _embedded() -> tuple[Tensor, Tensor]:
    """Images int64 [1797, 8, 8] in 0..16 and labels int64 [1797]."""
    bunch = importlib.import_module("sklearn.datasets").load_digits()
    images, labels = bunch.images.astype("uint8"), bunch.target.astype("uint8")
    found = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    if found != SHA256:
        raise DataError(
            f"scikit-learn's load_digits is not the data known here: expected SHA-256 {SHA256}, "
            f"found {found}; install scikit-learn again"
        )
    return torch.from_numpy(images).long(), torch.from_numpy(labels).long()


def enlarge(images: Tensor) -> Tensor:
    """uint8 [n, 1, 28, 28] of [n, 8, 8] in 0..16, bilinear."""
    pixels = images[:, None].to(torch.float64) * 255 / LEVELS
    enlarged = F.interpolate(pixels, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    # values lie on a grid of 1/3136: the 1e-6 rounds ties up on every processor
    return (enlarged + 0.5 + 1e-6).floor().to(torch.uint8)
