"""Results tables from disk: found, checked and merged. What is wrong is named by file and row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmark.results import (
    BEST_FIRST,
    COLUMNS,
    LATER,
    MARKER,
    MEASURED,
    NEEDED,
    REQUIRED,
    STATUSES,
    TIMES,
    check_row,
    union,
)
from benchmark.spec import SCHEMA_VERSION, SpecError

ALWAYS = ("run_id", "dataset", "model", "method", "seed", "status", "spec")
ACCURACIES = ("test_accuracy", "best_test_accuracy", "test_top5_accuracy", "test_accuracy_at_min_density")
DENSITIES = ("density_at_best_test_accuracy", "density", "nonzero_density", "min_density")
RANGES = {**dict.fromkeys(ACCURACIES, 100.0), **dict.fromkeys(DENSITIES, 1.0)}
NUMBERS = ("alpha", "density_target", "seed", *MEASURED)
TRACES = ("run_id", "epoch", "step", "name", "value")
LAYERS = ("run_id", "parameter", "weights", "kept")
AMOUNTS = ("value", "weights", "kept")  # what a row of traces or layers records; the rest says of what
HEADER = 2  # the header is row 1 of a file, so that the row at index 0 is row 2
FINISHED = ("done", "diverged")
MOST_HEADER_BYTES = 2**16  # a stranger's table may have a million columns


class InputError(Exception):
    """A results table that cannot be used: which file, which row, what is wrong."""


@dataclass(frozen=True)
class Tables:
    """results: one row per cell, columns of benchmark.results.

    traces, layers: long, of the finished cells.
    """

    results: pd.DataFrame
    traces: pd.DataFrame
    layers: pd.DataFrame

    def traces_of(self, run_ids: Iterable[str]) -> pd.DataFrame:
        """The traces of these runs, in the order of the table; does not search the whole table."""
        return _rows_of(self.traces, self.trace_places, run_ids)

    def layers_of(self, run_ids: Iterable[str]) -> pd.DataFrame:
        """The layers of these runs, in the order of the table."""
        return _rows_of(self.layers, self.layer_places, run_ids)

    @cached_property
    def trace_places(self) -> Mapping[str, npt.NDArray[np.intp]]:
        """run id -> the positions of its traces."""
        return _places(self.traces)

    @cached_property
    def layer_places(self) -> Mapping[str, npt.NDArray[np.intp]]:
        """run id -> the positions of its layers."""
        return _places(self.layers)


def load(paths: Sequence[Path]) -> Tables:
    """Every table under these files and folders as one. Raises InputError."""
    files = find(paths)
    read = [_results(file) for file in files]
    kept = merge(read)
    traces, layers = [_empty(TRACES)], [_empty(LAYERS)]
    for file in files:
        wanted = set(kept.loc[kept["file"] == str(file), "run_id"])
        traces.append(_traces(file, wanted))
        layers.append(_layers(file, wanted))
    return _completed(Tables(kept, _join(traces), _join(layers)), read)


def _traces(file: Path, wanted: set[str]) -> pd.DataFrame:
    return _long(file.with_name("traces.csv"), TRACES, ("epoch", "step", "value"), ("step",), wanted)


def _layers(file: Path, wanted: set[str]) -> pd.DataFrame:
    return _long(file.with_name("layers.csv"), LAYERS, ("weights", "kept"), (), wanted)


def _completed(tables: Tables, read: Sequence[pd.DataFrame]) -> Tables:
    """With the records of cells that come without any beside their chosen row, from another file that has them done.

    Raises InputError where two files have a cell done with different values in traces.csv.
    """
    chosen = tables.results.set_index("run_id")["file"]
    for table in read:
        done = table[table["status"].isin(FINISHED) & table["run_id"].isin(chosen.index)].set_index("run_id")["file"]
        again = set(done.index[done != chosen[done.index]])
        if not again:
            continue
        file = Path(str(table["file"].iloc[0]))
        there = _traces(file, again)
        for run_id, records in _records(there).items():
            kept = _records(tables.traces_of([run_id])).get(run_id, records)  # a table may have come without traces
            if not records.equals(kept):
                raise InputError(
                    f"{Path(done[run_id]).with_name('traces.csv')}: run {run_id} has other records than in "
                    f"{Path(chosen[run_id]).with_name('traces.csv')}: keep one of the two"
                )
        traces = there[~there["run_id"].isin(list(tables.trace_places))]
        layers = _layers(file, again - set(tables.layer_places))
        if len(traces) or len(layers):
            tables = Tables(tables.results, _join([tables.traces, traces]), _join([tables.layers, layers]))
    return tables


def _records(traces: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """run id -> what was recorded, without times, in one order."""
    kept = traces[~traces["name"].astype(str).str.contains("seconds|time")]
    ordered = kept.sort_values(["run_id", "epoch", "step", "name"], kind="stable").astype(
        {"value": float, "epoch": float, "step": float}
    )
    return {str(run_id): part.reset_index(drop=True) for run_id, part in ordered.groupby("run_id", sort=False)}


def find(paths: Iterable[Path]) -> list[Path]:
    """The results tables that the paths name or hold, each once. Raises InputError for none."""
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"--results {path} does not exist")
        if path.is_file():
            file = path.with_name("results.csv") if path.name in ("traces.csv", "layers.csv") else path
            tables = [file]
        else:
            tables = [
                table for table in sorted(path.rglob("results.csv")) if "cells" not in table.relative_to(path).parts
            ]
        if not tables:
            raise InputError(f"--results {path} holds no results.csv: 'python -m benchmark export' writes one")
        for table in tables:
            found.setdefault(table.resolve(), table)
    return list(found.values())


def merge(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Each cell once: a finished row wins over an unfinished one; unequal ones conflict.

    Rows whose specs differ only in `step_records` are the same cell. Of two finished rows, one without
    the columns that came later gives way to one with them, then one without records of steps.
    """
    rows = pd.concat(tables, ignore_index=True)
    specs = [json.loads(text) for text in rows["spec"]]
    rows["stepless"] = [spec.pop("step_records", None) is None for spec in specs]
    rows["cell"] = [json.dumps(spec, sort_keys=True) for spec in specs]
    rows["rank"] = rows["status"].map({status: rank for rank, status in enumerate(BEST_FIRST)})
    rows["lacks"] = rows[list(LATER)].isna().any(axis=1)
    rows = rows.sort_values(["cell", "rank", "lacks", "stepless", "run_id"], kind="stable", ignore_index=True)
    compared = ["dataset", "model", "method", "seed", "status", *(m for m in MEASURED if m not in TIMES)]
    for _, same in rows[rows["cell"].duplicated(keep=False)].groupby("cell"):
        finished = same[same["status"].isin(FINISHED)]
        for name in compared if len(finished) > 1 else ():
            first = finished[name].iloc[0]
            absent = finished[name].isna() & (pd.isna(first) | (name in LATER))
            other = finished[~((finished[name] == first) | absent)]
            if len(other):
                here, there = finished.iloc[0], other.iloc[0]
                apart = f" (run {here['run_id']}, other step_records)" if here["run_id"] != there["run_id"] else ""
                raise InputError(
                    f"{there['file']}, row {there['line']}: run {there['run_id']} has {name} {there[name]}, "
                    f"but {first} in {here['file']}, row {here['line']}{apart}: keep one of the two"
                )
    kept = rows.drop_duplicates("cell").sort_values("run_id", ignore_index=True)
    for name, backwards in (("suite", False), ("protocol", True)):  # the paper's protocol comes first
        kept[name] = kept["cell"].map(rows.groupby("cell")[name].agg(partial(union, backwards=backwards)))
    own = rows.loc[(rows["departs"] == "") & rows["status"].isin(FINISHED), "cell"]
    kept.loc[kept["cell"].isin(own), "departs"] = ""  # a cell that a suite has itself departs from nothing
    return kept.drop(columns=["cell", "rank", "lacks", "stepless"])


