"""Errors of the storage. They pass, or the user repairs the storage; no cell fails because of them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# EREMOTEIO and others are not defined on every system
NO_ANSWER = tuple(
    getattr(errno, name)
    for name in (
        "EIO", "ESTALE", "ETIMEDOUT", "EROFS", "ENOTCONN", "ENODEV", "ENXIO", "ENOLINK", "EREMOTEIO", "EHOSTDOWN",
        "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ESHUTDOWN", "ECONNABORTED", "ENOLCK", "EUCLEAN", "ENOMEDIUM",
    )
    if hasattr(errno, name)
)  # fmt: skip


class StorageError(Exception):
    """Files cannot be read or written. The message is one line: the place, the reason and what to do."""

    exit_code = 1

    def __init__(self, place: object, reason: str) -> None:
        super().__init__(f"{place}: {reason}; the cell stays pending: mend the storage and run the same command again")


class DiskFullError(StorageError):
    """No space is left where something has to be written."""

    def __init__(self, place: object) -> None:
        Exception.__init__(self, f"no space left under {place}: free some and run the same command again")


def explain(error: OSError) -> tuple[str, int]:
    """The message and the exit code of a command that an error of the system ends."""
    if error.errno in NO_SPACE:
        return str(DiskFullError(error.filename or "the folder that is written")), StorageError.exit_code
    code = StorageError.exit_code if error.errno in NO_ANSWER else 2
    return f"{error.filename}: {error.strerror}" if error.filename else str(error), code


@contextlib.contextmanager
def named(out: Path) -> Iterator[None]:
    """Turn errors of the storage into a StorageError; other errors pass."""
    try:
        yield
    except OSError as error:
        if (storage := trouble(error, out)) is None:
            raise
        raise storage from error


def trouble(error: BaseException, out: Path) -> StorageError | None:
    """The error as one of the storage, or None if it is one of a cell's own code.

    out: the run folder. Whatever the system refuses inside its `cells` is the storage's; elsewhere
    permissions and missing files are the user's.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return None
    if error.errno in NO_SPACE:
        return DiskFullError(out)
    places = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    if error.errno in NO_ANSWER or any(Path(place).is_relative_to(out / "cells") for place in places):
        return StorageError(places[0] if places else out, os.strerror(error.errno))
    return None
