"""A data set from outside the package, held to what `Source` and `Examples` promise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.data.catalogue import Readable
from benchmark.data.tensors import Examples, Split
from benchmark.messages import shown
from benchmark.spec import Data


@dataclass(frozen=True)
class PluggedIn:
    """Follows `Source`.

    found: a function `read(spec, data_dir)`, or an object or module with `read` and any of `fetch`,
    `verify` and `fingerprint`. What it lacks follows from what it reads.
    """

    name: str
    found: Any

    def read(self, spec: Data, data_dir: Path) -> Readable:
        """Both splits. Raises ValueError unless they are as documented."""
        read = getattr(self.found, "read", self.found)
        if not callable(read):
            raise ValueError(f"data set '{self.name}' is {type(self.found).__name__}, without a function read()")
        examples = read(spec, data_dir)
        if isinstance(examples, Examples):
            _check(self.name, examples)
        elif not callable(getattr(examples, "dataset", None)):
            raise ValueError(f"data set '{self.name}': read() returned {shown(examples)}, not Examples")
        return examples  # type: ignore[no-any-return]

    def fetch(self, data_dir: Path) -> None:
        """Its own `fetch`; nothing without one."""
        if own := self._own("fetch"):
            own(data_dir)

    def verify(self, data_dir: Path) -> list[str]:
        """The lines of its own `verify`; without one, a line about the examples that it reads."""
        if own := self._own("verify"):
            return [str(line) for line in own(data_dir)]
        return [f"{self.name}: read, SHA-256 of the examples {self.fingerprint(data_dir)}"]

    def fingerprint(self, data_dir: Path) -> str:
        """Its own `fingerprint`; without one, the SHA-256 over all examples.

        Raises ValueError if it has neither.
        """
        if own := self._own("fingerprint"):
            return str(own(data_dir))
        examples = self.read(Data(name=self.name), data_dir)
        if not isinstance(examples, Examples):
            raise ValueError(f"data set '{self.name}': read() does not return Examples, so it needs fingerprint()")
        sha = hashlib.sha256()
        for split in (examples.train, examples.test):
            for tensor in (split.images, split.labels):
                sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
        return sha.hexdigest()

    def _own(self, name: str) -> Callable[..., Any] | None:
        return getattr(self.found, name, None)


def _check(name: str, examples: Examples) -> None:
    """Raises ValueError, in one line, for splits that training cannot use."""
    if not isinstance(examples.classes, int) or examples.classes < 2:
        raise ValueError(f"data set '{name}': classes is {shown(examples.classes)}, not a number of 2 or more")
    for title, split in (("train", examples.train), ("test", examples.test)):
        _check_split(f"data set '{name}', {title}", split, examples.classes)
    shapes = [list(split.images.shape[1:]) for split in (examples.train, examples.test)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"data set '{name}': images are {shapes[0]} in training and {shapes[1]} in test")


def _check_split(where: str, split: Split, classes: int) -> None:
    images, labels = split.images, split.labels
    if not (_is(images, torch.uint8, 4) and images.device.type == "cpu"):
        raise ValueError(f"{where}: images are {_kind(images)}, not torch.uint8 [n, c, h, w] on the CPU")
    if not (_is(labels, torch.int64, 1) and labels.device.type == "cpu"):
        raise ValueError(f"{where}: labels are {_kind(labels)}, not torch.int64 [n] on the CPU")
    if len(images) != len(labels) or not len(labels):
        raise ValueError(f"{where}: there are {len(images)} images and {len(labels)} labels")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"{where}: labels lie in {low} to {high}, not in 0 to {classes - 1}")


def _is(value: Any, dtype: torch.dtype, dimensions: int) -> bool:
    return isinstance(value, Tensor) and value.dtype == dtype and value.dim() == dimensions


def _kind(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)} on {value.device}" if isinstance(value, Tensor) else shown(value)
