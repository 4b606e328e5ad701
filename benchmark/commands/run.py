"""`run`: train what is left of the selected cells, and write the tables."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from benchmark import results
from benchmark.commands import data_sets, plug_in_changes, suite_changes
from benchmark.commands.estimate import Estimate
from benchmark.commands.labels import labels
from benchmark.commands.output import console, emit, say, show, summary_table
from benchmark.commands.plan import plan as print_plan
from benchmark.commands.progress import Progress
from benchmark.commands.selection import Selection, resolve_device, unended
from benchmark.launch import choice as launch
from benchmark.launch import patience
from benchmark.launch.base import Launcher
from benchmark.launch.slurm import jobs
from benchmark.launch.slurm.queue import SlurmError
from benchmark.messages import printable
from benchmark.results import Member, Row
from benchmark.run_folder import storage
from benchmark.run_folder.storage import StorageError
from benchmark.spec import RunSpec, check_names
from benchmark.suites import Suite
from benchmark.tracking.background import Mirror
from benchmark.training import checkout
from benchmark.training.execution import Execution

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
EXIT_OF_SIGNAL = {number: 128 + number for number in STOP_SIGNALS}


def run(selection: Selection, execution: Execution, choice: launch.Choice, *, mlflow: bool, json_output: bool) -> int:
    """Run what is left of the selected cells and write the tables; the exit code."""
    screen, out = console(json_output=json_output), execution.out
    suite = selection.expand()
    results.prepare(out)
    results.members(out)  # a damaged list ends the command before anything is trained
    suite_changes.check(out, suite, accept=execution.accept_drift)
    selected = selection.cells(suite, out)
    cells = selection.unpublished(selected)
    todo = unended(cells, retry_failed=execution.retry_failed)
    if todo:
        execution = for_workers(execution, choice, suite.plugin)
    data_sets.check({spec.data.name for spec in todo}, execution.data_dir)
    launch.prepare(choice, execution, todo)
    specs = [spec for spec, _ in cells]
    results.remember(out, suite.name, suite.exhibits, specs)
    skipped = selection.skipped_text(len(selected) - len(cells))
    _announce(suite, len(cells), len(cells) - len(todo), skipped, screen)
    left = set(todo)
    for text in plug_in_changes.warnings((spec for spec in specs if spec not in left), out):
        say(screen, f"warning: {text}")
    code, refused = 0, dict[str, int]()
    mirror = Mirror(out, wanted=mlflow, warn=lambda text: say(screen, f"warning: {text}"))
    if todo:
        with mirror:
            code, refused = dispatch(cells, todo, execution, choice, screen, names=labels(suite.specs))
        if choice.detach:
            return _detached(out, json_output, screen)
        results.remember(out, suite.name, suite.exhibits, specs)  # another run may have replaced it
    rows, code = write_tables(out, code, refused)
    mirror.finish()
    if lost := results.unlisted(out, {row["run_id"] for row in rows}):
        say(screen, f"warning: {lost}")
    ended = _of(specs, rows, out, suite.name)
    _print(ended, out, screen, stopped=code in EXIT_OF_SIGNAL.values())
    mine = [row for _, row in ended]
    code = code or exit_code(mine, refused.values())
    if json_output:
        emit({"suite": suite.name, "out": str(out), "exit_code": code, "cells": mine})
    return code


def _announce(suite: Suite, cells: int, before: int, skipped: str, screen: Console) -> None:
    """Say how many cells are left to run, and warn where their commit cannot be recorded."""
    say(
        screen,
        f"suite {suite.name}: {cells} {'cell' if cells == 1 else 'cells'}, {before} of them ended before{skipped}",
    )
    if problem := checkout.problem():
        say(screen, f"warning: {problem}")


def _print(cells: Sequence[tuple[RunSpec, Row]], out: Path, screen: Console, *, stopped: bool) -> None:
    show(screen, summary_table(cells))
    say(screen, f"results: {out / 'results.csv'} (and traces.csv, layers.csv)")
    if failed := [spec.run_id for spec, row in cells if row["status"] == "failed"]:
        traces = sorted((out / "cells" / failed[0] / "attempts").glob("*/traceback.txt"))
        where = f"the traceback of the first: {traces[-1]}; " if traces else ""
        say(screen, f"{len(failed)} failed; {where}after mending the cause, --retry-failed trains them again")
    if stopped:
        say(screen, "stopped; the same command goes on from here")


def _of(specs: Iterable[RunSpec], rows: Iterable[Row], out: Path, suite: str) -> list[tuple[RunSpec, Row]]:
    """The cells with their rows, from the cells' files where another process took them off the suite's list."""
    found = {row["run_id"]: row for row in rows}
    return [(spec, found.get(spec.run_id) or results.row(out, Member(spec, (suite,)))) for spec in specs]


def _detached(out: Path, json_output: bool, screen: Console) -> int:
    """Say what continues without this process."""
    try:
        known = [job for job, state in jobs.settle(out) if not state.ended]
    except SlurmError:  # it took the jobs a moment ago
        known = jobs.unfinished(out)
    command = f"python -m benchmark status --out {shlex.quote(str(out))}"
    say(screen, f"SLURM has {len(known)} jobs; '{command}' shows how far they are")
    if json_output:
        emit({"out": str(out), "exit_code": 0, "jobs": [dataclasses.asdict(job) for job in known]})
    return 0


def for_workers(execution: Execution, choice: launch.Choice, plugin: Path | str | None) -> Execution:
    """The execution with its device resolved and the suite's file, or its installed module, as a plug-in.

    Raises SpecError for the device.
    """
    plugins = (plugin,) if plugin else ()
    return dataclasses.replace(execution, device=_device(execution.device, choice), plugins=plugins)


def _device(name: str, choice: launch.Choice) -> str:
    """The device: on SLURM the profile's GPUs decide what `auto` is; on Ray, the cluster's."""
    if not choice.elsewhere:
        return resolve_device(name)
    check_names([name], ("auto", "cpu", "cuda"), "device")
    if choice.name == "slurm" and name == "auto":
        return "cuda" if launch.profile_of(choice).gpus_per_task else "cpu"
    return name


def write_tables(out: Path, code: int, refused: Mapping[str, int]) -> tuple[list[Row], int]:
    """Report why cells were refused, and write the tables; (rows, exit code).

    A failure of the storage is reported unless a refused cell has reported one.
    """
    for text in refused:
        print(f"error: {printable(text)}", file=sys.stderr)
    try:
        return results.write_tables(out), code
    except OSError as error:
        if (problem := storage.trouble(error, out)) is None:
            raise
        if problem.exit_code not in refused.values():
            print(f"error: {printable(str(problem))}", file=sys.stderr)
        return results.rows(out), code or problem.exit_code


def exit_code(rows: Iterable[Row], refused: Iterable[int]) -> int:
    """3 or 2 if cells were refused, 1 if some failed, diverged or are left, else 0."""
    unfinished = any(row["status"] != "done" for row in rows)
    return max(refused, default=int(unfinished))


def dry_run(selection: Selection, execution: Execution, choice: launch.Choice, *, json_output: bool) -> None:
    """Print what would run, and for SLURM the script that would be submitted.

    Raises SpecError for a device and for workers that this machine does not have, and for a suite that
    was changed.
    """
    device, workers = "cpu", choice.workers
    if not choice.elsewhere:
        device = resolve_device(execution.device)
    if choice.name == "local":
        workers = launch.workers_here(choice, dataclasses.replace(execution, device=device))
    print_plan(
        selection,
        execution.out,
        workers=workers,
        device=device,
        json_output=json_output,
        retry_failed=execution.retry_failed,
        accept_drift=execution.accept_drift,
        script=sbatch_script(selection, execution, choice) if choice.name == "slurm" else None,
    )


def sbatch_script(selection: Selection, execution: Execution, choice: launch.Choice) -> str:
    """The script that `run --launcher slurm` would submit for what is left of the cells."""
    from benchmark.launch.slurm import launcher

    suite = selection.expand()
    cells = selection.unpublished(selection.cells(suite, execution.out))
    todo = unended(cells, retry_failed=execution.retry_failed)
    execution = for_workers(execution, choice, suite.plugin)
    return launcher.script(execution, launch.profile_of(choice), workers=choice.workers, cells=len(todo))


def dispatch(
    cells: Sequence[tuple[RunSpec, Row]],
    todo: Sequence[RunSpec],
    execution: Execution,
    choice: launch.Choice,
    screen: Console,
    *,
    names: Mapping[str, str],
) -> tuple[int, dict[str, int]]:
    """Run the cells that are left. Returns a signal's exit code or 0, and reasons for refusals by code.

    names: the labels of cells, by run id.
    """
    estimate = Estimate()
    estimate.learn_rows(cells)
    launcher = launch.create(choice, execution, cells=len(todo))
    launcher.submit(todo)
    refused: dict[str, int] = {}
    tried = patience.Patience()
    specs = {spec.run_id: spec for spec in todo}
    with (
        Signals(launcher, screen) as signals,
        Progress(specs, names, workers=launcher.workers, estimate=estimate, console=screen) as progress,
    ):
        tables = Tables(execution.out)
        for event in launcher.events():
            progress.note(event)
            if event.kind == "end":
                tables.refresh()
            over = tried.is_over(event)
            if "code" in event.payload:
                _refuse(refused, event.payload["error"] + (patience.STOPPED if over else ""), event.payload["code"])
            if over:
                launcher.stop()
    return signals.code, refused


def _refuse(refused: dict[str, int], reason: str, code: int) -> None:
    """Keep why a cell was refused; of the storage's failures only the last."""
    for text in [text for text, known in refused.items() if known == code == StorageError.exit_code]:
        del refused[text]
    refused[reason] = code


class Tables:
    """Writes results.csv while a grid runs, after a cell's end, in at most 2 % of the time."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._next = 0.0
        self.refresh()

    def refresh(self) -> None:
        started = time.monotonic()
        if started >= self._next:
            with contextlib.suppress(OSError, results.FolderError):  # the cells, or the last tables, report it
                results.write_csv(self._out / "results.csv", results.COLUMNS, results.rows(self._out))
            now = time.monotonic()
            self._next = now + max(5.0, 50 * (now - started))


class Signals:
    """SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 let cells save their state; a later SIGINT ends all.

    No other signal does: a scheduler that takes a job's machine away sends several, and means the
    first.
    """

    def __init__(self, launcher: Launcher, screen: Console) -> None:
        self._launcher, self._screen = launcher, screen
        self.code = 0

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._handle) for number in EXIT_OF_SIGNAL}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.code and number != signal.SIGINT:
            return
        if self.code:
            self._launcher.kill()
            raise SystemExit(EXIT_OF_SIGNAL[signal.Signals(number)])
        self.code = EXIT_OF_SIGNAL[signal.Signals(number)]
        self._launcher.stop()
        say(self._screen, self._launcher.stop_message)
