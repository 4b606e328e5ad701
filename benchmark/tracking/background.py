"""Keeps MLflow up to date while a grid runs, from a separate process that may hang or die."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from benchmark.tracking import store

FIRST_SECONDS = 5.0
INTERVAL_SECONDS = 60.0
SHARE = 20
PATIENCE_SECONDS = 4.0
SILENCE_SECONDS = 30.0
LAST_SECONDS = 60.0
REPAIR = "'python -m benchmark sync' repairs it"


class Mirror:
    """Runs `python -m benchmark sync` as a child process.

    It runs at intervals inside `with` and once in `finish`. warn: receives the first problem as one
    line, and nothing after it.
    """

    def __init__(self, out: Path, *, wanted: bool, warn: Callable[[str], None]) -> None:
        self._out, self._warn = out, warn
        self._wanted = wanted
        self._warned = False
        self._well = True
        self._over = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        if wanted and not store.installed():
            self._wanted = False
            warn(store.MISSING)

    def __enter__(self) -> Mirror:
        if self._wanted:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        if kind is not None:
            self._kill()
        if self._wanted:
            self._thread.join()

    def finish(self) -> None:
        """Import what is left, unless the last sync failed."""
        if self._wanted and self._well:
            try:
                self._sync(LAST_SECONDS)
            finally:
                self._kill()

    def _run(self) -> None:
        wait = FIRST_SECONDS
        while not self._over.wait(wait):
            started = time.monotonic()
            self._sync(None)
            wait = max(INTERVAL_SECONDS, SHARE * (time.monotonic() - started))

    def _sync(self, limit_seconds: float | None) -> None:
        command = [sys.executable, "-m", "benchmark", "sync", "--out", str(self._out.resolve())]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._child = child = subprocess.Popen(
            [*command, "--patience", str(PATIENCE_SECONDS)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        if limit_seconds is None:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, child.pid, 19)
        trouble = self._watch(child, limit_seconds)
        self._kill()
        self._well = trouble is None
        if trouble is not None and not self._warned:
            self._warned = True
            self._warn(trouble)

    def _watch(self, child: subprocess.Popen[bytes], limit_seconds: float | None) -> str | None:
        """Wait for the child to end; what went wrong, or None."""
        assert child.stdout is not None
        output = b""
        since = heard = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while True:
                now = time.monotonic()
                if now - heard > SILENCE_SECONDS:
                    return f"MLflow at {store.store_address(self._out)} {store.NO_ANSWER}; {REPAIR}"
                if limit_seconds is not None and now - since > limit_seconds:
                    return f"MLflow at {store.store_address(self._out)} is slow: not all was mirrored; {REPAIR}"
                if selector.select(timeout=0.2):
                    chunk = _read(child.stdout)
                    if not chunk:
                        break
                    heard = now
                    output = (output + chunk)[-10000:]
        code = child.wait()
        lines = output.decode(errors="replace").strip().splitlines() or [f"sync ended with exit code {code}"]
        repair = f"; {REPAIR}" if store.NO_ANSWER in lines[-1] else ""
        return None if code == 0 else f"{lines[-1].removeprefix('error: ')}{repair}"

    def _kill(self) -> None:
        child = self._child
        if child is not None and child.returncode is None:
            child.kill()
            child.wait()


def _read(stream: IO[bytes]) -> bytes:
    return os.read(stream.fileno(), 1 << 16)
