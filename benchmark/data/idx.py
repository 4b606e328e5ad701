"""Data sets in four files of MNIST's IDX format, whose checksums are compared before parsing."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmark.data import checked
from benchmark.data.catalogue import DataError
from benchmark.data.tensors import Examples, Split
from benchmark.data.torchvision_import import import_torchvision
from benchmark.spec import Data

CLASSES = 10
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class IdxFiles:
    """One data set of this format; follows `Source`.

    name: its name here. torchvision: its class there. folders: where each file is looked for under
    the data folder, in that order; fetched into the first. algorithm, checksums: by file name; a
    name that is not among them, packed or unpacked, is not looked for.
    """

    name: str
    torchvision: str
    folders: tuple[str, ...]
    algorithm: str
    checksums: Mapping[str, str]

    def read(self, spec: Data, data_dir: Path) -> Examples:
        """Training and test images uint8 [n, 1, 28, 28]. Raises DataError."""
        images, labels, test_images, test_labels = (_parse(self._content(name, data_dir)) for name in FILES)
        train, test = Split(images[:, None], labels.long()), Split(test_images[:, None], test_labels.long())
        return Examples(train, test, CLASSES)

    def fetch(self, data_dir: Path) -> None:
        """Downloads through torchvision, unless all four files are there. Raises DataError."""
        if any(self._present(name, data_dir) is None for name in FILES):
            source = getattr(import_torchvision().datasets, self.torchvision)
            with checked.downloading(self.torchvision, by_hand=self._by_hand(data_dir)):
                source(str(data_dir), download=True)
        self.verify(data_dir)

    def verify(self, data_dir: Path) -> list[str]:
        """One line per file, if all four are good.

        Raises DataError for the first that is not.
        """
        for name in FILES:
            self._content(name, data_dir)
        paths = [self._find(name, data_dir) for name in FILES]
        return [f"{path}: good, {self.algorithm} {self.checksums[path.name]}" for path in paths]

    def fingerprint(self, data_dir: Path) -> str:
        """SHA-256 over the four files unpacked, so the same for either layout. Raises DataError."""
        whole = hashlib.sha256()
        for name in FILES:
            whole.update(self._content(name, data_dir))
        return whole.hexdigest()

    def _present(self, name: str, data_dir: Path) -> Path | None:
        names = [known for known in (name, f"{name}.gz") if known in self.checksums]
        candidates = (data_dir / folder / known for folder in self.folders for known in names)
        return next((path for path in candidates if os.path.isfile(path)), None)

    def _find(self, name: str, data_dir: Path) -> Path:
        path = self._present(name, data_dir)
        if path is None:
            raise DataError(
                f"{self.torchvision} is not in {data_dir}: {name}.gz is missing "
                f"(expected {self.algorithm} {self.checksums[name + '.gz']}); "
                f"run `{checked.fetch_command(self.name, data_dir)}`, or without a network {self._by_hand(data_dir)}"
            )
        return path

    def _content(self, name: str, data_dir: Path) -> bytes:
        """The unpacked bytes of the file.

        Raises DataError unless the file's checksum is the expected one.
        """
        path = self._find(name, data_dir)
        found = checked.content(
            path,
            algorithm=self.algorithm,
            expected=self.checksums[path.name],
            command=checked.fetch_command(self.name, data_dir),
        )
        return gzip.decompress(found) if path.suffix == ".gz" else found

    def _by_hand(self, data_dir: Path) -> str:
        return f"put {', '.join(name + '.gz' for name in FILES)} into {data_dir / self.folders[-1]}"


def _parse(content: bytes) -> Tensor:
    """Parse the IDX format.

    It is two zero bytes, the type (8, uint8), the number of sizes, each size, then the values.
    """
    sizes = struct.unpack_from(f">{content[3]}I", content, offset=4)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)
