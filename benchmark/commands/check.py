"""`check`: whether results that somebody sent can stand beside ours."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmark import suites
from benchmark.commands import check_files, check_tables
from benchmark.commands.check_files import MANIFEST, SUMS, Content, Problem
from benchmark.commands.check_rows import Records, difference, promised
from benchmark.commands.check_tables import Table
from benchmark.commands.output import console, emit, say
from benchmark.commands.published import RESULTS
from benchmark.data import DataError
from benchmark.messages import printable
from benchmark.results import DRIFT, MARKER, SEPARATOR, Row
from benchmark.spec import SpecError

OURS = Path("paper_figures/results")


def check(folder: Path, beside: Sequence[Path], json_output: bool) -> int:
    """Print what is wrong with the results in a folder and what to do; the exit code.

    beside: our tables, by default the committed ones where there are some. Raises SpecError for a
    path that is no folder.
    """
    given = [*beside] or [path for path in (OURS,) if path.exists()]
    for path in (folder, *given):
        if not path.is_dir():
            raise SpecError(f"{path} is no folder: give a folder with {RESULTS}")
    content = check_files.content(folder)
    tables = _tables(content)
    mine = {table.file.resolve() for table in tables}
    ours = [table for path in given for table in _tables(check_files.content(path)) if table.file.resolve() not in mine]
    counts: collections.Counter[str] = collections.Counter()
    problems = [*content.problems, *_of_files(folder, content, tables)]
    problems += [problem for table in tables for problem in table.problems]
    problems += [*_memberships(tables, counts), *_twice(tables), *_beside(tables, ours, counts)]
    document = {"folder": str(folder), "tables": len(tables), "beside": list(map(str, given)), "counts": dict(counts)}
    if json_output:
        emit({**document, "problems": list(map(dataclasses.asdict, problems))})
    else:
        _print(document, problems)
    return DataError.exit_code if problems else 0


def _print(document: dict[str, Any], problems: Sequence[Problem]) -> None:
    screen = console(json_output=False)
    for problem in problems:
        place = problem.file + (f", row {problem.row}" if problem.row else "")
        cell = f"cell {problem.run_id}: " if problem.run_id else ""
        say(screen, printable(f"{place}: {cell}{problem.text}"))
    counted = ", ".join(f"{count} {what}" for what, count in document["counts"].items())
    verdict = f"{len(problems)} problems" if problems else "no problem"
    say(screen, printable(f"{document['folder']}: {document['tables']} tables; {counted or 'no cells'}; {verdict}"))


def _tables(content: Content) -> list[Table]:
    return [check_tables.read(file, beside=content.files) for file in content.files if file.name == RESULTS]


def _of_files(folder: Path, content: Content, tables: Sequence[Table]) -> Iterator[Problem]:
    """Checksums, manifests and run folders, and a folder without any table."""
    rows = {run_id: row for table in tables for run_id, row in table.rows.items()}
    if not tables:
        yield Problem(str(folder), f"holds no {RESULTS}: 'python -m benchmark export' writes one")
    for file in content.files:
        if file.name == SUMS:
            yield from check_files.checksums(file, content.files)
        elif file.name == MANIFEST:
            yield from check_files.manifest(file, rows)
        elif file.name == MARKER:
            inside = [table.rows for table in tables if table.file.parent == file.parent]
            yield from check_files.run_folder(file.parent, inside[0] if inside else {})


def _memberships(tables: Sequence[Table], counts: collections.Counter[str]) -> Iterator[Problem]:
    """Whether the cells are those of our suites that they say, and which are the sender's own."""
    for table, (run_id, row) in _rows(tables):
        named = [name for name in row["suite"].split(SEPARATOR) if name in suites.NAMES]
        strange = [name for name in named if _spec_without_seed(row) not in _cells_of(name)]
        if strange and not row["departs"]:
            yield table.problem(
                run_id,
                f"suite {strange[0]} has no such cell here: it was changed, or is of another version of the project; "
                f"take {strange[0]} out of its column suite, and it stands as a cell of their own",
            )
        counts[_kind(row, [name for name in named if name not in strange])] += 1
        if not promised(row["method"])[0]:
            counts[f"of method {row['method']}, which is not installed here"] += 1
        if any(part.startswith(DRIFT) for part in row["departs"].split(SEPARATOR)):
            counts["drifted, in no mean"] += 1
        if row["status"] == "done" and row["commit"].endswith("-dirty"):
            counts["with uncommitted changes"] += 1


def _kind(row: Row, named: Sequence[str]) -> str:
    if row["departs"]:
        return "departing, in no mean"
    found = named or [name for name in suites.NAMES if _spec_without_seed(row) in _cells_of(name)]
    return f"of suite {found[0]}" if found else "own"


@functools.cache
def _cells_of(suite: str) -> frozenset[str]:
    return frozenset(_without_seed(spec.to_dict()) for spec in suites.load(suite).specs)


def _spec_without_seed(row: Row) -> str:
    return _without_seed(json.loads(row["spec"]))


def _without_seed(spec: dict[str, Any]) -> str:
    """Other seeds than the suite's are no departure from it."""
    return json.dumps({name: value for name, value in spec.items() if name != "seed"}, sort_keys=True)


def _twice(tables: Sequence[Table]) -> Iterator[Problem]:
    """Cells that two tables of the folder have with other numbers."""
    for at, table in enumerate(tables):
        for other in tables[:at]:
            for run_id in table.finished.keys() & other.finished.keys():
                if found := _difference(table, other, run_id):
                    yield table.problem(run_id, f"{found}, unlike in {other.file}: keep one of the two")


def _beside(tables: Sequence[Table], ours: Sequence[Table], counts: collections.Counter[str]) -> Iterator[Problem]:
    """The same cells in our tables: equal numbers, or other ones, of which a build takes none."""
    for table in tables:
        for run_id, row in table.finished.items():
            found = [other for other in ours if run_id in other.finished]
            counts["the same as ours" if found else "not in ours"] += 1
            for other, text in ((other, _difference(table, other, run_id)) for other in found):
                if text:
                    counts["the same as ours"] -= 1
                    counts["other than ours"] += 1
                    yield table.problem(run_id, f"{text}, unlike in {other.file}{_on(row, other.finished[run_id])}")
                    break


def _on(row: Row, our: Row) -> str:
    same = row["device"] == our["device"]
    why = "on the same device, where numbers should be equal" if same else f"on {our['device']}, not {row['device']}"
    return f", {why}: send it without this row, or train another seed"


def _difference(table: Table, other: Table, run_id: str) -> str:
    """How the rows or records differ, where a build would not take both; empty otherwise."""
    row, theirs = table.rows[run_id], other.rows[run_id]
    if name := difference(row, theirs):
        return f"{name} is {row[name]} instead of {theirs[name]}"
    records, known = (found.records.get(run_id, Records()).untimed() for found in (table, other))
    return "traces.csv has other records" if records and known and records != known else ""


def _rows(tables: Sequence[Table]) -> Iterator[tuple[Table, tuple[str, Row]]]:
    return itertools.chain.from_iterable(((table, item) for item in table.rows.items()) for table in tables)
