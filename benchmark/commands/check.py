"""`check`: whether results that somebody sent can stand beside ours."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark import suites
from benchmark.commands import check_files, check_tables
from benchmark.commands.check_files import MANIFEST, SUMS, Content, Problem
from benchmark.commands.check_rows import EXPORT, Records, promised
from benchmark.commands.check_tables import Table
from benchmark.commands.output import console, emit, say
from benchmark.commands.published import RESULTS
from benchmark.commands.row_numbers import difference, number
from benchmark.data import DataError
from benchmark.messages import one_line
from benchmark.results import MARKER, SEPARATOR, Row
from benchmark.spec import RunSpec, SpecError, from_json
from methods.registry import method_class

OURS = Path("paper_figures/results")
AGAIN = "train the cell with the installed version"


@dataclass
class Found:
    """problems: what must be changed before the results can stand beside ours.

    remarks: what a reader should know. counts: cells by suite, and cells that our tables have or lack.
    """

    problems: list[Problem]
    remarks: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def check(folder: Path, beside: Sequence[Path], json_output: bool) -> int:
    """Print what is wrong with the results in a folder and what to do. Returns the exit code.

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
    found = Found([*content.problems, *_of_files(folder, content, tables)])
    for table in tables:
        found.problems += table.problems
        _memberships(table, found)
        found.remarks += _without_records(table)
    found.problems += _twice(tables)
    if ours:
        _beside(tables, ours, found)
    document = {"folder": str(folder), "tables": len(tables), "beside": list(map(str, given))}
    if json_output:
        listed = {name: [vars(problem) for problem in getattr(found, name)] for name in ("problems", "remarks")}
        emit({**document, "counts": found.counts, **listed})
    else:
        _print(document, found)
    return DataError.exit_code if found.problems else 0


def _print(document: dict[str, Any], found: Found) -> None:
    screen = console(json_output=False)
    for what, problems in (("remark: ", found.remarks), ("", found.problems)):
        for problem in problems:
            place = problem.file + (f", row {problem.row}" if problem.row else "")
            cell = f"cell {problem.run_id}: " if problem.run_id else ""
            say(screen, f"{what}{place}: {cell}{problem.text}")
    total = ", ".join(f"{count} {what}" for what, count in found.counts.items()) or "no cells"
    count = len(found.problems)
    verdict = f"{count or 'no'} problem{'s' if count > 1 else ''}"
    say(screen, f"{document['folder']}: tables: {document['tables']}; cells: {total}; {verdict}")


def _tables(content: Content) -> list[Table]:
    return [check_tables.read(file, beside=content.files) for file in content.files if file.name == RESULTS]


def _of_files(folder: Path, content: Content, tables: Sequence[Table]) -> Iterator[Problem]:
    """Problems of checksums, manifests and run folders, and of a folder without tables."""
    rows = {run_id: row for table in tables for run_id, row in table.rows.items()}
    if not tables:
        yield Problem(str(folder), f"holds no {RESULTS}: 'python -m benchmark export' writes one")
    for file in content.files:
        if file.name == SUMS:
            yield from check_files.checksums(file, content.files)
        elif file.name == MANIFEST:
            yield from check_files.manifest(file, rows)
        elif file.name == MARKER:
            inside = [(table.rows, table.lines) for table in tables if table.file.parent == file.parent]
            yield from check_files.run_folder(file.parent, *(inside[0] if inside else ({}, {})))


def _memberships(table: Table, found: Found) -> None:
    """Count each cell under its suite or as the sender's own, and check its protocols and its method."""
    for run_id, row in table.rows.items():
        named = [name for name in row["suite"].split(SEPARATOR) if name in suites.NAMES]
        spec = _without_seed(row["spec"])
        has = next((name for name in (*named, *suites.NAMES) if spec in _cells_of(name)), "")
        found.counts["departing" if row["departs"] else f"of suite {has}" if has else "own"] += 1
        if wrong := _other_protocol(row, spec, has) if has else _other_method(from_json(row["spec"])):
            found.problems.append(table.problem(run_id, wrong))
        if not row["departs"]:
            claimed = named[0] if named and not has else ""
            found.remarks += [table.problem(run_id, text) for text in _remarks(row, claimed)]


def _remarks(row: Row, claimed: str) -> Iterator[str]:
    """What a reader should know about a cell. claimed: a suite of ours that it names but is not in."""
    if claimed:
        yield f"suite {claimed} has no such cell here, so the cell counts as own"
    if not promised(row["method"]):
        yield f"method {row['method']} is not installed here, so its promise is not checked"
    if row["status"] == "done" and row["commit"].endswith("-dirty"):
        yield "was trained with uncommitted changes"


