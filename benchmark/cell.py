"""One cell from its spec to its result.json: claim, resume, train, measure, publish."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmark import checkpoint, environment, record
from benchmark.attempts import Attempt, Observer, claim, failed_before, folder_of, numbers
from benchmark.begin import begin, check_same, surroundings
from benchmark.data import DataError
from benchmark.distributed import Group, PeerError
from benchmark.files import NO_SPACE, DiskFullError, read_sealed, sealed, write_atomic, write_json
from benchmark.outcome import Outcome, publish
from benchmark.spec import SCHEMA_VERSION, RunSpec, SpecError
from benchmark.train import digest, train_epoch

Report = Callable[[dict[str, Any]], None]
CHECKPOINT_SECONDS = 30.0
CHECKPOINT_VARIABLE = "BENCH_CHECKPOINT_SECONDS"
CHECKPOINT_SHARE = 0.02


class DriftError(Exception):
    """The environment is not the one that a cell's checkpoint was written in."""

    exit_code = 2


TO_MEND = (DataError, SpecError, DriftError)


class _InterruptedError(Exception):
    pass


class _SupersededError(Exception):
    pass


class _DivergedError(Exception):
    pass


@dataclass(frozen=True)
class Place:
    """Where a cell runs and writes.

    checkpoint_seconds: between checkpoints, whatever they cost. None: as the environment variable
    BENCH_CHECKPOINT_SECONDS says, else CHECKPOINT_SECONDS or as many as keep their cost under
    CHECKPOINT_SHARE of the training. group: the processes that train it, this one their leader.
    """

    out: Path
    data_dir: Path
    device: str = "cpu"
    accept_drift: bool = False
    retry_failed: bool = False
    checkpoint_seconds: float | None = None
    group: Group = field(default_factory=Group)

    def cell(self, run_id: str) -> Path:
        return self.out / "cells" / run_id

    def seconds_to_next_checkpoint(self, cost_seconds: float) -> float:
        """How long to train on after a checkpoint that took so long to write."""
        if self.checkpoint_seconds is not None:
            return self.checkpoint_seconds
        if CHECKPOINT_VARIABLE in os.environ:
            return float(os.environ[CHECKPOINT_VARIABLE])
        return max(CHECKPOINT_SECONDS, cost_seconds / CHECKPOINT_SHARE)


def execute(spec: RunSpec, place: Place, *, observer: Observer, report: Report, stop: threading.Event) -> Outcome:
    """Train one cell, or go on with it; done cells and cells of others are left alone.

    report receives each epoch's record and each warning. stop asks for the state to be saved at
    the next step. Raises DataError, SpecError, DriftError and DiskFullError: the user has something to mend.
    """
    cell = place.cell(spec.run_id)
    if (finished := read_sealed(cell / "result.json")) is not None:
        return Outcome(finished["status"], finished["error"])
    if not place.retry_failed and (failure := failed_before(cell)) is not None:
        return Outcome("failed", failure)
    try:
        attempt = claim(cell, observer)
        if attempt is None:
            return Outcome("busy")
        return _attempt(spec, place, attempt, report, stop)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise DiskFullError(place.out) from error


def _attempt(spec: RunSpec, place: Place, attempt: Attempt, report: Report, stop: threading.Event) -> Outcome:
    outcome, code = Outcome("interrupted", "the worker stopped"), None
    try:
        outcome = _run(spec, place, attempt, report, stop)
        return outcome
    except (*TO_MEND, OSError, PeerError) as error:
        outcome, code = Outcome("interrupted", str(error)), getattr(error, "exit_code", None)
        raise
    finally:
        attempt.end(outcome.status, outcome.error, code)


def _run(spec: RunSpec, place: Place, attempt: Attempt, report: Report, stop: threading.Event) -> Outcome:
    try:
        return _Cell(spec, place, attempt, report, stop).run()
    except _InterruptedError:
        return Outcome("interrupted")
    except _SupersededError:
        return Outcome("superseded", "another worker took the cell over")
    except TO_MEND:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise
        return _failed(attempt, error, place.group)


def _failed(attempt: Attempt, error: Exception, group: Group) -> Outcome:
    write_atomic(attempt.folder / "traceback.txt", traceback.format_exc().encode())
    cause = group.cause(error)
    if isinstance(cause, PeerError):
        if cause.exit_code is not None:
            raise cause
        return Outcome("failed", str(cause))
    first_line = (str(error).strip().splitlines() or [""])[0]
    return Outcome("failed", f"{type(error).__name__}: {first_line}")


