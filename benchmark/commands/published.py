"""Results tables outside run folders: the cells they settle, and how rows join them."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmark import results
from benchmark.results import COLUMNS, LATER, LAYERS, MEASURED, TIMES, TRACES, Row
from benchmark.spec import SpecError, from_dict

RESULTS = "results.csv"
FINISHED = ("done", "diverged")
NEEDED = ("epochs", "test_accuracy", "density")  # a done row without these is not intact


def done(paths: Iterable[Path]) -> set[str]:
    """The run ids that have an intact row in the tables under these files and folders.

    A row is intact if its status is done, its spec hashes to its run id, its numbers are finite and
    it was trained in one environment (no drift). Every other row counts as not run. Raises
    SpecError for a path that does not exist or holds no results.csv, and for a file that is no
    results table.
    """
    return {row["run_id"] for path in paths for file in _tables(path) for row in read(file) if _is_intact(row)}


def read(file: Path) -> list[Row]:
    """The rows of a results table, each value as text. Raises SpecError if the file is none."""
    return list(_rows(file, COLUMNS))


def merge(found: Sequence[Row], out: Path, to: Path) -> int:
    """Add rows of the run folder `out`, with their traces and layers, to the tables in folder `to`.

    A row that `to` has finished stays as it is, and so do all rows of other cells: merging twice
    changes nothing; of two merges at once the second waits. Returns how many rows were added or
    replaced. Raises SpecError, and writes nothing, if `to` has a finished row of the same cell with
    other measured numbers, or files that are no tables.
    """
    to.mkdir(parents=True, exist_ok=True)
    with _locked(to):
        return _merge(found, out, to)


def _merge(found: Sequence[Row], out: Path, to: Path) -> int:
    old = read(to / RESULTS) if (to / RESULTS).exists() else []
    finished = {row["run_id"]: row for row in old if row["status"] in FINISHED}
    for row in found:
        _check_same(row, finished.get(row["run_id"]), to)
    new = {row["run_id"]: row for row in found if row["run_id"] not in finished}
    others = [row for row in old if row["run_id"] not in new]
    ended = [run_id for run_id, row in new.items() if row["status"] in FINISHED]
    for name, columns, records in (("traces.csv", TRACES, results.traces), ("layers.csv", LAYERS, results.layers)):
        kept = [row for row in _rows(to / name, columns) if row["run_id"] not in new] if (to / name).exists() else []
        results.write_csv(to / name, columns, itertools.chain(kept, records(out, ended)))
    results.write_parquet(to / "results.parquet", [*others, *new.values()])
    results.write_csv(to / RESULTS, COLUMNS, [*others, *new.values()])  # last: until then nothing has been added
    return len(new)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time in here, which may be killed; does nothing where the file system cannot
    lock a folder (NFS).
    """
    opened = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _tables(path: Path) -> list[Path]:
    if not path.exists():
        raise SpecError(f"--done-in {path} does not exist")
    files = [path] if path.is_file() else sorted(path.rglob(RESULTS))
    if not files:
        raise SpecError(f"--done-in {path} holds no {RESULTS}")
    return files


def _rows(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            reader = csv.DictReader(opened, strict=True)
            absent = set(columns).difference(reader.fieldnames or ())
            if missing := [name for name in columns if name in absent and name not in LATER]:
                raise SpecError(f"{file} is no table of ours: it has no column '{missing[0]}'")
            for row in reader:
                if None in row or None in row.values():
                    raise SpecError(f"{file}, line {reader.line_num}: it does not have {len(columns)} values")
                yield dict.fromkeys(absent, "") | row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{file} cannot be read as a table: {error}") from error


def _is_intact(row: Row) -> bool:
    try:
        same = from_dict(json.loads(row["spec"])).run_id == row["run_id"]
        numbers = [float(row[name]) for name in NEEDED]
    except (ValueError, TypeError, AttributeError):  # SpecError is a ValueError
        return False
    drifted = any(part.startswith(results.DRIFT) for part in row["departs"].split(results.SEPARATOR))
    return same and row["status"] == "done" and not drifted and all(map(math.isfinite, numbers))


def _check_same(new: Row, old: Row | None, to: Path) -> None:
    if old is None or new["status"] not in FINISHED:
        return
    for name in ("status", *(name for name in MEASURED if name not in TIMES)):
        if str(new[name]) != old[name]:
            raise SpecError(
                f"{to / RESULTS} has cell {new['run_id']} with {name} {old[name]}, the run folder has {new[name]}: "
                "remove that row, or export into another folder"
            )
