"""Methods by name: ours, those registered at run time, and those of installed plug-ins. No torch."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import types
import typing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from methods.base import Method

ENTRY_POINTS = "sparse_training.methods"
_OURS = {
    "dense": ("methods.algorithms.dense:Dense", "Keeps every weight."),
    "dsr": (
        "methods.algorithms.dsr:DSR",
        "Drops weights below one adaptive global threshold and moves them to where most survive.",
    ),
    "dst": (
        "methods.algorithms.dst:DST",
        "Learns a pruning threshold for each neuron or filter, together with the weights.",
    ),
    "set": (
        "methods.algorithms.set:SET",
        "Drops the weights nearest to zero after each epoch and grows as many at random places.",
    ),
    "sparse_momentum": (
        "methods.algorithms.sparse_momentum:SparseMomentum",
        "Moves weights to the layers, and grows them at the places, where the momentum is largest.",
    ),
    "static": ("methods.algorithms.static:Static", "Trains a random sparse network whose mask never changes."),
}
_paths: dict[str, str] = {name: path for name, (path, _) in _OURS.items()}


def available() -> list[str]:
    """Names of all methods: ours, registered ones and plug-ins' (entry points sparse_training.methods)."""
    return sorted({*_paths, *_installed()})


def describe() -> dict[str, str]:
    """Each method with the first line of its docstring, or what is wrong with it. Imports plug-ins alone."""
    found = {}
    for name in available():
        try:
            found[name] = _OURS[name][1] if name in _OURS else first_line(method_class(name))
        except ValueError as error:
            found[name] = f"cannot be used: {error}"
    return found


def first_line(cls: type[Method]) -> str:
    """Of a method's docstring."""
    return (cls.__doc__ or "").strip().partition("\n")[0]


def register(name: str, path: str) -> None:
    """Make `package.module:Class` available under a name.

    Raises ValueError where the name is taken by another path or the path has no colon.
    """
    if path.count(":") != 1:
        raise ValueError(f"'{path}' is not of the form 'package.module:Class'")
    if _paths.get(name, path) != path:
        raise ValueError(f"method '{name}' is {_paths[name]} already: choose another name")
    _paths[name] = path


def method_class(name: str) -> type[Method]:
    """The class behind a name. Raises ValueError with the valid names, or with what is wrong with the class."""
    from methods.base import Method

    path = _paths.get(name) or _installed().get(name)
    if path is None:
        raise ValueError(f"unknown method '{name}': {_nearest(name, available())}")
    module_name, _, attribute = path.partition(":")
    try:
        cls = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"method '{name}' cannot be loaded from {path}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise ValueError(f"method '{name}': {path} is no subclass of methods.Method")
    for required in ("name", "version", "reference", "density_promise"):
        if not hasattr(cls, required):
            raise ValueError(f"method '{name}': {path} lacks the class attribute '{required}'")
    return cls


def create(name: str, **hyperparameters: Any) -> Method:
    """A method by name, its hyperparameters checked.

    Raises ValueError for an unknown name or hyperparameter (with the valid ones), or a bad value.
    """
    cls = method_class(name)
    valid = cls.hyperparameter_names()
    for key in hyperparameters:
        if key not in valid:
            raise ValueError(f"{name} has no hyperparameter '{key}': {_nearest(key, valid)}")
    hints = typing.get_type_hints(cls.__init__)
    values = {key: _typed(name, key, value, hints.get(key)) for key, value in hyperparameters.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


def _installed() -> dict[str, str]:
    """Name to path of installed plug-ins. Slow: it reads every installed distribution."""
    return {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _typed(method: str, key: str, value: Any, hint: Any) -> Any:
    """The value, checked against plain types and their unions; an int serves for a float, a list for a tuple."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = [typing.get_origin(kind) or kind for kind in (typing.get_args(hint) if union else (hint,))]
    plain = [kind for kind in kinds if isinstance(kind, type) and kind is not Any]
    if isinstance(value, list) and tuple in plain and list not in plain:
        return tuple(value)
    stray_bool = isinstance(value, bool) and bool not in plain
    if len(plain) < len(kinds) or (isinstance(value, tuple(plain)) and not stray_bool):
        return value
    if float in plain and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    names = " or ".join("none" if kind is type(None) else kind.__name__ for kind in plain)
    raise ValueError(f"{method}: {key} is {value!r}: it must be {names}")


def _nearest(name: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}valid: {', '.join(valid) or 'none'}"
