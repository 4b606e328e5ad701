"""Suites that changed after a run folder listed their cells.

Reports which of these cells are no longer in the suite, and why.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark import results
from benchmark.plain_values import plain
from benchmark.run_folder.files import write_json
from benchmark.spec import RunSpec, SpecError, fields, from_dict
from benchmark.suites import Suite

NAMED = 3

Fields = Mapping[str, Any]


def check(out: Path, suite: Suite, *, accept: bool) -> None:
    """Raises SpecError if the folder has cells of an earlier version of the suite.

    accept: marks them instead. Nothing is written without it.
    """
    path = out / "suites" / f"{suite.name}.json"
    if not path.exists():
        return
    with results.list_turn(out) if accept else contextlib.nullcontext():
        _check(path, out, suite, accept=accept)


def _check(path: Path, out: Path, suite: Suite, *, accept: bool) -> None:
    document = results.expansion(path)
    strays = _strays(document["cells"], suite.own)
    if not strays:
        return
    specs = [from_dict(entry["spec"]) for entry in (strays if accept else strays[:1])]
    differences = _differences(specs, suite.own)
    if not accept:
        raise SpecError(
            f"suite {suite.name} was changed since {out} was begun: {len(strays)} of its cells are no longer in it "
            f"({specs[0].label}: {differences[0]}); use another --out, put the suite back, or give "
            "--accept-drift: those cells stay in the tables, marked as departing"
        )
    for entry, difference in zip(strays, differences, strict=True):
        entry["departs"] = [f"{results.SUITE_DRIFT}{difference}"]
    write_json(path, document)


def _strays(entries: Iterable[dict[str, Any]], own: Sequence[RunSpec]) -> list[dict[str, Any]]:
    """Listed cells that are marked as no departure, and that the suite has under no seed."""
    ids = {spec.run_id for spec in own}
    unknown = [entry for entry in entries if entry["run_id"] not in ids and not entry["departs"]]
    own_specs = {_without_seed(spec.to_dict()) for spec in own} if unknown else set()
    return [entry for entry in unknown if _without_seed(entry["spec"]) not in own_specs]


def _without_seed(tree: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in tree.items() if key != "seed"}, sort_keys=True)


def _differences(strays: Sequence[RunSpec], own: Sequence[RunSpec]) -> list[str]:
    """`optimizer.epochs: 2 -> 3`: how each stray differs from a cell of the suite that is like it.

    One edit of a suite changes the same fields of many cells. So a stray is first looked up among
    the cells without the fields in which earlier strays differed; only if that finds none is it
    compared with every cell. To compare all of them is quadratic.
    """
    now = [_fields(spec) for spec in own]
    known: dict[frozenset[str], dict[str, Fields]] = {}
    found = []
    for before in map(_fields, strays):
        cells = (index.get(_without(before, names)) for names, index in sorted(known.items(), key=_size))
        changes = next((_changes(before, cell) for cell in cells if cell is not None), None)
        if changes is None:
            changes = min((_changes(before, cell) for cell in now), key=len)
            names = frozenset(changes)
            known[names] = {_without(cell, names): cell for cell in reversed(now)}  # the first of those alike
        found.append(_text(changes))
    return found


def _fields(spec: RunSpec) -> Fields:
    left_out = ("seed", *results.MEMBERSHIPS)
    return {name: value for name, value in fields(spec).items() if value is not None and name not in left_out}


def _size(index: tuple[frozenset[str], object]) -> int:
    return len(index[0])


def _without(cell: Fields, names: frozenset[str]) -> str:
    return json.dumps(plain({name: value for name, value in cell.items() if name not in names}), sort_keys=True)


def _changes(before: Fields, now: Fields) -> dict[str, str]:
    """By name, the fields that differ."""
    names = {**before, **now}
    return {n: f"{n}: {before.get(n)} -> {now.get(n)}" for n in names if before.get(n) != now.get(n)}


def _text(changes: Mapping[str, str]) -> str:
    return ", ".join([*changes.values()][:NAMED]) + (" and more" if len(changes) > NAMED else "")
