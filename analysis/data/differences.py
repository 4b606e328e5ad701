"""The fields in which two specs differ, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SECTIONS = ("data", "model", "method", "optimizer")
TITLES = {"standardize True": "standardised inputs", "standardize False": "inputs not standardised"}


def differences(spec: Mapping[str, Any], other: Mapping[str, Any], *, without: tuple[str, ...] = ()) -> Iterator[str]:
    """Each field in which a spec differs from the other: `epochs 40`. without: fields to leave out."""
    pairs = [(spec.get(section, {}), other.get(section, {})) for section in SECTIONS]
    rest = [{name: value for name, value in tree.items() if name not in SECTIONS} for tree in (spec, other)]
    for own, theirs in [*pairs, (rest[0], rest[1])]:
        for name in {**theirs, **own}:
            if name not in without and own.get(name) != theirs.get(name):
                text = f"{name} {short(own.get(name))}"
                yield TITLES.get(text) or text.removeprefix("name ").replace("_", " ")


def short(value: Any) -> str:
    """A hyperparameter's value; the numbers of a list with three digits."""
    return f"({', '.join(f'{item:.3g}' for item in value)})" if isinstance(value, list) else str(value)
