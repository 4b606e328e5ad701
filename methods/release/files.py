"""The files of a release. A folder is written as a whole; a folder that is read is not trusted.

Sizes are compared with release.json and with the file system before anything is read, and a file is
not read into memory for its checksum. So a false size takes no memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMAT = 1
DOCUMENT, CARD = "release.json", "README.md"
MASKS = "masks.safetensors"
FORMS = {"dense": "model.safetensors", "csr": "model-csr.safetensors", "compact": "model-compact.safetensors"}
MOST_BYTES = 2**34  # of one file
MOST_DOCUMENT_BYTES = 2**24
MOST_DIMENSIONS = 16
MOST_NAME = 1000  # characters of a name
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def library() -> Any:
    """The package safetensors with its torch module. Raises ValueError where it is not installed."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise ValueError(
            "safetensors is not installed: pip install safetensors, or 'sparse-training-bench[release]'"
        ) from error
    return safetensors


def check_free(folder: Path) -> None:
    """Raises ValueError where the folder holds other files, OSError where it cannot be made.

    A folder with a release.json passes: `write` compares its files.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder} is a file or a link: choose another folder")
    if folder.exists() and any(folder.iterdir()) and not (folder / DOCUMENT).is_file():
        raise ValueError(f"{folder} holds other files: choose a new or empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _aside(folder):
        pass


@contextlib.contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A new folder beside this one, removed at the end; `write` renames it.

    A folder that a killed process left here is removed first.
    """
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.{'[0-9a-f]' * 32}.tmp"):
        with contextlib.suppress(OSError), _lock(left) as held:
            if held:
                shutil.rmtree(left)
    aside = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.tmp"
    try:
        aside.mkdir()
    except OSError as error:
        error.filename = str(folder)
        raise
    try:
        with _lock(aside):
            yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Lock a folder until its process ends; False where another has, or the file system has no locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    held = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held = False
    try:
        yield held
    finally:
        os.close(descriptor)


def write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write a folder of files with one rename, so that it is complete or absent, also after a power cut.

    Writing the same contents twice changes nothing. Raises ValueError where the folder holds
    anything else.
    """
    if folder.is_dir() and any(folder.iterdir()):
        if {path.name for path in folder.iterdir()} == set(contents) and all(
            (folder / name).is_file() and (folder / name).read_bytes() == content for name, content in contents.items()
        ):
            return
        raise ValueError(f"{folder} holds another network's files, or edited ones: choose a new or empty folder")
    with _aside(folder) as aside:
        try:
            for name, content in contents.items():
                with (aside / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            _sync(aside)
            aside.rename(folder)
            _sync(folder.parent)
        except OSError as error:  # a full disk names no file
            error.filename = str(folder)
            raise


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Document:
    """A checked release.json.

    files: (bytes, SHA-256) by name. masks, csr: shapes by the weight's name. network: the name of
    what builds the network, and its arguments; None where only a given model can be loaded.
    """

    folder: Path
    files: Mapping[str, tuple[int, str]]
    masks: Mapping[str, tuple[int, ...]]
    csr: Mapping[str, tuple[int, ...]]
    network: tuple[str, dict[str, Any]] | None


def document_bytes(
    contents: Mapping[str, bytes],
    *,
    masks: Mapping[str, tuple[int, ...]],
    csr: Mapping[str, tuple[int, ...]],
    network: tuple[str, Mapping[str, Any]] | None,
) -> bytes:
    """The release.json of these files."""
    files = {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in sorted(contents.items())}
    built = None if network is None else {"builder": network[0], "arguments": network[1]}
    value = {"format": FORMAT, "files": files, "masks": masks, "csr": csr, "network": built}
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def read_document(folder: Path) -> Document:
    """The folder's release.json. Raises ValueError naming the file where it is missing or damaged."""
    path = folder / DOCUMENT
    _check_regular(path, most=MOST_DOCUMENT_BYTES)
    try:
        value = json.loads(path.read_bytes())
        if value["format"] != FORMAT:
            raise ValueError(f"it has format {value['format']!r:.40}, and this version reads format {FORMAT}")
        files = {
            check_name(name): (_whole(facts["bytes"]), check_name(facts["sha256"]))
            for name, facts in value["files"].items()
        }
        masks, shapes = ({check_name(n): _shape(s) for n, s in value[key].items()} for key in ("masks", "csr"))
        network = None if value["network"] is None else _network(value["network"])
    except KeyError as error:
        raise ValueError(f"{path} is damaged: it has no {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error
    return Document(folder, files, masks, shapes, network)


def _network(value: Any) -> tuple[str, dict[str, Any]]:
    builder, arguments = value["builder"], value["arguments"]
    if not isinstance(builder, str) or not isinstance(arguments, dict):
        raise TypeError("network is not the name of a builder and its arguments")
    return check_name(builder), arguments


def check_name(value: Any) -> str:
    """A name that a message can show. Raises ValueError for any other value."""
    if not isinstance(value, str) or len(value) > MOST_NAME or not value.isprintable():
        raise ValueError(f"{value!r:.60} is no name of up to {MOST_NAME} characters that print")
    return value


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MOST_DIMENSIONS:
        raise TypeError("a shape is no list of a few numbers")
    return tuple(_whole(size) for size in value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise TypeError(f"{value!r:.40} is no size")
    return value


def _check_regular(path: Path, *, most: int) -> int:
    """The bytes of a file. Raises ValueError where it is missing, no regular file, or too large."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path} is missing") from None
    except OSError as error:  # links that lead to each other, a name that is too long
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is damaged: it is no regular file")
    if found.st_size > most:
        raise ValueError(f"{path} is damaged: it has {found.st_size} bytes, more than {most}")
    return found.st_size


@dataclass(frozen=True)
class Tensors:
    """An opened file of tensors. heads: every tensor without its data, on the meta device."""

    path: Path
    heads: Mapping[str, Tensor]
    _file: Any

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def damaged(self, name: str, what: object) -> ValueError:
        """The error of one tensor."""
        return ValueError(f"{self.path}: '{name}' is damaged: {what}")


@contextlib.contextmanager
def tensors(document: Document, name: str) -> Iterator[Tensors]:
    """Opens a safetensors file of the folder. Raises ValueError unless it is the one in release.json."""
    safetensors, path = library(), document.folder / name
    if name not in document.files:
        there = ", ".join(sorted(document.files))[:300]
        raise ValueError(f"{document.folder} has no {name}; it has {there}")
    size, sha256 = document.files[name]
    if (found := _check_regular(path, most=MOST_BYTES)) != size:
        raise ValueError(f"{path} is damaged: it has {found} bytes, and {DOCUMENT} says {size}")
    if (found_sha256 := _sha256(path)) != sha256:
        raise ValueError(f"{path} is damaged: its SHA-256 is {found_sha256[:12]}…, and {DOCUMENT} says {sha256[:12]}…")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield Tensors(path, {key: _head(path, key, file.get_slice(key)) for key in file.keys()}, file)  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error


def _head(path: Path, name: str, part: Any) -> Tensor:
    try:
        check_name(name)
        return torch.empty(part.get_shape(), dtype=DTYPES[part.get_dtype()], device="meta")
    except KeyError:
        dtype = part.get_dtype()
        raise ValueError(f"{path}: '{name}' has type {dtype}, which is not one of {', '.join(DTYPES)}") from None
    except (RuntimeError, TypeError):  # of no entries and sizes that overflow
        raise ValueError(f"{path}: '{name}' is damaged: its shape is {str(part.get_shape())[:100]}") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
