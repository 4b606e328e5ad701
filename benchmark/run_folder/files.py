"""Files that are complete or absent, and JSON with a checksum.

A file is written under another name, synced, and renamed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(Exception):
    """No space is left where something has to be written.

    The message is one line with the place and what to do.
    """

    exit_code = 1

    def __init__(self, place: object) -> None:
        super().__init__(f"no space left under {place}: free some and run the same command again")


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
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value, or None if the file is absent or not a complete JSON document."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value with the SHA-256 of its canonical JSON under `sha256`."""
    body = {key: inner for key, inner in value.items() if key != "sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return {**body, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def read_sealed(path: Path) -> dict[str, Any] | None:
    """A sealed document whose checksum holds, or None."""
    value = read_json(path)
    if isinstance(value, dict) and sealed(value)["sha256"] == value.get("sha256"):
        return value
    return None