def _results(file: Path) -> pd.DataFrame:
    _same_schema(file)
    table = _table(file, REQUIRED, NUMBERS)
    table = table.assign(file=str(file), line=table.index + HEADER)
    unknown = [name for name in table if name not in (*COLUMNS, "file", "line")]
    if unknown:
        raise InputError(f"{file}, row 1: unknown column {', '.join(unknown)}: not a table of this schema version")
    for name in COLUMNS:
        if name not in table:
            table[name] = float("nan") if name in NUMBERS else ""
    _check_cells(file, table)
    return table


def _check_cells(file: Path, table: pd.DataFrame) -> None:
    for name in ALWAYS:
        _refuse(file, table, table[name].isna() | (table[name] == ""), name, "is empty")
    again = table["run_id"].duplicated()
    first = table["run_id"].map(table[~again].set_index("run_id")["line"])
    _refuse(file, table.assign(first=first), again, "run_id", "{value} is in row {row[first]} too")
    _refuse(file, table, ~table["status"].isin(STATUSES), "status", "{value!r} is unknown")
    _refuse(file, table, (table["seed"] < 0) | (table["seed"] % 1 != 0), "seed", "{value} is no whole number")
    for row in table.to_dict("records"):
        try:
            check_row(row)
        except SpecError as error:
            raise InputError(f"{file}, row {row['line']}: {error}") from None
    for name in NEEDED:
        _refuse(file, table, (table["status"] == "done") & table[name].isna(), name, "of a done cell is empty or NaN")
    for name, highest in RANGES.items():
        outside = table[name].notna() & ~table[name].between(0, highest)
        _refuse(file, table, outside, name, f"{{value}} is not in [0, {highest:g}]")
    _check_finite(file, table, MEASURED)


