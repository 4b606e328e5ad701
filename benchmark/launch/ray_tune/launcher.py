"""Cells as trials of Ray Tune, on a Ray of this machine or on a running cluster.

A cell's own process reports its progress through Tune; whether a cell is done is read from the run
folder.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import IO, Any

from benchmark.launch.base import Event, Job
from benchmark.launch.local import STOP_SECONDS, default_workers
from benchmark.launch.process_ranks import LAST_PORT
from benchmark.launch.ray_tune.trial import variables
from benchmark.run_folder.attempts import mark_ended
from benchmark.spec import RunSpec, SpecError
from benchmark.training.execution import Execution

DRIVERS_ALLOWED = 3
START_SECONDS = {"local": 120.0, "address": 30.0}
END_SECONDS = 20.0
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONUNBUFFERED": "1"}
TOKEN_BYTES = 32


class RayLauncher:
    """One trial per cell.

    A driver that dies is started again with the cells left, up to DRIVERS_ALLOWED drivers in all.
    """

    stop_message = "stopping: running cells save their state (Ctrl-C to stop at once)"

    def __init__(self, execution: Execution, *, workers: int | None, address: str | None, cells: int) -> None:
        """workers: cells at once.

        None: one per core or GPU of this machine, or of the cluster at an address.
        """
        self._execution, self._address = execution, address
        if workers is None and address is None:
            workers = default_workers(execution.device)
        self._wanted = workers and min(workers, cells)
        self.workers = self._wanted or cells
        self._name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self._sign = execution.out / "ray" / f"{self._name}.sign"
        self._log = execution.out / "logs" / f"ray-{self._name}.log"
        self._open: dict[str, RunSpec] = {}
        self._active: set[str] = set()
        self._drivers = 0
        self._partial = b""
        self._stopping: float | None = None

    def submit(self, specs: Sequence[RunSpec]) -> list[Job]:
        """Return once Ray answers. Raises SpecError if it does not."""
        if self._address is not None:
            check_address(self._address)
        self._sign.mkdir(parents=True)
        self._log.parent.mkdir(exist_ok=True)
        self._open = {spec.run_id: spec for spec in specs}
        self._start()
        return [Job(spec.run_id) for spec in specs]

    def stop(self) -> None:
        """Trials look for a file, so this works even if Ray does not answer."""
        if self._stopping is None:
            self._stopping = time.monotonic()
            with contextlib.suppress(OSError):  # a full disk stops the cells by itself
                (self._sign / "stop").touch()

    def kill(self) -> None:
        """End the driver and a local Ray, which are one process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._driver.pid, signal.SIGKILL)
        self._driver.wait()

    def events(self) -> Iterator[Event]:
        try:
            while self._open and not self._stopped():
                lines = self._read()
                if lines is None:
                    yield from self._died()
                for line in lines or ():
                    yield from self._message(json.loads(line))
            if not self._open:
                self._let_end()
        finally:
            self.kill()

    def _stopped(self) -> bool:
        if self._stopping is None:
            return False
        return not self._active or time.monotonic() - self._stopping > STOP_SECONDS

    def _let_end(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):  # Tune is writing its own tables
            self._driver.wait(END_SECONDS)

    def _start(self) -> None:
        self._drivers += 1
        self._partial = b""
        self._active.clear()
        path = os.pathsep.join(path for path in sys.path if path)
        environment = {**ENVIRONMENT, **os.environ, **self.authentication, "PYTHONPATH": path}
        with self._log.open("ab") as log:
            self._driver = subprocess.Popen(
                [sys.executable, "-m", "benchmark.launch.ray_tune.driver"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        assert self._driver.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._driver.stdin.write(json.dumps(self._order()).encode() + b"\n")
            self._driver.stdin.flush()
        self._wait_until_ready()

    @functools.cached_property
    def authentication(self) -> dict[str, str]:
        """A token for a Ray of our own; the user's own settings for a Ray at an address.

        Ray listens on every interface, and whoever may write into its store runs code here. The
        token exists only in the environment of the driver and of what the driver starts.
        """
        if self._address is not None:
            return {}
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(TOKEN_BYTES)}

    def _order(self) -> dict[str, Any]:
        return {
            "name": f"{self._name}-{self._drivers}",
            "storage": str(self._execution.out / "ray"),
            "sign": str(self._sign),
            "execution": self._execution.to_dict(),
            "cells": [{"run_id": run_id, "spec": spec.to_dict()} for run_id, spec in self._open.items()],
            "variables": variables(os.environ),
            "address": self._address,
            "workers": self._wanted,
        }

    def _wait_until_ready(self) -> None:
        limit = START_SECONDS["local" if self._address is None else "address"]
        deadline = time.monotonic() + limit
        message: dict[str, Any] = {"error": f"no answer in {limit:.0f} s"}
        while time.monotonic() < deadline:
            lines = self._read()
            if lines is None:
                message = {"error": f"its driver ended with exit code {self._driver.wait()}"}
                break
            if lines:
                message = json.loads(lines[0])
                break
        if "error" in message:
            self.kill()
            where = "Ray on this machine" if self._address is None else f"--ray-address {self._address}"
            raise SpecError(f"{where}: {message['error']}; see {self._log}")
        self.workers = message["workers"]

    @property
    def _output(self) -> IO[bytes]:
        assert self._driver.stdout is not None
        return self._driver.stdout

    def _read(self) -> list[bytes] | None:
        """The whole lines that have arrived, or None if the driver has ended."""
        if not select.select([self._output], [], [], 0.2)[0]:
            return []
        chunk = os.read(self._output.fileno(), 1 << 16)
        if not chunk:
            return None
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        return lines

    def _message(self, message: dict[str, Any]) -> Iterator[Event]:
        run_id, kind, payload = message["run_id"], message["kind"], message["payload"]
        if run_id not in self._open:
            return
        if kind == "lost":
            mark_ended(self._execution.out / "cells" / run_id, payload["error"])
            kind = "end"
        if kind == "started":
            self._active.add(run_id)
        if kind == "end":
            self._end(run_id)
        yield Event(run_id, kind, payload)

    def _end(self, run_id: str) -> None:
        self._active.discard(run_id)
        del self._open[run_id]

    def _died(self) -> Iterator[Event]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._driver.wait(END_SECONDS)
        self.kill()  # Ray's agents live a minute longer
        code = self._driver.returncode
        cause = f"signal {-code}" if code < 0 else f"exit code {code}"
        if self._stopping is None and code and self._drivers < DRIVERS_ALLOWED:
            for run_id in self._active:
                yield Event(run_id, "warning", {"warning": f"Ray's driver died ({cause}); another one goes on with it"})
            self._start()
            return
        for run_id in list(self._open):
            self._end(run_id)
            error = f"Ray's driver ended without it ({cause}); see {self._log}"
            yield Event(run_id, "end", {"status": "interrupted", "error": error})


def check_address(address: str) -> None:
    """Raises SpecError if nothing listens at HOST:PORT; Ray itself would try for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    is_port = re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) <= LAST_PORT
    if not (host and colon and is_port):
        raise SpecError(f"--ray-address {address}: write HOST:PORT, as `ray start --head` prints it")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except UnicodeError:
        raise SpecError(f"--ray-address {address}: the host is no host name") from None
    except OSError as error:
        raise SpecError(f"--ray-address {address}: no Ray cluster answers ({error.strerror or error})") from None
