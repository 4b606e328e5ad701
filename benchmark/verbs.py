"""What the verbs that run and plan do, behind the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from benchmark import data, launch, results, suite_changes, suites
from benchmark.estimate import Estimate, duration, epochs_of, probe
from benchmark.files import NO_SPACE, DiskFullError
from benchmark.launch import jobs
from benchmark.launch.base import Launcher, Work
from benchmark.launch.local import default_workers
from benchmark.mirror import Mirror
from benchmark.progress import Progress, console
from benchmark.results import Row
from benchmark.selection import Selection, resolve_device, unended
from benchmark.spec import RunSpec, check_names
from benchmark.views import emit, summary_table

DISK_FULL = 1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
EXIT_OF_SIGNAL = {number: 128 + number for number in STOP_SIGNALS}


@dataclass(frozen=True)
class Grid:
    """Where cells run."""

    out: Path
    data_dir: Path
    device: str
    launcher: launch.Choice
    retry_failed: bool
    accept_drift: bool
    mlflow: bool = True


def plan(
    selection: Selection,
    out: Path,
    workers: int | None,
    device: str,
    json_output: bool,
    *,
    retry_failed: bool = False,
    script: str | None = None,
) -> None:
    """Print how many cells there are, which are done, how long the rest takes; script: what would be submitted."""
    suite = selection.expand()
    results.check(out)
    cells = selection.cells(suite, out)
    todo = unended(cells, retry_failed=retry_failed)
    pool = workers or default_workers(resolve_device(device))
    estimate = Estimate()
    estimate.learn_rows(cells)
    measured = all(estimate.knows(spec) for spec in todo)
    probe(estimate, todo)
    seconds = estimate.seconds(epochs_of(todo), cells=len(todo), workers=pool)
    counts = {status: sum(row["status"] == status for _, row in cells) for status in results.STATUSES}
    counts = {status: count for status, count in counts.items() if count}
    document = {
        "suite": suite.name,
        "out": str(out),
        "cells": len(cells),
        "counts": counts,
        "done": [spec.run_id for spec, row in cells if row["status"] == "done"],
        "to_run": [{"run_id": spec.run_id, "label": spec.label, "departs": list(spec.departs)} for spec in todo],
        "estimated_seconds": seconds,
        "estimate_from": "measured cells" if measured else "a probe of a few steps on the CPU",
        "workers": pool,
        **({} if script is None else {"script": script}),
    }
    if json_output:
        emit(document)
        return
    screen = console(json_output=False)
    screen.print(
        f"suite {suite.name}: {len(cells)} cells in {out}; " + ", ".join(f"{n} {s}" for s, n in counts.items()),
        markup=False,
        soft_wrap=True,
    )
    for spec in todo:
        screen.print(f"  {spec.run_id} {spec.label}", highlight=False, markup=False)
    where = "" if script is None else " of this machine"
    screen.print(f"about {duration(seconds)} of training on {pool} workers{where}, from {document['estimate_from']}")
    if script is not None:
        screen.print(f"\n{script}", highlight=False, markup=False, soft_wrap=True)


def run(selection: Selection, grid: Grid, json_output: bool) -> int:
    """Run what is left of the selected cells; write the tables; return the exit code."""
    screen = console(json_output=json_output)
    suite = selection.expand()
    results.prepare(grid.out)
    suite_changes.check(grid.out, suite, accept=grid.accept_drift)
    cells = selection.cells(suite, grid.out)
    todo = unended(cells, retry_failed=grid.retry_failed)
    device = grid_device(grid) if todo else "cpu"
    for name in {spec.data.name for spec in todo}:
        data.verify(name, grid.data_dir)
    launch.prepare(grid.launcher, todo)
    chosen = [spec for spec, _ in cells]
    results.remember(grid.out, suite.name, suite.exhibits, chosen)
    ended = len(cells) - len(todo)
    screen.print(f"suite {suite.name}: {len(cells)} cells, {ended} of them ended before", highlight=False)
    code = 0
    refused: dict[str, int] = {}
    mirror = Mirror(grid.out, wanted=grid.mlflow, warn=functools.partial(_warn, screen))
    if todo:
        estimate = Estimate()
        estimate.learn_rows(cells)
        with mirror:
            code, refused = _dispatch(todo, grid, device, suite, estimate, screen)
        if grid.launcher.detach:
            return _detached(grid.out, json_output, screen)
        results.remember(grid.out, suite.name, suite.exhibits, chosen)  # another run may have written its own over it
    for text in refused:
        print(f"error: {text}", file=sys.stderr)
    rows, code = _tables(grid.out, code, told=bool(refused))
    mirror.finish()
    wanted = {spec.run_id for spec in chosen}
    mine = [row for row in rows if row["run_id"] in wanted]
    screen.print(summary_table(mine))
    tables = f"results: {grid.out / 'results.csv'} (and traces.csv, layers.csv)"
    screen.print(tables, soft_wrap=True, highlight=False, markup=False)
    if code in EXIT_OF_SIGNAL.values():
        screen.print("stopped; the same command goes on from here")
    code = code or exit_code(mine, refused.values())
    if json_output:
        emit({"suite": suite.name, "out": str(grid.out), "exit_code": code, "cells": mine})
    return code


def _detached(out: Path, json_output: bool, screen: Console) -> int:
    """What to say of a grid that goes on without this process."""
    known = jobs.read(out)
    screen.print(f"{len(known)} jobs are SLURM's; 'python -m benchmark status --out {out}' tells how far they are")
    if json_output:
        emit({"out": str(out), "exit_code": 0, "jobs": [dataclasses.asdict(job) for job in known]})
    return 0


def grid_device(grid: Grid) -> str:
    """Where cells compute. On SLURM the profile's GPUs decide what auto is, on a Ray cluster its own.

    Raises SpecError for a device that is not there.
    """
    if not grid.launcher.elsewhere:
        return resolve_device(grid.device)
    check_names([grid.device], ("auto", "cpu", "cuda"), "device")
    if grid.launcher.name == "slurm" and grid.device == "auto":
        return "cuda" if launch.profile_of(grid.launcher).gpus_per_task else "cpu"
    return grid.device


def _warn(screen: Console, text: str) -> None:
    screen.print(f"warning: {text}", highlight=False, markup=False, soft_wrap=True)


def _tables(out: Path, code: int, *, told: bool) -> tuple[list[Row], int]:
    """Write the tables; (rows, exit code). Where the disk is full that is said, unless it was told before."""
    try:
        return results.write_tables(out), code
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        if not told:
            print(f"error: {DiskFullError(out)}", file=sys.stderr)
        return results.rows(out), code or DISK_FULL


def exit_code(rows: Iterable[Row], refused: Iterable[int]) -> int:
    """3 or 2 where cells were refused, 1 where some failed, diverged or are left, else 0."""
    unfinished = any(row["status"] != "done" for row in rows)
    return max(refused, default=int(unfinished))


def work_of(grid: Grid, device: str, suite: suites.Suite) -> Work:
    """What every worker has to know of the grid."""
    return Work(
        out=grid.out,
        data_dir=grid.data_dir,
        device=device,
        plugins=(suite.plugin,) if suite.plugin else (),
        accept_drift=grid.accept_drift,
        retry_failed=grid.retry_failed,
        processes_per_cell=grid.launcher.processes,
        ranks_started=grid.launcher.ranks is not None,
    )


def sbatch_script(selection: Selection, grid: Grid) -> str:
    """The script that `run --launcher slurm` would submit for what is left of the cells."""
    from benchmark.launch import slurm

    suite = selection.expand()
    todo = unended(selection.cells(suite, grid.out), retry_failed=grid.retry_failed)
    work = work_of(grid, grid_device(grid), suite)
    return slurm.script(work, launch.profile_of(grid.launcher), workers=grid.launcher.workers, cells=len(todo))


def _dispatch(
    todo: Sequence[RunSpec], grid: Grid, device: str, suite: suites.Suite, estimate: Estimate, screen: Console
) -> tuple[int, dict[str, int]]:
    """Run the cells; (exit code of a signal or 0, why cells were refused with the exit code of each reason)."""
    launcher = launch.create(grid.launcher, work_of(grid, device, suite), cells=len(todo))
    launcher.submit(todo)
    refused: dict[str, int] = {}
    with (
        Signals(launcher, screen) as signals,
        Progress(
            {spec.run_id: spec for spec in todo}, workers=launcher.workers, estimate=estimate, console=screen
        ) as progress,
    ):
        tables = Tables(grid.out)
        for event in launcher.events():
            progress.note(event)
            if event.kind == "end":
                tables.refresh()
            if "code" in event.payload:
                refused[event.payload["error"]] = event.payload["code"]
            if event.payload.get("code") == DISK_FULL:
                launcher.stop()
    return signals.code, refused


class Tables:
    """results.csv while a grid runs: written anew after a cell's end, for at most a fiftieth of the time."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._next = 0.0
        self.refresh()

    def refresh(self) -> None:
        started = time.monotonic()
        if started >= self._next:
            with contextlib.suppress(OSError):  # a full disk is the cells' to report
                results.write_csv(self._out / "results.csv", results.COLUMNS, results.rows(self._out))
            now = time.monotonic()
            self._next = now + max(5.0, 50 * (now - started))


class Signals:
    """INT, TERM, USR1 and USR2 let cells save their state; an INT after another signal ends everything at once.

    No other signal does: a scheduler that takes a job's machine away sends several, and means the first.
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
        self._screen.print(self._launcher.stop_says, soft_wrap=True, highlight=False)