class _Cell:
    """The attempt's live state: the training, its metrics so far, and when to save next."""

    def __init__(self, spec: RunSpec, place: Place, attempt: Attempt, report: Report, stop: threading.Event) -> None:
        self.spec, self.place, self.attempt = spec, place, attempt
        self.report, self.stop = report, stop
        self.folder = attempt.folder
        self.group = place.group
        self.environment = surroundings(spec, place.data_dir, place.device, place.group)
        write_json(attempt.cell / "spec.json", spec.to_dict())
        self.metrics = b""
        state = self._earlier()
        write_json(self.folder / "environment.json", self.environment)
        write_json(attempt.cell / "environment.json", self.environment)
        (self.folder / "metrics.jsonl").write_bytes(self.metrics)
        self.group.idle = False
        self.group.send(spec.to_dict())
        with self.group.boundary(TO_MEND):
            self.training = begin(spec, place.data_dir, place.device, self.group)
        self.group.send(state)
        if state is not None:
            self.training.load_state_dict(state)
            self.report({"resumed": self.training.steps_done})
        self.next_save = time.monotonic() + place.seconds_to_next_checkpoint(0)

    def _earlier(self) -> dict[str, Any] | None:
        """The state to go on from, its metrics and environment noted. Raises DriftError."""
        earlier = [folder_of(self.attempt.cell, number) for number in numbers(self.attempt.cell)]
        found = checkpoint.latest(earlier, run_id=self.spec.run_id, warn=lambda text: self.report({"warning": text}))
        if found is None:
            return None
        changes = environment.drift(found.manifest["environment"], self.environment)
        if changes and not self.place.accept_drift:
            raise DriftError(
                f"cell {self.spec.run_id} was begun elsewhere ({'; '.join(changes)}): "
                "run it there, or give --accept-drift to go on without equal bits"
            )
        self.environment["drift"] = sorted({*found.manifest["environment"].get("drift", []), *changes})
        self.metrics = found.metrics
        self.environment["resumed_at_step"] = found.manifest["steps"]
        return found.state

    def run(self) -> Outcome:
        training = self.training
        try:
            while training.epoch < training.epochs:
                train_epoch(training, self._at_step)
                check_same(training, self.group)
                with self.group.boundary():
                    self._record()
        except _DivergedError:
            return self._publish("diverged", f"the loss or a weight is not finite after epoch {training.epoch}")
        self.group.idle = True
        self._save()
        return self._publish("done")

    def _record(self) -> None:
        summary = record.epoch_record(self.training)
        lines = [*record.step_records(self.training), summary]
        content = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()
        with (self.folder / "metrics.jsonl").open("ab") as file:
            file.write(content)
        self.metrics += content
        self.report({"epochs": self.training.epochs, **summary})
        if "diverged" in summary:
            raise _DivergedError

    def _at_step(self) -> None:
        with self.group.boundary():
            self._look_around()

    def _look_around(self) -> None:
        if self.attempt.superseded.is_set():
            raise _SupersededError
        if self.stop.is_set():
            self._save()
            raise _InterruptedError
        if time.monotonic() >= self.next_save:
            self._save()

    def _save(self) -> None:
        started = time.monotonic()
        with (self.folder / "metrics.jsonl").open("rb") as file:
            os.fsync(file.fileno())
        checkpoint.save(
            self.folder,
            self.training.state_dict(),
            steps=self.training.steps_done,
            metrics=self.metrics,
            run_id=self.spec.run_id,
            environment=self.environment,
        )
        if not self.attempt.newest():
            raise _SupersededError
        earlier = [number for number in numbers(self.attempt.cell) if number < self.attempt.number]
        checkpoint.remove_earlier([folder_of(self.attempt.cell, number) for number in earlier], self.folder)
        now = time.monotonic()
        self.next_save = now + self.place.seconds_to_next_checkpoint(now - started)

    def _publish(self, status: Literal["done", "diverged"], error: str = "") -> Outcome:
        if not self.attempt.newest():
            raise _SupersededError
        training, records = self.training, [json.loads(line) for line in self.metrics.splitlines()]
        measured = record.result(training, records) if status == "done" else {"epochs": training.epoch}
        result = {
            "schema": SCHEMA_VERSION,
            "run_id": self.spec.run_id,
            "status": status,
            "error": error,
            "attempt": self.attempt.number,
            "measured": measured,
            "layers": record.layers(training),
            "environment": self.environment,
            "metrics_sha256": hashlib.sha256(self.metrics).hexdigest(),
            "state_sha256": digest(training.model, training.optimizer.state_dict(), training.attached.state_dict()),
        }
        write_json(self.folder / "result.json", sealed(result))
        return publish(self.attempt.cell, self.folder, self.metrics)
