"""Files of a run folder: complete or absent when written here, and read as if a stranger wrote them.

A file is written under another name, synced, and renamed. JSON may carry a checksum.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from benchmark.run_folder.shapes import Shape, misfit

DEEPEST = 32
MOST_BYTES = 2**34  # a sparse file may claim terabytes, and reading it would end in a MemoryError
DIGITS = 300
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def write_atomic(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Replace a file: a reader sees the old or the new content, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file, with the file's name in an error."""
    try:
        with path.open("ab") as file:
            file.write(content)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time in here, which may be killed; does nothing where the file system cannot
    lock a folder (NFS).
    """
    opened = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def folder_of(cell: Path, number: int) -> Path:
    """The folder of one attempt at a cell."""
    return cell / "attempts" / f"{number:04d}"


def read_bytes(path: Path, *, start: int = 0) -> bytes:
    """The content of a regular file, from a byte on. Raises as `open_regular`."""
    with open_regular(path) as file:
        try:
            file.seek(start)
            return file.read()
        except OSError as error:
            error.filename = error.filename or str(path)
            raise


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened for reading, which a stranger may have made.

    Never waits for a pipe. Raises FileNotFoundError if there is nothing, ValueError naming the path
    if it is no regular file or larger than MOST_BYTES, and OSError if the storage or the permissions
    refuse.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"{path} is damaged (a link to itself)") from error
        if error.errno == errno.ENXIO:
            raise ValueError(f"{path} is damaged (not a regular file)") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is damaged (not a regular file)")
        if status.st_size > MOST_BYTES:
            raise ValueError(f"{path} is damaged ({status.st_size} bytes)")
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def examine(path: Path, shape: Shape = object, *, seal: bool = False) -> tuple[Any, str]:
    """(the JSON document of a file, ""), or (None, what is wrong with the file in one line).

    (None, "") if there is no file. seal: its checksum must hold. Raises OSError as `read_bytes`.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return None, ""
    except ValueError as error:
        return None, str(error)
    try:
        value = parse(content)
    except ValueError as error:
        return None, f"{path} is damaged ({error})"
    if seal and not (isinstance(value, dict) and sealed(value)["sha256"] == value.get("sha256")):
        return None, f"{path} is damaged"
    problem = misfit(value, shape)
    return (None, f"{path} is damaged ({problem})") if problem else (value, "")


def read_json(path: Path, shape: Shape = object) -> Any:
    """The document of a file, or None if the file is absent or `examine` finds it damaged."""
    return examine(path, shape)[0]


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value with the SHA-256 of its canonical JSON under `sha256`."""
    body = {key: inner for key, inner in value.items() if key != "sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return {**body, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def parse(content: bytes) -> Any:
    """The value of a JSON document, of finite numbers and of texts that can be written as UTF-8.

    Raises ValueError with the reason.
    """
    try:
        value = _DECODER.decode(content.decode())
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not a complete JSON document, line {error.lineno} column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if content.count(b"[") + content.count(b"{") > DEEPEST or SURROGATE.search(content):
        _check_inside(value, DEEPEST)
    return value


def _check_inside(value: Any, levels: int) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError("a text with half a character") from error
    elif isinstance(value, (dict, list)):
        if levels == 0:
            raise ValueError("nested too deeply")
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            _check_inside(inner, levels - 1)


def _whole_number(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]}, which is not finite")
    return value


_DECODER = json.JSONDecoder(parse_int=_whole_number, parse_float=_finite_number, parse_constant=_finite_number)
