"""Files whose checksum is compared before they are parsed, and downloads with a time limit."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmark.data.catalogue import DataError

TIMEOUT_SECONDS = 30


def content(path: Path, *, algorithm: str, expected: str, command: str) -> bytes:
    """The bytes of a file. Raises DataError unless it has the expected checksum.

    algorithm: "SHA-256" or "MD5". command: what fetches a good copy.
    """
    try:
        found = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; expected {algorithm} {expected}") from error
    checksum = hashlib.new(algorithm.replace("-", "").lower(), found, usedforsecurity=False).hexdigest()
    if checksum != expected:
        raise DataError(
            f"{path} is corrupt: expected {algorithm} {expected}, found {checksum}; "
            f"delete it, then run `{command}` or put a good copy in its place"
        )
    return found


def fetch_command(name: str, data_dir: Path) -> str:
    """What a user types to fetch a data set."""
    return f"python -m benchmark data fetch {name} --data-dir {shlex.quote(str(data_dir))}"


@contextlib.contextmanager
def downloading(title: str, *, by_hand: str) -> Iterator[None]:
    """Around a download: a time limit, nothing on standard output, and a helpful DataError.

    The error says what to do instead.
    """
    try:
        with _patience(TIMEOUT_SECONDS), contextlib.redirect_stdout(sys.stderr):
            yield
    except (RuntimeError, OSError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{title} could not be downloaded: {by_hand} (reason: {reason})") from error


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """torchvision sets no time limit; behind a silent firewall it would wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