def _without_records(table: Table) -> Iterator[Problem]:
    lacking = [run_id for run_id in table.finished if not table.records.get(run_id, Records()).values]
    if lacking:
        count = f"{len(lacking)} finished cell{'s have' if len(lacking) > 1 else ' has'} no records in traces.csv"
        yield Problem(str(table.file), f"{count}: accuracy and density are not compared with their epochs")


def _other_method(spec: RunSpec) -> str:
    """Why the installed method cannot have this spec; empty if it can, or has another version."""
    name, version = spec.method["name"], spec.method.get("version")
    if not promised(name) or method_class(name).version != version:
        return ""
    given: dict[str, Any] = {key: value for key, value in spec.method.items() if key not in ("name", "version")}
    given |= {} if spec.density is None else {"density": spec.density}
    try:
        made = suites.cell(name, data=spec.data, model=spec.model, optimizer=spec.optimizer, **given)
    except (ValueError, TypeError) as error:
        return f"its spec is not one of method {name}: {one_line(str(error))}; {AGAIN}"
    if (made.method, made.density) != (spec.method, spec.density):
        known = ", ".join(made.method)
        return f"its spec is not one of method {name}, version {version}, which has the fields {known}; {AGAIN}"
    return ""


def _other_protocol(row: Row, spec: str, suite: str) -> str:
    """Which protocols the cell claims that our suites do not give it: it would enter their means."""
    claimed, known = {name for name in row["protocol"].split(SEPARATOR) if name}, set(_cells_of(suite)[spec])
    if not claimed <= known:  # only then: to expand all suites takes seconds
        known = known.union(*(_cells_of(name).get(spec, ()) for name in suites.NAMES))
    if claimed <= known:
        return ""
    listed = " and ".join(sorted(known)) or "none"
    return f"protocol is {row['protocol']}, but our suites have this cell in {listed}: name no other protocol"


@functools.cache
def _cells_of(suite: str) -> dict[str, tuple[str, ...]]:
    """The protocols of each cell of a suite, by its spec without the seed: other seeds are allowed."""
    return {_without_seed(spec.canonical_json): spec.protocol for spec in suites.load(suite).specs}


def _without_seed(spec: str) -> str:
    return json.dumps({name: value for name, value in json.loads(spec).items() if name != "seed"}, sort_keys=True)


def _twice(tables: Sequence[Table]) -> Iterator[Problem]:
    """Cells that two tables of the folder have with different numbers."""
    for at, table in enumerate(tables):
        for other in tables[:at]:
            for run_id in table.finished.keys() & other.finished.keys():
                if found := _difference(table, other, run_id):
                    yield table.problem(run_id, f"{found}, unlike in {other.file}: keep one of the two")


def _beside(tables: Sequence[Table], ours: Sequence[Table], found: Found) -> None:
    """Compare with the same cells in our tables. A build refuses two rows with different numbers."""
    costs = {_without_seed(row["spec"]): (row, other) for other in ours for row in other.finished.values()}
    for table in tables:
        for run_id, row in table.finished.items():
            others = [other for other in ours if run_id in other.finished]
            unlike = [(other, text) for other in others if (text := _difference(table, other, run_id))]
            found.counts["other than ours" if unlike else "equal to ours" if others else "new"] += 1
            for other, text in unlike[:1]:
                where = f"{text}, unlike in {other.file}{_on(row, other.finished[run_id])}"
                found.problems.append(table.problem(run_id, where))
            our, other = costs.get(_without_seed(row["spec"]), (row, table))
            if not others and our["status"] == row["status"] and (text := _other_cost(row, our)):
                found.problems.append(table.problem(run_id, f"{text} of another seed in {other.file}: {EXPORT}"))


def _other_cost(row: Row, our: Row) -> str:
    """How FLOPs that do not depend on the seed differ from those of our cell; empty if equal."""
    names = ("executed_flops", *(("train_flops", "inference_flops") if promised(row["method"]) == "dense" else ()))
    for name in names:
        here, there = number(row[name]), number(our[name])
        if here != there and not math.isnan(here + there):  # a table of an earlier version may lack the column
            return f"{name} is {row[name]}, not the {our[name]}"
    return ""


def _on(row: Row, our: Row) -> str:
    same = row["device"] == our["device"]
    why = "on the same device, where numbers should be equal" if same else f"on {our['device']}, not {row['device']}"
    return f", {why}: send it without this row, or train another seed"


def _difference(table: Table, other: Table, run_id: str) -> str:
    """How the rows or records differ, if a build would refuse the two; empty otherwise."""
    row, theirs = table.rows[run_id], other.rows[run_id]
    if name := difference(row, theirs):
        return f"{name} is {row[name]} instead of {theirs[name]}"
    records, known = (found.records.get(run_id, Records()).untimed() for found in (table, other))
    return "traces.csv has other records" if records and known and records != known else ""
