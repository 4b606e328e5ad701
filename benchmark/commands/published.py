"""Results tables outside run folders: the cells they settle, and how rows join them."""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from benchmark import results
from benchmark.commands.row_numbers import HIGHEST, difference, number
from benchmark.results import BEST_FIRST, COLUMNS, LATER, LAYERS, MEASURED, REQUIRED, SEPARATOR, TRACES, Row, union
from benchmark.run_folder.files import locked, open_regular
from benchmark.spec import SpecError

HEADER = 2  # the header is row 1, so that the first row below it is row 2
RESULTS, PARQUET = "results.csv", "results.parquet"
FINISHED = ("done", "diverged")
LONGEST_LINE = 2**23
NEEDED = ("epochs", *results.NEEDED)  # a done row without these is not intact


@dataclass(frozen=True)
class Done:
    """rows: of the cells that tables have finished, by run id. ignored: a line for each other such row."""

    rows: Mapping[str, Row]
    ignored: tuple[str, ...]

    @property
    def run_ids(self) -> frozenset[str]:
        """The cells that tables have finished."""
        return frozenset(self.rows)


def done(paths: Iterable[Path]) -> Done:
    """The cells that have an intact row in the tables under these files and folders.

    A row is intact if its status is done or diverged, its spec is the one of its run id and of its columns, its
    numbers are finite and in their range, and it was trained in one environment. A row that departs
    because its suite was changed is intact. Every other row counts as not run. Raises SpecError for a
    path that does not exist or holds no results.csv, for a file that is no results table, and for two
    finished rows of one cell with different numbers.
    """
    found = [
        (file, line, row) for path in paths for file in _tables(path) for line, row in enumerate(read(file), HEADER)
    ]
    claimed = [(f"{file}, row {line}", row, _fault(row)) for file, line, row in found if row["status"] in FINISHED]
    _check_pairs([(place, row) for place, row, fault in claimed if not fault])
    return Done(
        {row["run_id"]: row for _, row, fault in claimed if not fault},
        tuple(f"{place}: {fault}" for place, _, fault in claimed if fault),
    )


def _check_pairs(found: Iterable[tuple[str, Row]]) -> None:
    """Raises SpecError for two finished rows of one cell with different numbers. found: each with its place."""
    first: dict[str, tuple[str, Row]] = {}
    for place, row in found:
        before, other = first.setdefault(row["run_id"], (place, row))
        if other is not row and (name := difference(row, other)):
            raise SpecError(
                f"{place}: cell {row['run_id']} has {name} {row[name]}, but {other[name]} in {before}: "
                "keep one of the two rows"
            )


def read(file: Path) -> list[Row]:
    """The rows of a results table, each value as text; empty where an earlier version has no column.

    Raises SpecError if the file is no results table.
    """
    return [{**dict.fromkeys(COLUMNS, ""), **row} for row in rows(file, COLUMNS, needed=REQUIRED)]


def merge(found: Sequence[Row], out: Path, to: Path) -> int:
    """Add rows of the run folder `out`, with their traces and layers, to the tables in folder `to`.

    A row gives way only to one of a better status (results.BEST_FIRST), and has the memberships of
    both. An equal finished row without traces or layers gets those of the run folder. All rows of
    other cells stay as they are: merging twice changes nothing; of two merges at once the second
    waits. Returns how many rows were added or changed. Raises SpecError, and writes nothing, if `to`
    has a finished row of the same cell with other measured numbers, a row whose spec is not the one
    of its run id, or files of these names that are no such tables, and if it is a run folder, whose
    next command would write its tables without the added rows.
    """
    if os.path.lexists(to / results.MARKER):
        raise SpecError(f"--to {to} is a run folder, which writes its own tables anew: choose another folder")
    to.mkdir(parents=True, exist_ok=True)
    with locked(to):
        return _merge(found, out, to)


def check(folder: Path) -> None:
    """Raises SpecError where a file has the name of one of our tables and is none."""
    for name, columns, needed in (
        (RESULTS, COLUMNS, REQUIRED),
        ("traces.csv", TRACES, None),
        ("layers.csv", LAYERS, None),
    ):
        if (folder / name).exists():
            next(rows(folder / name, columns, needed=needed), None)
    _check_parquet(folder / PARQUET)


def _merge(found: Sequence[Row], out: Path, to: Path) -> int:
    check(to)
    old = read(to / RESULTS) if (to / RESULTS).exists() else []
    _check_rows(old, to / RESULTS)
    known = {row["run_id"]: row for row in old}
    for row in found:
        _check_same(row, known.get(row["run_id"]), to)
    joined = {row["run_id"]: _joined(row, known.get(row["run_id"])) for row in found}
    new = {row["run_id"]: joined[row["run_id"]] for row in found if _is_better(row, known.get(row["run_id"]))}
    others = [joined.get(row["run_id"], row) for row in old if row["run_id"] not in new]
    ended = [row["run_id"] for row in found if {row["status"], joined[row["run_id"]]["status"]} <= {*FINISHED}]
    kept = {
        name: [row for row in rows(to / name, columns) if row["run_id"] not in new] if (to / name).exists() else []
        for name, columns in (("traces.csv", TRACES), ("layers.csv", LAYERS))
    }  # all of both is read, and so checked, before anything is written
    recorded = {name: {row["run_id"] for row in records} for name, records in kept.items()}
    traces = results.traces(out, [run_id for run_id in ended if run_id not in recorded["traces.csv"]])
    layers = results.layers(out, [run_id for run_id in ended if run_id not in recorded["layers.csv"]])
    results.write_csv(to / "traces.csv", TRACES, itertools.chain(kept["traces.csv"], traces))
    results.write_csv(to / "layers.csv", LAYERS, itertools.chain(kept["layers.csv"], layers))
    results.write_parquet(to / PARQUET, [*others, *new.values()])
    results.write_csv(to / RESULTS, COLUMNS, [*others, *new.values()])  # last: until then nothing has been added
    return len(new) + sum(known[row["run_id"]] != row for row in others)


