"""Reads results tables that somebody sent, as text, with the problems in them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.commands import published
from benchmark.commands.check_files import Problem
from benchmark.commands.check_rows import Records, problems
from benchmark.commands.published import FINISHED, HEADER
from benchmark.commands.row_numbers import number
from benchmark.messages import shown
from benchmark.results import LAYERS, TRACES, Row
from benchmark.spec import SpecError

WHOLE = ("epoch", "step", "weights", "kept")
AGAIN = "export the tables again from their run folder"


@dataclass
class Table:
    """One results.csv, and traces.csv and layers.csv beside it.

    rows, lines: the row of each cell and its line in the file, by run id; if a cell has two rows,
    the first.
    """

    file: Path
    rows: dict[str, Row] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    layers: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    records: dict[str, Records] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, run_id: str, text: str) -> Problem:
        """A problem with the row of a cell."""
        return Problem(str(self.file), text, self.lines[run_id], run_id)

    @functools.cached_property
    def finished(self) -> dict[str, Row]:
        """The rows of cells that are done or diverged. To be asked for once the table has been read."""
        return {run_id: row for run_id, row in self.rows.items() if row["status"] in FINISHED}


def read(file: Path, *, beside: Sequence[Path]) -> Table:
    """The table of a results.csv. beside: the files that may be opened."""
    table = Table(file)
    try:
        rows = published.read(file)
    except SpecError as error:
        table.problems.append(Problem(str(file), f"{_without(file, error)}: {AGAIN}"))
        return table
    if not _ends_with_a_line(file):
        table.problems.append(Problem(str(file), f"the file is cut off at its end: {AGAIN}"))
    for path, columns in ((file.with_name("traces.csv"), TRACES), (file.with_name("layers.csv"), LAYERS)):
        if path in beside:
            table.problems += _read_into(table, path, columns)
    for line, row in enumerate(rows, HEADER):
        found = list(problems(row, table.layers.get(row["run_id"], {}), table.records.get(row["run_id"], Records())))
        if row["run_id"] in table.rows:
            found.append(f"the cell is in row {table.lines[row['run_id']]} too: keep one of the two")
        else:
            table.rows[row["run_id"]], table.lines[row["run_id"]] = row, line
        table.problems += [Problem(str(file), text, line, row["run_id"]) for text in found]
    broken = {problem.row for problem in table.problems}
    table.rows = {run_id: row for run_id, row in table.rows.items() if table.lines[run_id] not in broken}
    return table


def _read_into(table: Table, path: Path, columns: Sequence[str]) -> Iterator[Problem]:
    """Read traces.csv or layers.csv into the table. Yields a problem for the first wrong row."""
    add, line = _record if columns is TRACES else _layer, HEADER
    try:
        for row in published.rows(path, columns):
            add(table, row)
            line += 1
        if not _ends_with_a_line(path):
            yield Problem(str(path), f"the file is cut off at its end: {AGAIN}")
    except SpecError as error:
        yield Problem(str(path), f"{_without(path, error)}: {AGAIN}")
    except ValueError as error:
        yield Problem(str(path), f"{error}: {AGAIN}", line)


def _record(table: Table, row: Row) -> None:
    epoch, value = _amount(row, "epoch"), _amount(row, "value")
    step = _amount(row, "step") if row["step"] else None
    values = table.records.setdefault(_named(row, "run_id"), Records()).values
    if (key := (epoch, step, _named(row, "name"))) in values:
        raise ValueError("the record is in a row above too")
    values[key] = value


def _layer(table: Table, row: Row) -> None:
    weights, kept = _amount(row, "weights"), _amount(row, "kept")
    layers = table.layers.setdefault(_named(row, "run_id"), {})
    if (name := _named(row, "parameter")) in layers:
        raise ValueError("the layer is in a row above too")
    if not kept <= weights > 0:
        raise ValueError(f"kept is {kept:g} of {weights:g} weights")
    layers[name] = weights, kept


def _named(row: Row, column: str) -> str:
    if not (text := str(row[column])) or not text.isprintable():
        raise ValueError(f"{column} is {shown(text)}, no name")
    return text


def _amount(row: Row, column: str) -> float:
    try:
        value = number(row[column])
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None
    if math.isnan(value) or (column in WHOLE and (value < 0 or value % 1)):
        raise ValueError(f"{column} is {shown(row[column])}, no {'whole ' if column in WHOLE else ''}number")
    return value


def _ends_with_a_line(file: Path) -> bool:
    with file.open("rb") as opened:
        opened.seek(0, 2)
        opened.seek(-min(1, opened.tell()), 2)
        return opened.read() == b"\n"


def _without(file: Path, error: Exception) -> str:
    """The text of an error without the file at its beginning."""
    return str(error).removeprefix(f"{file}").lstrip(", ")
