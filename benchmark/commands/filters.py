"""`--where`: which cells a filter leaves, by their spec and their results row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.results import COLUMNS, MEMBERSHIPS, SEPARATOR, Row
from benchmark.spec import RunSpec, SpecError, fields, nearest


def select(table: Sequence[tuple[RunSpec, Row]], where: Sequence[str]) -> list[tuple[RunSpec, Row]]:
    """The cells that every filter `FIELD=v,w` leaves.

    FIELD is any results column or dotted spec field. Commas mean or; numbers compare as floats;
    `nan` matches empty; a list is written as its values joined by "-", `8-8-16`. Raises SpecError
    for an unknown field, a value that no cell has, and filters that leave nothing.
    """
    dotted = {id(spec): fields(spec) for spec, _ in table} if where else {}
    chosen = list(table)
    for condition in where:
        name, equals, values = condition.partition("=")
        known = {*COLUMNS, *(key for inner in dotted.values() for key in inner)}
        if not equals:
            raise SpecError(f"--where {condition}: write FIELD=value, such as method=dst")
        if name not in known:
            raise SpecError(f"--where {condition}: unknown field '{name}': {nearest(name, known)}")
        for value in values.split(","):
            if not any(_has(_value(spec, entry, dotted, name), value, name) for spec, entry in table):
                present = sorted({text for s, e in table for text in _texts(_value(s, e, dotted, name), name)})
                if present == ["nan"]:
                    in_specs = [key for key in sorted(known) if key.endswith(f".{name}")]
                    hint = f"; did you mean '{in_specs[0]}'?" if in_specs else ""
                    raise SpecError(f"--where {name}={value}: {name} is empty in every cell{hint}")
                raise SpecError(f"--where {name}={value}: no cell has that value; present: {', '.join(present[:20])}")
        chosen = [
            (spec, entry)
            for spec, entry in chosen
            if any(_has(_value(spec, entry, dotted, name), value, name) for value in values.split(","))
        ]
    if not chosen:
        raise SpecError(f"no cell is left by {' '.join(f'--where {condition}' for condition in where)}")
    return chosen


def rows_left(table: Sequence[tuple[RunSpec, Row]], where: Sequence[str]) -> list[Row]:
    """The rows of the cells that `select` leaves; all of them without a filter."""
    return [entry for _, entry in (select(table, where) if where else table)]


def _value(spec: RunSpec, entry: Row, dotted: Mapping[int, Mapping[str, Any]], name: str) -> Any:
    return entry[name] if name in entry else dotted[id(spec)].get(name)


def _texts(value: Any, name: str) -> list[str]:
    if name in MEMBERSHIPS and value:
        return str(value).split(SEPARATOR)
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, (list, tuple)) and value:
        return ["-".join(map(_part, value))]  # as labels print it; a comma separates the filter's values
    return ["nan" if value in ("", None, (), []) else str(value)]


def _part(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _has(value: Any, wanted: str, name: str) -> bool:
    if wanted in _texts(value, name):
        return True
    if isinstance(value, bool):
        return wanted.lower() == str(value).lower()
    if not isinstance(value, (int, float)):
        return False
    try:
        return math.isclose(value, float(wanted), rel_tol=1e-12)
    except ValueError:
        return False