def _is_better(row: Row, known: Row | None) -> bool:
    return known is None or _rank(row) < _rank(known)


def _rank(row: Row) -> int:
    """0 for the status of the row that counts before all others."""
    return BEST_FIRST.index(row["status"]) if row["status"] in BEST_FIRST else len(BEST_FIRST)


def _joined(row: Row, known: Row | None) -> Row:
    """The better row of a cell with the memberships of both, as `analysis build` joins them."""
    if known is None:
        return row
    best = row if _is_better(row, known) else known
    both = {
        name: union((known[name], row[name]), backwards=name == "protocol")
        for name in ("suite", "protocol")
        if {*known[name].split(SEPARATOR)} != {*row[name].split(SEPARATOR)}
    }
    own = any(one["departs"] == "" and one["status"] in FINISHED for one in (row, known))
    return {**best, **both, **({"departs": ""} if own else {})}


def _tables(path: Path) -> list[Path]:
    if not path.exists():
        raise SpecError(f"--done-in {path} does not exist")
    files = [path] if path.is_file() else sorted(path.rglob(RESULTS))
    if not files:
        raise SpecError(f"--done-in {path} holds no {RESULTS}")
    return files


def rows(file: Path, columns: Sequence[str], *, needed: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a table with these columns; it must have those `needed`, all without it."""
    try:
        with _opened(file) as binary:
            opened = io.TextIOWrapper(binary, newline="", encoding="utf-8-sig")  # a spreadsheet program adds the mark
            reader = csv.DictReader(_lines(opened), strict=True)
            names = list(reader.fieldnames or ())
            if missing := [name for name in needed or columns if name not in names]:
                raise SpecError(f"{file} is no table of ours: it has no column '{missing[0]}'")
            left = list(columns)
            for name in names:  # ends after as many as there are columns, however many names there are
                if name not in left:
                    raise SpecError(f"{file} is no table of ours: unknown or repeated column {name!r:.120}")
                left.remove(name)
            for row in reader:
                if None in row or None in row.values():
                    raise SpecError(f"{file}, line {reader.line_num}: it does not have {len(names)} values")
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{file} cannot be read as a table: {error}") from error


def _opened(file: Path) -> BinaryIO:
    """A stranger's file, opened. Raises SpecError for a pipe and other special files, and OSError."""
    try:
        return open_regular(file)
    except ValueError as error:
        raise SpecError(f"{error}: remove it, or put a table in its place") from error


def _lines(opened: TextIO) -> Iterator[str]:
    """The lines of a file, which may be a stranger's: one without an end would fill the memory."""
    while line := opened.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise csv.Error(f"a line has {LONGEST_LINE} characters or more")
        yield line


def _fault(row: Row) -> str:
    """Why a row that says done or diverged does not count; empty if it does."""
    if found := damage(row):
        return found
    departs = row["departs"].split(results.SEPARATOR)
    if any(part.startswith(results.DRIFT) and not part.startswith(results.SUITE_DRIFT) for part in departs):
        return "it was resumed in a changed environment (drift)"
    for name in MEASURED:
        if (row[name] or (name in NEEDED and row["status"] == "done")) and math.isnan(number(row[name])):
            return f"{name} is {row[name]!r:.120}: it must be a finite number"
    for name, highest in HIGHEST.items():
        if row[name] and not 0 <= number(row[name]) <= highest:
            return f"{name} is {row[name]}: it must be in [0, {highest:g}]"
    return ""


def damage(row: Row) -> str:
    """Why a row cannot be the row of its cell; empty if it can."""
    try:
        results.check_row(row)
    except SpecError as error:
        return str(error)
    for name in MEASURED:
        try:
            number(row[name])
        except ValueError as error:
            return f"{name}: {error}"
    return ""


def _check_rows(rows: Sequence[Row], file: Path) -> None:
    """Raises SpecError for the first row that is not the row of its cell."""
    for line, row in enumerate(rows, HEADER):
        if found := damage(row):
            raise SpecError(f"{file}, row {line}: {found}; correct or remove that row first")


def _check_parquet(file: Path) -> None:
    """Raises SpecError for somebody else's file of the name that the rows are written to."""
    if not file.exists():
        return
    import pyarrow as pa
    import pyarrow.parquet

    try:
        with _opened(file) as opened:
            names = pyarrow.parquet.read_schema(opened).names
    except (OSError, pa.ArrowException) as error:
        raise SpecError(f"{file} cannot be read as a table: {str(error).splitlines()[0]}") from error
    if not set(REQUIRED) <= set(names) <= set(COLUMNS):
        raise SpecError(f"{file} is no table of ours: move it away, or export into another folder")


def _check_same(new: Row, old: Row | None, to: Path) -> None:
    if old is None or not {old["status"], new["status"]} <= {*FINISHED}:
        return
    unmeasured = [name for name in MEASURED if math.isnan(number(old[name]))]  # by an earlier version
    texts = {name: str(value) for name, value in new.items()}
    if name := difference(old, texts, may_lack=(*LATER, *unmeasured)):
        raise SpecError(
            f"{to / RESULTS} has cell {new['run_id']} with {name} {old[name]}, the run folder has {new[name]}: "
            "remove that row, or export into another folder"
        )
