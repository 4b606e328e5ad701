"""Names of cells for people, from the fields in which the cells that are shown together differ."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmark.spec import RunSpec, fields

ALWAYS = ("model.widths", "method.alpha", "density", "precision", "protocol")
NO_DISTINCTION = ("model.name", "method.name", "seed", "departs")

Fields = Mapping[str, Any]


def labels(specs: Iterable[RunSpec], *, always: Iterable[str] = ()) -> dict[str, str]:
    """run id -> model, method, what distinguishes the cell from the others, and seed.

    always: more dotted fields that are shown wherever a cell has them.
    """
    listed = list(specs)
    told = distinctions(listed, always=always)
    return {spec.run_id: _label(spec, told[spec.run_id]) for spec in listed}


def distinctions(specs: Iterable[RunSpec], *, always: Iterable[str] = ()) -> dict[str, dict[str, str]]:
    """run id -> the fields, by short names, that distinguish a cell from others of its model and method.

    Always shown are alpha, density, widths, a precision other than float32 and a single protocol.
    Hyperparameters, and several protocols, are shown where cells differ in them. If two cells would
    still look alike, the other fields in which they differ are shown too, except at their most
    common value. Values that would read the same are shown in full. always: as in `labels`.
    """
    shown = tuple(dict.fromkeys((*ALWAYS, *always)))
    groups: dict[tuple[str, str], dict[str, Fields]] = collections.defaultdict(dict)
    for spec in specs:
        groups[spec.model.name, str(spec.method["name"])][spec.run_id] = fields(spec)
    found: dict[str, dict[str, str]] = {}
    for group in groups.values():
        cells = list(group.values())
        own, varying = _own(cells, shown), _varying(cells)
        others = {name: _most_common(name, cells) for name in _others(cells, own)}
        alike = {name for name in varying if len({_text(c.get(name)) for c in cells}) < len(_values(name, cells))}
        for run_id, cell in group.items():
            names = [name for name in own if _is_told(name, cell, varies=name in varying)]
            names += [name for name, usual in others.items() if cell.get(name) != usual]
            found[run_id] = {_short(name): _text(cell.get(name), exact=name in alike) for name in names}
    return found


def _label(spec: RunSpec, told: Mapping[str, str]) -> str:
    given = (f"{name}={value}" for name, value in told.items())
    return " ".join([spec.model.name, str(spec.method["name"]), *given, f"seed={spec.seed}"])


def _own(cells: Sequence[Fields], always: Sequence[str]) -> list[str]:
    """The fields that are always shown, and the hyperparameters in which the cells differ."""
    hyperparameters = [name for name in _varying(cells) if name.startswith("method.") and name not in always]
    return [*always, *hyperparameters]


def _others(cells: Sequence[Fields], own: Sequence[str]) -> list[str]:
    """The other fields without which two cells would look alike."""
    shown = [*own, "seed"]
    for name in _varying(cells):
        if name not in shown and any(len(_values(name, some)) > 1 for some in _alike(cells, shown)):
            shown.append(name)
    return shown[len(own) + 1 :]


def _varying(cells: Sequence[Fields]) -> list[str]:
    names = dict.fromkeys(name for cell in cells for name in cell)
    return [name for name in names if name not in NO_DISTINCTION and len(_values(name, cells)) > 1]


def _values(name: str, cells: Iterable[Fields]) -> set[str]:
    return {repr(cell.get(name)) for cell in cells}


def _most_common(name: str, cells: Iterable[Fields]) -> Any:
    return collections.Counter(cell.get(name) for cell in cells).most_common(1)[0][0]


def _alike(cells: Sequence[Fields], names: Sequence[str]) -> list[list[Fields]]:
    """The cells that have equal values of these fields, two or more at a time."""
    groups: dict[tuple[str, ...], list[Fields]] = collections.defaultdict(list)
    for cell in cells:
        groups[tuple(repr(cell.get(name)) for name in names)].append(cell)
    return [group for group in groups.values() if len(group) > 1]


def _is_told(name: str, cell: Fields, *, varies: bool) -> bool:
    value = cell.get(name)
    if name == "protocol":
        return varies or len(cell[name]) == 1
    if value is None and name.startswith("method."):
        return varies and name in cell
    return value is not None and (name, value) != ("precision", "float32")


def _short(name: str) -> str:
    section, _, field = name.rpartition(".")
    return section if field == "name" else field


def _text(value: Any, *, exact: bool = False) -> str:
    if exact:
        return str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if value is None or value == ():
        return "none"
    return "-".join(map(_text, value)) if isinstance(value, (list, tuple)) else str(value)
