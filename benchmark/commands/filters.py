"""`--where`: which cells a filter leaves, by their spec and their results row."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from benchmark.results import COLUMNS, MEMBERSHIPS, SEPARATOR, Row
from benchmark.spec import RunSpec, SpecError, fields

MOST_NEAR = 5
MOST_PRESENT = 20


def select(table: Sequence[tuple[RunSpec, Row]], where: Sequence[str]) -> list[tuple[RunSpec, Row]]:
    """The cells that every filter `FIELD=v,w` leaves.

    FIELD is any results column or dotted spec field, or the last part of only one of these. Commas
    mean or; numbers compare as floats, or as labels print them where no cell has the value itself;
    `nan` matches empty; a list is written as its values joined by "-", `8-8-16`. Raises SpecError
    for an unknown field, a value that no cell has, and filters that leave nothing.
    """
    dotted = {id(spec): fields(spec) for spec, _ in table} if where else {}
    known = {*COLUMNS, *(key for inner in dotted.values() for key in inner)}
    chosen = set(range(len(table)))
    for condition in where:
        written, equals, values = condition.partition("=")
        if not equals:
            raise SpecError(f"--where {condition}: write FIELD=value, such as method=dst")
        name = whole_name(written, known)
        if name not in known:
            raise SpecError(f"--where {condition}: unknown field '{written}': {_near(written, known)}")
        column = [_value(spec, entry, dotted, name) for spec, entry in table]
        found = {value: _places(column, value, name) for value in values.split(",")}
        for value in [value for value, places in found.items() if not places]:
            raise SpecError(f"--where {name}={value}: {_absent(column, name, known)}")
        chosen &= set().union(*found.values())
    if not chosen:
        raise SpecError(f"no cell is left by {' '.join(f'--where {condition}' for condition in where)}")
    return [cell for place, cell in enumerate(table) if place in chosen]


def whole_name(name: str, known: Collection[str]) -> str:
    """The only field with this last part, such as optimizer.lr for lr; the name as it is without one."""
    ends = [key for key in known if key.endswith(f".{name}")]
    return ends[0] if name not in known and len(ends) == 1 else name


def _near(name: str, known: Collection[str]) -> str:
    """Fields that an unknown name may mean, and where all of them are listed."""
    last = name.rpartition(".")[2]
    ends = sorted(key for key in known if key.endswith(f".{last}"))
    near = list(dict.fromkeys([*difflib.get_close_matches(name, sorted(known), n=MOST_NEAR), *ends]))[:MOST_NEAR]
    hint = f"did you mean {' or '.join(repr(key) for key in near)}? " if near else ""
    return f"{hint}valid are the columns of results.csv and the dotted fields of a spec (docs/reproducibility.md)"


def _places(column: Sequence[Any], wanted: str, name: str) -> set[int]:
    """The places of cells with this value, or, where no cell has it, with a value that labels print so."""
    exact = {place for place, value in enumerate(column) if _has(value, wanted, name)}
    return exact or {place for place, value in enumerate(column) if value and _printed(value) == wanted}


def _absent(column: Sequence[Any], name: str, known: Collection[str]) -> str:
    """Why no cell has a value: what is there instead."""
    present = sorted({text for value in column for text in _texts(value, name)}, key=_order)
    if present == ["nan"]:
        in_specs = [key for key in sorted(known) if key.endswith(f".{name}")]
        return f"{name} is empty in every cell" + (f"; did you mean '{in_specs[0]}'?" if in_specs else "")
    more = f" and {len(present) - MOST_PRESENT} more" if len(present) > MOST_PRESENT else ""
    return f"no cell has that value; present: {', '.join(present[:MOST_PRESENT])}{more}"


def _order(text: str) -> tuple[bool, float, str]:
    """Numbers by size, then texts."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    return math.isnan(value), 0.0 if math.isnan(value) else value, text


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


def _printed(value: Any) -> str:
    """A number, or the numbers of a list, as labels print them."""
    if isinstance(value, (list, tuple)):
        return "-".join(map(_printed, value))
    return f"{value:g}" if isinstance(value, float) else _part(value)


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
