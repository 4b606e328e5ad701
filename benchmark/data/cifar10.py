"""CIFAR-10 from the six files of its Python version, their MD5 checked before they are unpickled.

Krizhevsky, Learning multiple layers of features from tiny images, 2009. Read from
DIR/cifar-10-batches-py, as the official archive unpacks. The checksums are torchvision 0.28's;
the files are pickles, so they are opened by a reader that knows only numpy's array.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from benchmark.data import checked
from benchmark.data.catalogue import DataError
from benchmark.data.tensors import Examples, Split
from benchmark.data.torchvision_import import import_torchvision
from benchmark.spec import Data

CLASSES, SHAPE = 10, (3, 32, 32)
FOLDER = "cifar-10-batches-py"
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
# The authors' code (cifar/train.py at 595c91e): its deviations are below the true .2470, .2435, .2616.
NORMALIZATIONS = {"official": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))}
TRAIN, TEST = tuple(MD5)[:-1], tuple(MD5)[-1:]


def read(spec: Data, data_dir: Path) -> Examples:
    """50,000 training and 10,000 test images, uint8 [n, 3, 32, 32], in the files' order.

    Raises DataError.
    """
    return Examples(_split(TRAIN, data_dir), _split(TEST, data_dir), CLASSES, NORMALIZATIONS)


def fetch(data_dir: Path) -> None:
    """Downloads the archive through torchvision, unless all six files are there.

    Raises DataError.
    """
    if not all((data_dir / FOLDER / name).is_file() for name in MD5):
        datasets = import_torchvision().datasets
        source = datasets.CIFAR10
        with checked.downloading("CIFAR-10", by_hand=_by_hand(data_dir)):
            datasets.utils.download_and_extract_archive(
                source.url, str(data_dir), filename=source.filename, md5=source.tgz_md5
            )
    verify(data_dir)


def verify(data_dir: Path) -> list[str]:
    """One line per file, if all six are good.

    Raises DataError for the first that is not.
    """
    for name in MD5:
        _content(name, data_dir)
    return [f"{data_dir / FOLDER / name}: good, MD5 {md5}" for name, md5 in MD5.items()]


def fingerprint(data_dir: Path) -> str:
    """SHA-256 over the six files, training first. Raises DataError."""
    whole = hashlib.sha256()
    for name in MD5:
        whole.update(_content(name, data_dir))
    return whole.hexdigest()


def _split(names: tuple[str, ...], data_dir: Path) -> Split:
    batches = [unpickle(_content(name, data_dir)) for name in names]
    images = torch.cat([torch.tensor(batch["data"]).reshape(-1, *SHAPE) for batch in batches])
    return Split(images, torch.tensor([label for batch in batches for label in batch["labels"]]))


def _content(name: str, data_dir: Path) -> bytes:
    """The bytes of the file. Raises DataError unless its checksum is the expected one."""
    path = data_dir / FOLDER / name
    command = checked.fetch_command("cifar10", data_dir)
    if not path.is_file():
        raise DataError(
            f"CIFAR-10 is not in {data_dir}: {FOLDER}/{name} is missing (expected MD5 {MD5[name]}); "
            f"run `{command}`, or without a network {_by_hand(data_dir)}"
        )
    return checked.content(path, algorithm="MD5", expected=MD5[name], command=command)


class _Unpickler(pickle.Unpickler):
    """Makes arrays of numbers, lists and strings, and refuses everything else."""

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a CIFAR-10 batch")
        return self.ALLOWED[module, name]


def unpickle(content: bytes) -> dict[str, Any]:
    """A batch of images and labels; only the types that such a batch needs are made."""
    batch: dict[str, Any] = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    return batch


def _by_hand(data_dir: Path) -> str:
    return f"unpack cifar-10-python.tar.gz into {data_dir}, so that {data_dir / FOLDER} has {', '.join(MD5)}"
