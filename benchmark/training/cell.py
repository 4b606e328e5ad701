"""One cell from its spec to its result.json: claim, resume, train, measure, publish."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from benchmark.data import DataError
from benchmark.run_folder import checkpoint, storage
from benchmark.run_folder.attempts import (
    Attempt,
    Observer,
    check_own_folder,
    claim,
    damage,
    failed_before,
    folder_of,
    numbers,
    strays,
)
from benchmark.run_folder.files import append, sealed, write_atomic, write_json
from benchmark.run_folder.links import FolderError
from benchmark.run_folder.result import examine_result
from benchmark.run_folder.storage import StorageError
from benchmark.spec import SCHEMA_VERSION, RunSpec, SpecError
from benchmark.training import blame, environment, records
from benchmark.training.engine import Engine
from benchmark.training.execution import Execution
from benchmark.training.loop import UnfitError, digest, train_epoch
from benchmark.training.prepare import check_same, environment_of, prepare_training
from benchmark.training.process_group import Group, PeerError
from benchmark.training.publish import Outcome, publish

Report = Callable[[dict[str, Any]], None]


class DriftError(Exception):
    """The environment is not the one that a cell's checkpoint was written in."""

    exit_code = 2


USER_ERRORS = (DataError, SpecError, DriftError, FolderError)


class _InterruptedError(Exception):
    pass


class _SupersededError(Exception):
    pass


class _DivergedError(Exception):
    pass


def execute(
    spec: RunSpec,
    execution: Execution,
    *,
    observer: Observer,
    report: Report,
    stop: threading.Event,
    group: Group | None = None,
) -> Outcome:
    """Train one cell, or continue with it; done cells and other workers' cells are not touched.

    report receives each epoch's record and each warning. stop asks for the state to be saved at the
    next step. group: the processes that train the cell together, this one their leader. Raises
    DataError, SpecError, DriftError, FolderError and StorageError, which the user has to fix; the
    cell stays pending.
    """
    cell = execution.cell(spec.run_id)
    with storage.named(execution.out):
        check_own_folder(cell)
        finished, problem = examine_result(cell / "result.json", spec.run_id)
        if finished is not None:
            return Outcome(finished["status"], finished["error"])
        if not execution.retry_failed and (failure := failed_before(cell)) is not None:
            return Outcome("failed", failure)
        attempt = claim(cell, observer)
        if attempt is None:
            return Outcome("busy")
        _report_problems(cell, problem, report)
        return _run_attempt(spec, execution, group or Group(), attempt, report, stop)


def _report_problems(cell: Path, problem: str, report: Report) -> None:
    """Say which files of a cell that is begun or continued are damaged, another cell's or not ours."""
    earlier = [damage(folder_of(cell, number)) for number in numbers(cell)]
    for text in [f"{problem}: the cell is run again" if problem else "", *earlier, *strays(cell)]:
        if text:
            report({"warning": text})


def _run_attempt(
    spec: RunSpec, execution: Execution, group: Group, attempt: Attempt, report: Report, stop: threading.Event
) -> Outcome:
    """Train, and write down how the attempt ended."""
    outcome, code = Outcome("interrupted", "the worker stopped"), None
    try:
        with storage.named(execution.out):
            outcome = _train(spec, execution, group, attempt, report, stop)
        return outcome
    except (*USER_ERRORS, StorageError, PeerError) as error:
        outcome, code = Outcome("interrupted", str(error)), error.exit_code
        raise
    finally:
        attempt.end(outcome.status, outcome.error, code)


def _train(
    spec: RunSpec, execution: Execution, group: Group, attempt: Attempt, report: Report, stop: threading.Event
) -> Outcome:
    try:
        return _Cell(spec, execution, group, attempt, report, stop).train()
    except _InterruptedError:
        return Outcome("interrupted")
    except _SupersededError:
        return Outcome("superseded", "another worker took the cell over")
    except UnfitError as error:
        return _failed(attempt, error, group, spec)
    except USER_ERRORS:
        raise
    except Exception as error:
        if storage.trouble(error, execution.out) is not None:
            raise
        return _failed(attempt, error, group, spec)


