"""`show`: one cell with its spec, environment, attempts and measurements."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import methods
from benchmark import data, models, results, suites
from benchmark.commands.labels import labels
from benchmark.commands.output import console, emit, say
from benchmark.results import Member
from benchmark.run_folder.attempts import ended, folder_of, numbers
from benchmark.run_folder.files import examine
from benchmark.run_folder.result import result_of
from benchmark.spec import SpecError, check_names


def find_cell(run_id: str, out: Path, suite: str | None) -> Member:
    """The one cell of a run folder whose id begins with `run_id`, to be set up again.

    suite: what registers the cell's plug-ins. Raises as `_only` does, and SpecError for a plug-in
    that is not registered.
    """
    if suite is not None:
        suites.load_module(suite)
    member = _only(run_id, results.members(results.existing(out)))
    spec = member.spec
    try:
        check_names([spec.data.name], data.available(), "data set")
        check_names([spec.model.name], models.available(), "model")
        check_names([spec.method["name"]], methods.available(), "method")
    except SpecError as error:
        raise SpecError(f"{error}; if a suite registers it, give that suite with --suite") from error
    return member


def _only(run_id: str, members: Mapping[str, Member]) -> Member:
    """Raises SpecError if no cell's id begins with `run_id`, or more than one."""
    found = [member for name, member in members.items() if name.startswith(run_id)]
    if len(found) != 1:
        beginnings = {name[: len(run_id)]: name for name in members}
        close = [beginnings[beginning] for beginning in difflib.get_close_matches(run_id, beginnings, n=1)]
        hint = f"; did you mean '{close[0]}' ({members[close[0]].spec.label})?" if close else ""
        what = f"{len(found)} cells begin with it" if found else f"no cell has it{hint}"
        raise SpecError(f"run id '{run_id}': {what}; 'python -m benchmark status --json' lists all ids")
    return found[0]


def show(run_id: str, out: Path, json_output: bool) -> None:
    """Print one cell. Raises as `find_cell` does."""
    members = results.members(results.existing(out))
    member = _only(run_id, members)
    spec = member.spec
    cell = out / "cells" / spec.run_id
    environment, problem = examine(cell / "environment.json", dict)
    document: dict[str, Any] = {
        "label": labels(other.spec for other in members.values())[spec.run_id],
        "row": results.row(out, member),
        "spec": spec.to_dict(),
        "environment": {"problem": problem} if problem else environment,
        "attempts": {number: ended(folder_of(cell, number)) for number in numbers(cell)},
        "layers": (result_of(cell) or {}).get("layers"),
    }
    if json_output:
        emit(document)
        return
    screen = console(json_output=False)
    say(screen, f"{spec.run_id} {document.pop('label')}")
    for title, section in document.items():
        screen.print(f"{title}:", style="bold")
        for name, value in (section or {}).items():
            if value not in ("", None) and name != "spec":
                say(screen, f"  {name}: {value}")
