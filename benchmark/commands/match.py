"""`match`: find the value of a method's hyperparameter at which its cells keep a chosen density."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmark import results
from benchmark.commands import data_sets, match_suite, published
from benchmark.commands.labels import labels
from benchmark.commands.match_setting import Setting, Trial, finished, setting_of
from benchmark.commands.options import DATA
from benchmark.commands.output import console, emit, say, show
from benchmark.commands.run import EXIT_OF_SIGNAL, dispatch, for_workers, write_tables
from benchmark.commands.selection import FINAL, parse_seeds, unended
from benchmark.launch import choice as launch
from benchmark.launch import process_ranks
from benchmark.messages import printable
from benchmark.results import Member, Row
from benchmark.spec import RunSpec, SpecError
from benchmark.tracking.background import Mirror
from benchmark.training.execution import Execution
from methods.density_search import DensityMatch, match_density

LIST = "match"  # DIR/suites/match.json lists the cells of every search in a run folder
NOT_FOUND = 1


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to find. probes: how many values to train at most. to: the path of the suite file."""

    suite: str
    model: str
    method: str
    density: float
    tolerance: float
    seeds: str
    probes: int
    where: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    done_in: tuple[Path, ...] = ()
    baselines: tuple[str, ...] = ()
    to: Path | None = None

    def __post_init__(self) -> None:
        for name in ("density", "tolerance"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise SpecError(f"--{name} is {value:g}: it must lie between 0 and 1, such as 0.05 for 5 %")

    def file(self, out: Path) -> Path:
        """Where the suite of the found cells is written."""
        return self.to or out / f"match-{self.model}-{self.method}-{self.density:g}.py"


@dataclass(eq=False)
class _StoppedError(Exception):
    """The cells of a value did not all end.

    code: the exit code of a signal, or 0. refused: why cells were refused, each with its exit code.
    reason: what to print.
    """

    code: int
    refused: Mapping[str, int]
    reason: str


def match(request: Request, execution: Execution, choice: launch.Choice, *, mlflow: bool, json_output: bool) -> int:
    """Search, write the suite file, and print what was found and what it cost; the exit code."""
    screen, out = console(json_output=json_output), execution.out
    if process_ranks.find("auto") is not None:
        raise SpecError("match decides as it goes which cells to train: start it without torchrun")
    setting = setting_of(
        request.suite, model=request.model, method=request.method, where=request.where, changes=request.changes, out=out
    )
    match_suite.check(request.file(out), setting, seeds=parse_seeds(request.seeds), baselines=request.baselines)
    results.prepare(out)
    search = Search(request, setting, execution, choice, screen)
    found, stop = None, None
    try:
        with Mirror(out, wanted=mlflow, warn=lambda text: say(screen, f"warning: {text}")) as mirror:
            found = search.run()
    except _StoppedError as error:
        stop = error
    code = _code(search, found, stop)
    if search.trained:
        mirror.finish()
    refused = "" if found is None or found.value is None else _write_suite(search, found.value)
    code = code or (2 if refused else 0)
    _print(search, found, stop, stopped=code in EXIT_OF_SIGNAL.values(), written=not refused)
    if refused:
        print(f"error: {printable(refused)}", file=sys.stderr)
    if json_output:
        changed = {"reason": refused, "suite": None} if refused else {}
        emit({**_document(search, found, stop), **changed, "exit_code": code})
    return code


def _code(search: Search, found: DensityMatch | None, stop: _StoppedError | None) -> int:
    """Write the tables, if cells were trained; the exit code."""
    code = 0
    if search.trained or stop is not None:
        code = write_tables(search.out, stop.code if stop else 0, stop.refused if stop else {})[1]
    if stop is not None:
        return code or max(stop.refused.values(), default=NOT_FOUND)
    return code or (0 if found is not None and found.value is not None else NOT_FOUND)


class Search:
    """The search of one command: which cells are finished, which ones it trains, and their cost."""

    def __init__(
        self, request: Request, setting: Setting, execution: Execution, choice: launch.Choice, screen: Console
    ) -> None:
        self.request, self.setting, self.screen = request, setting, screen
        self.seeds = parse_seeds(request.seeds)
        self.out, self.data_dir = execution.out, execution.data_dir
        self.trained: list[RunSpec] = []
        self._execution, self._choice = execution, choice
        self._published = published.done(request.done_in)
        self._read()

    def run(self) -> DensityMatch:
        """Try values until one keeps the density. Raises _StoppedError where cells do not end."""
        knob, request = self.setting.knob, self.request
        return match_density(
            self._density_of,
            density=request.density,
            low=knob.low,
            high=knob.high,
            rising=knob.rising,
            start=self.setting.start,
            tolerance=request.tolerance,
            probes=request.probes,
            known={value: trial.density for value, trial in self.complete.items()},
        )

    @property
    def complete(self) -> dict[float, Trial]:
        """The values whose cells of all wanted seeds are finished, in ascending order."""
        wanted = {
            value: Trial(value, {seed: trial.cells[seed] for seed in self.seeds})
            for value, trial in sorted(self._trials.items())
            if all(seed in trial.cells for seed in self.seeds)
        }
        return {value: trial for value, trial in wanted.items() if value > 0}

    def _read(self) -> None:
        """Look again at which cells are finished."""
        cells = results.cells(self._execution.out)
        self._trials = finished(self.setting, cells, self._published.rows.values())

    def _density_of(self, value: float) -> float | None:
        """Train the unfinished cells of a value; the mean density, None where there is none."""
        already = self._trials[value].cells if value in self._trials else {}
        specs = [self.setting.cell(value, seed) for seed in self.seeds if seed not in already]
        say(self.screen, f"{self.setting.knob.name} {value:g}: {len(specs)} cells to train")
        self._train(specs)
        self._read()
        return self.complete[value].density

    def _train(self, specs: Sequence[RunSpec]) -> None:
        """Train cells until they have ended. Raises _StoppedError if some have not."""
        cells = self._cells(specs)
        todo = unended(cells, retry_failed=self._execution.retry_failed)
        if todo:
            execution = for_workers(self._execution, self._choice, self.setting.plugin)
            data_sets.check({self.setting.base.data.name}, execution.data_dir)
            launch.prepare(self._choice, execution, todo)
            results.remember(self.out, LIST, (), specs)
            self.trained += todo
            names = labels(specs, always=[f"method.{self.setting.knob.name}"])
            code, refused = dispatch(cells, todo, execution, self._choice, self.screen, names=names)
            results.remember(self.out, LIST, (), specs)  # another command may have replaced it
            if code or refused:
                raise _StoppedError(code, refused, "; ".join(refused) or "stopped")
        lost = [(spec, row) for spec, row in self._cells(specs) if row["status"] not in FINAL]
        if lost:
            spec, row = lost[0]
            raise _StoppedError(
                0, {}, f"{len(lost)} cells did not end, the first: {spec.label}: {row['status']} {row['error']}"
            )

    def _cells(self, specs: Sequence[RunSpec]) -> list[tuple[RunSpec, Row]]:
        return [(spec, results.row(self.out, Member(spec, (LIST,)))) for spec in specs]

    def cost(self) -> tuple[int, float]:
        """How many cells this command finished, and their CPU seconds."""
        rows = [row for _, row in self._cells(self.trained) if row["status"] in FINAL]
        return len(rows), sum(row["train_cpu_seconds"] or 0.0 for row in rows)


def _write_suite(search: Search, value: float) -> str:
    """Write the suite file; why it was not written, or an empty text. What was found is printed in any case."""
    setting, request = search.setting, search.request
    base = setting.base
    title = (
        f"{request.method} on {base.model.name} and {base.data.name}, density {request.density:g}: "
        f"{setting.knob.name} {value:g}"
    )
    cells = search.complete[value].cells
    try:
        match_suite.write(request.file(search.out), setting, cells, title=title, baselines=request.baselines)
    except SpecError as error:
        return str(error)
    return ""


def _print(
    search: Search, found: DensityMatch | None, stop: _StoppedError | None, *, stopped: bool, written: bool
) -> None:
    """Print every value with its density, what was found or why nothing was, and the cost."""
    screen, request, knob = search.screen, search.request, search.setting.knob.name
    show(screen, _table(search))
    cells, seconds = search.cost()
    read = sum(len(trial.cells) for trial in search.complete.values()) - cells
    if found is not None and found.value is not None:
        say(screen, f"{knob} {found.value:g} keeps {_percent(found.density)}; wanted: {_wanted(request)}")
        if written:
            file = request.file(search.out)
            say(screen, f"suite file: {file}; train it with: {shlex.join(_command(search, file))}")
    elif found is not None:
        say(screen, f"no {knob} was found for {_wanted(request)}: {_why(search, found)}")
    elif stop is not None and not stop.refused:
        say(screen, f"{stop.reason}; the same command goes on from here" if stopped else stop.reason)
    say(screen, f"cost: {cells} cells trained, {seconds:.0f} CPU seconds; read: {read} finished cells")


def _table(search: Search) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in (search.setting.knob.name, "density %", *(f"seed {seed}" for seed in search.seeds)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    trained = {spec.run_id for spec in search.trained}
    for value, trial in search.complete.items():
        mine = sum(cell.spec.run_id in trained for cell in trial.cells.values())
        remarks = [f"{mine} cells trained now" if mine else "", trial.trouble]
        densities = [trial.density, *trial.densities.values()]
        table.add_row(f"{value:g}", *map(_number, densities), ", ".join(filter(None, remarks)))
    return table


def _number(density: float | None) -> str:
    return "-" if density is None else f"{100 * density:.2f}"


def _percent(density: float | None) -> str:
    return "no density" if density is None else f"{100 * density:.3g} %"


def _wanted(request: Request) -> str:
    low, high = (100 * request.density * (1 + sign * request.tolerance) for sign in (-1, 1))
    return f"{100 * request.density:g} % ({low:.3g} to {high:.3g} %), mean over seeds {request.seeds}"


def _why(search: Search, found: DensityMatch) -> str:
    """The reason, the values between which the density lies, and what is wrong with their cells."""
    if found.between is None:
        return found.reason
    ends = []
    for value in found.between:
        trial = search.complete[value]
        trouble = f" ({trial.trouble})" if trial.trouble else ""
        ends.append(f"{_percent(trial.density)} at {value:g}{trouble}")
    return f"{found.reason}: {' and '.join(ends)}"


def _command(search: Search, file: Path) -> list[str]:
    done_in = [part for path in search.request.done_in for part in ("--done-in", str(path))]
    data_dir = [] if search.data_dir == DATA else ["--data-dir", str(search.data_dir)]
    return ["python", "-m", "benchmark", "run", "--suite", str(file), "--out", str(search.out), *data_dir, *done_in]


def _document(search: Search, found: DensityMatch | None, stop: _StoppedError | None) -> dict[str, Any]:
    """What `--json` prints."""
    request, setting = search.request, search.setting
    cells, seconds = search.cost()
    trained = {spec.run_id for spec in search.trained}
    value = None if found is None else found.value
    reason = stop.reason if stop is not None else (found.reason if found is not None else "")
    return {
        "model": request.model,
        "method": request.method,
        "dataset": setting.base.data.name,
        "hyperparameter": setting.knob.name,
        "density_wanted": request.density,
        "tolerance": request.tolerance,
        "seeds": search.seeds,
        "value": value,
        "density": None if found is None else found.density,
        "reason": reason,
        "between": None if found is None else found.between,
        "values": [
            {
                "value": trial.value,
                "density": trial.density,
                "densities": list(trial.densities.values()),
                "run_ids": [cell.spec.run_id for cell in trial.cells.values()],
                "trained": sum(cell.spec.run_id in trained for cell in trial.cells.values()),
                "trouble": trial.trouble,
            }
            for trial in search.complete.values()
        ],
        "cells_trained": cells,
        "cpu_seconds": seconds,
        "suite": None if value is None else str(request.file(search.out)),
        "out": str(search.out),
    }
