"""Cells in a pool of worker processes on this machine."""

from __future__ import annotations

import collections
import contextlib
import json
import math
import os
import platform
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from benchmark.launch.base import Event, Job
from benchmark.run_folder import links
from benchmark.run_folder.attempts import mark_ended
from benchmark.spec import RunSpec
from benchmark.training.execution import Execution

BUSY_SECONDS = 1.0
DEATHS_ALLOWED = 3
STOP_SECONDS = 120.0


def default_workers(device: str) -> int:
    """One per usable core on the CPU, one per GPU otherwise."""
    if device == "cpu":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    import torch

    return max(1, torch.cuda.device_count())


class _Worker:
    """One worker process and the cell it has, if any."""

    def __init__(self, slot: int, number: int, execution: Execution, logs: Path) -> None:
        self.slot = slot
        self.spec: RunSpec | None = None
        self.stopping = False
        self.leaving = False
        self.partial = b""
        self.log = logs / f"worker-{platform.node()}-{os.getpid()}-{number}.log"
        links.refuse(self.log)
        environment = process_environment(
            execution.device, slot=slot, devices=1 if execution.processes_started else execution.processes
        )
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmark.launch.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self.send(execution.to_dict())

    @property
    def output(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def give(self, spec: RunSpec) -> None:
        self.spec = spec
        self.send({"spec": spec.to_dict()})


def process_environment(device: str, *, slot: int, devices: int = 1) -> dict[str, str]:
    """The environment of a process that trains; it sees only the `devices` GPUs of its slot."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if device == "cpu":
        return environment | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    mine = [present[(slot * devices + i) % len(present)] for i in range(devices)]
    return environment | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "CUDA_VISIBLE_DEVICES": ",".join(mine)}


class LocalLauncher:
    """A pool of workers.

    A cell whose worker dies goes to another worker; after DEATHS_ALLOWED deaths it fails. If workers
    of other launchers have all cells that are left, `events` ends after patience_seconds.
    """

    stop_message = "stopping: running cells save their state (Ctrl-C to stop at once)"

    def __init__(self, execution: Execution, *, workers: int, patience_seconds: float = math.inf) -> None:
        self._execution, self._patience_seconds = execution, patience_seconds
        self._logs = execution.out / "logs"
        self._logs.mkdir(exist_ok=True)
        self.workers = workers
        self._started = 0
        self._queue: collections.deque[RunSpec] = collections.deque()
        self._later: list[tuple[float, RunSpec]] = []
        self._waiting_since: dict[str, float] = {}
        self._deaths: collections.Counter[str] = collections.Counter()
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._stopping: float | None = None

    def submit(self, specs: Sequence[RunSpec]) -> list[Job]:
        self._queue.extend(specs)
        return [Job(spec.run_id) for spec in specs]

    def stop(self) -> None:
        """Safe in a signal handler: `events` passes the request on."""
        if self._stopping is None:
            self._stopping = time.monotonic()

    def kill(self) -> None:
        for worker in self._workers:
            worker.process.kill()
            worker.process.wait()
        self._workers.clear()

    def events(self) -> Iterator[Event]:
        try:
            while self._queue or self._later or any(worker.spec for worker in self._workers):
                yield from self._hand_out()
                for key, _ in self._selector.select(timeout=0.2):
                    yield from self._read(key.data)
                if self._stopping is not None:
                    self._wind_down()
                    if time.monotonic() - self._stopping > STOP_SECONDS:
                        return
                elif self._all_elsewhere():
                    return
        finally:
            self.kill()

    def _all_elsewhere(self) -> bool:
        """Whether this launcher has only waited for other workers for patience_seconds."""
        if self._patience_seconds == math.inf or self._queue or any(worker.spec for worker in self._workers):
            return False
        waits = [time.monotonic() - self._waiting_since.get(spec.run_id, math.inf) for _, spec in self._later]
        return bool(waits) and min(waits) > self._patience_seconds

    def _wind_down(self) -> None:
        self._queue.clear()
        self._later.clear()
        for worker in self._workers:
            if not worker.stopping:
                worker.stopping = True
                worker.send({"stop": True})

    def _hand_out(self) -> Iterator[Event]:
        now = time.monotonic()
        ready = [spec for due, spec in self._later if due <= now]
        self._later = [(due, spec) for due, spec in self._later if due > now]
        self._queue.extend(ready)
        while self._queue and self._stopping is None:
            free = (worker for worker in self._workers if worker.spec is None)
            idle = next((worker for worker in free if not worker.stopping and not worker.leaving), None)
            if idle is None:
                if len(self._workers) >= self.workers:
                    return
                idle = self._start()
            spec = self._queue.popleft()
            idle.give(spec)
            if spec.run_id not in self._waiting_since:  # else its first report says that it no longer waits
                yield Event(spec.run_id, "started")

    def _start(self) -> _Worker:
        slot = min(set(range(self.workers)) - {worker.slot for worker in self._workers})
        worker = _Worker(slot, self._started, self._execution, self._logs)
        self._started += 1
        self._workers.append(worker)
        self._selector.register(worker.output, selectors.EVENT_READ, worker)
        return worker

    def _read(self, worker: _Worker) -> Iterator[Event]:
        chunk = os.read(worker.output.fileno(), 1 << 16)
        if not chunk:
            yield from self._died(worker)
            return
        *lines, worker.partial = (worker.partial + chunk).split(b"\n")
        for line in lines:
            yield from self._message(worker, json.loads(line))

    def _message(self, worker: _Worker, message: dict[str, Any]) -> Iterator[Event]:
        run_id = message["run_id"]
        worker.leaving = "leaves" in message
        if "report" in message:
            if self._waiting_since.pop(run_id, None) is not None:
                yield Event(run_id, "started")
            yield from _events(run_id, message["report"])
            return
        spec, worker.spec = worker.spec, None
        assert spec is not None, "a worker reports the end of the cell that it has"
        if message["end"]["status"] == "interrupted" and self._stopping is None:
            worker.stopping = True  # a signal to this worker only: it saved the cell's state and ends
            self._queue.appendleft(spec)
            yield Event(run_id, "warning", {"warning": "its worker was asked to stop; another one goes on with it"})
        elif message["end"]["status"] in ("busy", "superseded"):
            self._later.append((time.monotonic() + BUSY_SECONDS, spec))
            if run_id not in self._waiting_since:
                self._waiting_since[run_id] = time.monotonic()
                yield Event(run_id, "waiting")
        else:
            yield Event(run_id, "end", message["end"])

    def _died(self, worker: _Worker) -> Iterator[Event]:
        self._selector.unregister(worker.output)
        self._workers.remove(worker)
        code = worker.process.wait()
        if self._execution.processes_started:  # its followers have ended too; only the user can restart them
            self._queue.clear()
            self._later.clear()
        cause = f"signal {-code}" if code < 0 else f"exit code {code}"
        if self._stopping is not None and code == 0:
            return  # it was asked to stop before it began its cell
        if worker.spec is not None:
            yield from self._worker_died(worker.spec, cause, worker.log)

    def _worker_died(self, spec: RunSpec, cause: str, log: Path) -> Iterator[Event]:
        """Queue the cell of a dead worker again; after DEATHS_ALLOWED deaths mark it as failed."""
        run_id = spec.run_id
        self._deaths[run_id] += 1
        if self._execution.processes_started or self._stopping is not None:
            who = "processes" if self._execution.processes_started else "worker"
            yield Event(run_id, "warning", {"warning": f"its {who} died ({cause}); the same command goes on"})
        elif self._deaths[run_id] < DEATHS_ALLOWED:
            yield Event(run_id, "warning", {"warning": f"its worker died ({cause}); another one goes on with it"})
            self._queue.append(spec)
        else:
            error = f"its worker died {DEATHS_ALLOWED} times, last with {cause}; see {log}"
            with contextlib.suppress(OSError):  # the storage may be why the workers died
                mark_ended(self._execution.out / "cells" / run_id, error)
            yield Event(run_id, "end", {"status": "failed", "error": error})


def _events(run_id: str, report: dict[str, Any]) -> Iterator[Event]:
    if "warning" in report:
        yield Event(run_id, "warning", report)
    elif "resumed" in report:
        yield Event(run_id, "resumed", report)
    elif "epoch" in report:
        yield Event(run_id, "epoch", report)