def _same_schema(file: Path) -> None:
    """Raises InputError where the run folder that a table lies in states another schema version."""
    marker = file.with_name(MARKER)
    if not marker.exists():
        return
    try:
        if not marker.is_file():  # to open a pipe would wait for ever
            raise ValueError("no regular file")
        version = json.loads(marker.read_text(encoding="utf-8"))["schema"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{marker} is damaged: it does not say the schema version of {file}") from None
    if version != SCHEMA_VERSION:
        raise InputError(f"{marker}: {file} has schema version {version}, this program reads {SCHEMA_VERSION}")


def _long(
    file: Path, columns: Sequence[str], numbers: Sequence[str], optional: Sequence[str], wanted: set[str]
) -> pd.DataFrame:
    if not file.exists():
        return _empty(columns)
    table = _table(file, columns, numbers)
    for name in columns:
        if name not in optional:
            _refuse(file, table, table[name].isna() | (table[name] == ""), name, "is empty or NaN")
    _check_finite(file, table, numbers)
    for name in set(numbers) - {"value"}:
        _refuse(file, table, (table[name] < 0) | (table[name].dropna() % 1 != 0), name, "{value} is no whole number")
    if "kept" in numbers:
        _refuse(file, table, table["kept"] > table["weights"], "kept", "{value} is more than {row[weights]} weights")
    found = table.loc[table["run_id"].isin(wanted), list(columns)]
    again = found.duplicated([name for name in columns if name not in AMOUNTS])
    _refuse(file, found, again, "run_id", "{value} has the same record in a row above")
    return found


def _table(file: Path, required: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    """A CSV with typed columns; its index counts the lines below the header. Raises InputError."""
    if not file.is_file():  # to open a pipe would wait for ever
        raise InputError(f"{file} is no regular file: remove it, or put a table in its place")
    with file.open("rb") as content:
        content.seek(0, 2)
        content.seek(-min(1, content.tell()), 2)
        end = content.read()
        content.seek(0)
        header_bytes = len(content.readline(MOST_HEADER_BYTES))
    if not end:
        raise InputError(f"{file} is empty")
    if header_bytes == MOST_HEADER_BYTES:
        raise InputError(f"{file}, row 1: it has {MOST_HEADER_BYTES} bytes or more: not a table of this schema version")
    try:
        header = pd.read_csv(file, nrows=0).columns
        table = pd.read_csv(file, dtype=dict.fromkeys(header.difference(numbers), str), keep_default_na=False,
                            na_values={name: ["", "nan", "NaN"] for name in numbers}, low_memory=False)  # fmt: skip
    except (pd.errors.ParserError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{file} is damaged: {' '.join(str(error).split())}") from error
    missing = [name for name in required if name not in table]
    if missing:
        raise InputError(f"{file}, row 1: no column {', '.join(missing)}: not a table of this schema version")
    for name in [name for name in numbers if name in table]:
        given = table[name].astype(str) if table[name].dtype == object else table[name]  # it may hold huge integers
        typed = pd.to_numeric(given, errors="coerce")
        _refuse(file, table, typed.isna() & table[name].notna(), name, "{value!r:.120} is no number")
        table[name] = typed.astype(float)
    if end != b"\n":
        raise InputError(f"{file}, row {len(table) + 1}: the file is cut off there: export it anew")
    return table


def _check_finite(file: Path, table: pd.DataFrame, names: Iterable[str]) -> None:
    for name in names:
        _refuse(file, table, np.isinf(table[name]), name, "{value} is not finite")


def _refuse(file: Path, table: pd.DataFrame, bad: pd.Series, name: str, why: str) -> None:
    """Raises InputError for the first bad row.

    In `why`, {row} stands for the row and {value} for what its column `name` holds.
    """
    if bad.any():
        row = table[bad].iloc[0]
        raise InputError(f"{file}, row {row.name + HEADER}: {name} {why.format(value=row[name], row=row)}")


def _places(table: pd.DataFrame) -> Mapping[str, npt.NDArray[np.intp]]:
    return dict(table.groupby("run_id", sort=False).indices)


def _rows_of(table: pd.DataFrame, places: Mapping[str, npt.NDArray[np.intp]], run_ids: Iterable[str]) -> pd.DataFrame:
    found = [places[run_id] for run_id in set(run_ids) if run_id in places]
    return table.iloc[np.sort(np.concatenate(found))] if found else table.iloc[:0]


def _empty(columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=object) for name in columns})


def _join(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)] or list(tables[:1])
    return pd.concat(filled, ignore_index=True)