def _failed(attempt: Attempt, error: Exception, group: Group, spec: RunSpec) -> Outcome:
    write_atomic(attempt.folder / "traceback.txt", traceback.format_exc().encode(errors="backslashreplace"))
    cause = group.cause(error)
    if isinstance(cause, PeerError):
        if cause.exit_code is not None:
            raise cause
        return Outcome("failed", str(cause))
    return Outcome("failed", str(error) if isinstance(error, UnfitError) else blame.described(error, spec))


class _Cell:
    """The attempt's live state: the training, its metrics so far, and when to save next."""

    def __init__(
        self,
        spec: RunSpec,
        execution: Execution,
        group: Group,
        attempt: Attempt,
        report: Report,
        stop: threading.Event,
    ) -> None:
        self.spec, self.execution, self.group, self.attempt = spec, execution, group, attempt
        self.report, self.stop = report, stop
        self.folder = attempt.folder
        engine = Engine(spec, execution.device, execution.masked_layers)
        self.environment = environment_of(spec, execution, group, engine)
        write_json(attempt.cell / "spec.json", spec.to_dict())
        self.metrics = b""
        state = self._earlier_state()
        write_json(self.folder / "environment.json", self.environment)
        write_json(attempt.cell / "environment.json", self.environment)
        (self.folder / "metrics.jsonl").write_bytes(self.metrics)
        group.idle = False
        group.send(spec.to_dict())
        with group.boundary(USER_ERRORS):
            self.training = prepare_training(spec, execution, group, engine)
        group.send(state)
        if state is not None:
            self.training.load_state_dict(state)
            self.report({"resumed": self.training.steps_done})
        self.next_save = time.monotonic() + execution.seconds_to_next_checkpoint(0)

    def _earlier_state(self) -> dict[str, Any] | None:
        """The state to continue from; takes over its metrics and its drift. Raises DriftError."""
        earlier = [folder_of(self.attempt.cell, number) for number in numbers(self.attempt.cell)]
        found = checkpoint.latest(earlier, run_id=self.spec.run_id, warn=lambda text: self.report({"warning": text}))
        if found is None:
            return None
        changes = environment.drift(found.manifest["environment"], self.environment)
        if changes and not self.execution.accept_drift:
            raise DriftError(
                f"cell {self.spec.run_id} was begun elsewhere ({'; '.join(changes)}): "
                "run it there, or give --accept-drift to go on without equal bits"
            )
        self.environment["drift"] = sorted({*found.manifest["environment"].get("drift", []), *changes})
        self.metrics = found.metrics
        self.environment["resumed_at_step"] = found.manifest["steps"]
        return found.state

    def train(self) -> Outcome:
        training = self.training
        try:
            while training.epoch < training.epochs:
                train_epoch(training, self._after_step)
                check_same(training, self.group)
                with self.group.boundary():
                    self._record()
        except _DivergedError:
            where = f"epoch {training.epoch} of {self.spec.method['name']}: {records.not_finite(training)}"
            return self._publish("diverged", f"the loss or a weight is not finite after {where}")
        self.group.idle = True
        self._save()
        return self._publish("done")

    def _record(self) -> None:
        summary = records.epoch_record(self.training)
        lines = [*records.step_records(self.training), summary]
        content = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()
        append(self.folder / "metrics.jsonl", content)
        self.metrics += content
        self.report({"epochs": self.training.epochs, **summary})
        if "diverged" in summary:
            raise _DivergedError

    def _after_step(self) -> None:
        with self.group.boundary():
            self._stop_or_save()

    def _stop_or_save(self) -> None:
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
        self.next_save = now + self.execution.seconds_to_next_checkpoint(now - started)

    def _publish(self, status: Literal["done", "diverged"], error: str = "") -> Outcome:
        if not self.attempt.newest():
            raise _SupersededError
        training, epochs = self.training, [json.loads(line) for line in self.metrics.splitlines()]
        measured = records.result(training, epochs) if status == "done" else {"epochs": training.epoch}
        result = {
            "schema": SCHEMA_VERSION,
            "run_id": self.spec.run_id,
            "status": status,
            "error": error,
            "attempt": self.attempt.number,
            "measured": measured,
            "layers": records.layers(training),
            "environment": self.environment,
            "metrics_sha256": hashlib.sha256(self.metrics).hexdigest(),
            "state_sha256": digest(training.model, training.optimizer.state_dict(), training.attached.state_dict()),
        }
        write_json(self.folder / "result.json", sealed(result))
        return publish(self.attempt.cell, self.folder, self.metrics)
