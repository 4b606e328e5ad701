"""MNIST from its four files, their SHA-256 checked before anything is parsed.

Read from DIR/MNIST/raw (torchvision's layout, unpacked or .gz) or DIR/mnist, the first that
has the file. The .gz checksums were taken of files whose MD5 are those that torchvision
0.28 lists, the others of the same files unpacked.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmark.data.catalogue import DataError
from benchmark.data.tensors import Examples, Split
from benchmark.data.torchvision_import import import_torchvision
from benchmark.spec import Data

CLASSES = 10
TIMEOUT_SECONDS = 30
FOLDERS = ("MNIST/raw", "mnist")
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
FILES = tuple(name for name in SHA256 if not name.endswith(".gz"))


def read(spec: Data, data_dir: Path) -> Examples:
    """60,000 training and 10,000 test images, uint8 [n, 1, 28, 28]. Raises DataError."""
    images, labels, test_images, test_labels = (_parse(_content(name, data_dir)) for name in FILES)
    train, test = Split(images[:, None], labels.long()), Split(test_images[:, None], test_labels.long())
    return Examples(train, test, CLASSES)


def fetch(data_dir: Path) -> None:
    """Downloads through torchvision into DIR/MNIST/raw, unless all four files are there. Raises DataError."""
    if any(_present(name, data_dir) is None for name in FILES):
        torchvision = import_torchvision()
        try:
            with _patience(TIMEOUT_SECONDS), contextlib.redirect_stdout(sys.stderr):
                torchvision.datasets.MNIST(str(data_dir), download=True)
        except (RuntimeError, OSError, http.client.HTTPException) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"MNIST could not be downloaded: {_by_hand(data_dir)} (reason: {reason})") from error
    verify(data_dir)


def verify(data_dir: Path) -> list[str]:
    """A line for each of the four files, all of them good. Raises DataError for the first that is not."""
    for name in FILES:
        _content(name, data_dir)
    paths = [_find(name, data_dir) for name in FILES]
    return [f"{path}: good, SHA-256 {SHA256[path.name]}" for path in paths]


def fingerprint(data_dir: Path) -> str:
    """SHA-256 over the four files unpacked, so the same for either layout. Raises DataError."""
    whole = hashlib.sha256()
    for name in FILES:
        whole.update(_content(name, data_dir))
    return whole.hexdigest()


def _present(name: str, data_dir: Path) -> Path | None:
    candidates = (data_dir / folder / (name + suffix) for folder in FOLDERS for suffix in ("", ".gz"))
    return next((path for path in candidates if os.path.isfile(path)), None)


def _find(name: str, data_dir: Path) -> Path:
    path = _present(name, data_dir)
    if path is None:
        raise DataError(
            f"MNIST is not in {data_dir}: {name}.gz is missing (expected SHA-256 {SHA256[name + '.gz']}); "
            f"run `{_command(data_dir)}`, or without a network {_by_hand(data_dir)}"
        )
    return path


def _content(name: str, data_dir: Path) -> bytes:
    """The file unpacked. Raises DataError unless it is, as it lies there, the file that it should be."""
    path = _find(name, data_dir)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; expected SHA-256 {SHA256[path.name]}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[path.name]:
        raise DataError(
            f"{path} is corrupt: expected SHA-256 {SHA256[path.name]}, found {found}; "
            f"delete it, then run `{_command(data_dir)}` or put a good copy in its place"
        )
    return gzip.decompress(content) if path.suffix == ".gz" else content


def _parse(content: bytes) -> Tensor:
    """The IDX format: two zero bytes, the type (8, uint8), the number of sizes, each size, then the values."""
    sizes = struct.unpack_from(f">{content[3]}I", content, offset=4)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)


def _command(data_dir: Path) -> str:
    return f"python -m benchmark data fetch mnist --data-dir {data_dir}"


def _by_hand(data_dir: Path) -> str:
    return f"put {', '.join(name + '.gz' for name in FILES)} into {data_dir / 'mnist'}"


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """torchvision sets no time limit: behind a silent firewall it would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
