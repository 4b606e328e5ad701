"""The data sets by name, and the interface of their modules.

Imports no torch, so that `list data` answers at once. Each name is a module of this package that
follows `Source`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from benchmark.data.tensors import Dataset
    from benchmark.spec import Data

DESCRIPTIONS = {
    "cifar10": "50,000 + 10,000 colour images of 10 classes, 32x32; six files, checked by MD5",
    "digits": "scikit-learn's 1,797 handwritten digits, enlarged to 28x28; embedded, needs no download",
    "fashion-mnist": "60,000 + 10,000 images of clothes, 28x28; four files, checked by MD5",
    "imagenet": "folders of JPEGs, train and val, a folder a class; not downloaded, read by loader processes",
    "mnist": "60,000 + 10,000 handwritten digits, 28x28; four files, checked by SHA-256",
    "synthetic": "made-up classes of any shape and size, for tests and speed; stands in for no real data",
}
TRAIN_EXAMPLES = {"digits": 1437, "mnist": 60_000, "fashion-mnist": 60_000, "cifar10": 50_000, "imagenet": 1_281_167}
SHAPES = {"cifar10": (3, 32, 32), "imagenet": (3, 224, 224)}  # [c, h, w]; the others are [1, 28, 28]


class DataError(Exception):
    """Data are missing or corrupt: one line with the file, its checksums, and what to do."""

    exit_code = 3


class Readable(Protocol):
    """Both splits, before limits, statistics and the move to the device."""

    def dataset(self, spec: Data, *, device: torch.device) -> Dataset:
        """The data set that the spec describes. Raises SpecError."""


class Source(Protocol):
    """The functions of a data set's module."""

    def read(self, spec: Data, data_dir: Path) -> Readable:
        """Both splits. Raises DataError, or SpecError for a spec that does not fit."""

    def fetch(self, data_dir: Path) -> None:
        """Put the files into data_dir unless they are there already. Raises DataError."""

    def verify(self, data_dir: Path) -> list[str]:
        """One line per file if all are good. Raises DataError for the first that is not."""

    def fingerprint(self, data_dir: Path) -> str:
        """A digest of the bytes used, the same on every machine. Raises DataError."""
