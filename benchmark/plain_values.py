"""Values of a spec as plain Python values: numbers of NumPy converted, dataclasses as dictionaries."""

from __future__ import annotations

import dataclasses
import functools
import operator
import types
import typing
from collections.abc import Mapping
from typing import Any


def tuples(value: Any) -> Any:
    """A list of JSON as a tuple; any other value as it is."""
    return tuple(value) if isinstance(value, list) else value


def native(value: Any) -> Any:
    """The value with scalars of NumPy, and arrays of one number, as Python's numbers.

    A value without any is returned itself.
    """
    if getattr(value, "ndim", None) == 0:
        return value.item()
    if isinstance(value, (list, tuple)):
        items = [native(item) for item in value]
        return value if all(map(operator.is_, items, value)) else type(value)(items)
    if isinstance(value, dict):
        return {**value, **changed} if (changed := _converted(value)) else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **changed) if (changed := _converted(vars(value))) else value
    return value


def _converted(inner: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that `native` changes, as changed."""
    return {name: new for name, old in inner.items() if (new := native(old)) is not old}


def plain(value: Any) -> Any:
    """The value for JSON: dataclasses and mappings as dictionaries, without fields that are None."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if not dataclasses.is_dataclass(value):
        return value
    kind: Any = type(value)
    pairs = ((name, getattr(value, name), float in bases) for name, bases in types_of(kind).items())
    return {name: plain(float(v) if is_float else v) for name, v, is_float in pairs if v is not None}


@functools.cache
def types_of(kind: type) -> dict[str, tuple[type, ...]]:
    """field -> the types that its value may have."""
    return {name: _bases(hint) for name, hint in typing.get_type_hints(kind).items()}


def _bases(hint: Any) -> tuple[type, ...]:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(typing.get_origin(option) or option for option in options)
