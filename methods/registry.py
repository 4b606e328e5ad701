"""Methods by name: those in `methods.algorithms`, registered ones, and installed plug-ins.

Listing and describing methods imports neither torch nor the methods.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import importlib.metadata
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from methods.base import Method

ENTRY_POINTS = "sparse_training.methods"
ALGORITHMS = Path(__file__).with_name("algorithms")
NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


class Registry:
    """Names of methods, and the `package.module:Class` behind each.

    algorithms: a folder in which each file defines the method of its name.
    """

    def __init__(self, algorithms: Path = ALGORITHMS) -> None:
        self._files = {file.stem: file for file in algorithms.glob("[!_]*.py")}
        self._registered: dict[str, str] = {}

    def available(self) -> list[str]:
        """The names of all methods: of this package, registered, and of installed plug-ins.

        A plug-in has an entry point in the group sparse_training.methods.
        """
        return sorted({*self._files, *self._registered, *_installed()})

    def describe(self) -> dict[str, str]:
        """Each method with the first line of its docstring, or with what is wrong with it.

        Only registered methods and plug-ins are imported for this.
        """
        found = {}
        for name in self.available():
            try:
                found[name] = (
                    _read(self._files[name])[1] if name in self._files else first_line(self.method_class(name))
                )
            except ValueError as error:
                found[name] = f"cannot be used: {error}"
        return found

    def register(self, name: str, path: str) -> None:
        """Make `package.module:Class` available under a name.

        Raises ValueError where the name is taken by another path or cannot be in the name of a
        file, and where the path has no colon.
        """
        if not NAME.fullmatch(name) or name in (".", ".."):
            raise ValueError(f"method {name!r:.120}: its name must be 1 to 100 of the characters A-Z a-z 0-9 . _ -")
        if path.count(":") != 1:
            raise ValueError(f"'{path}' is not of the form 'package.module:Class'")
        if (other := self._path(name) or path) != path:
            raise ValueError(f"method '{name}' is {other} already: choose another name")
        self._registered[name] = path

    @contextlib.contextmanager
    def temporary(self) -> Iterator[None]:
        """What is registered inside the `with` block is forgotten after it."""
        before = dict(self._registered)
        try:
            yield
        finally:
            self._registered = before

    def method_class(self, name: str) -> type[Method]:
        """The class behind a name.

        Raises ValueError for an unknown name, with the valid ones, and for a class that cannot be
        used.
        """
        from methods.base import Method

        path = self._path(name) or _installed().get(name)
        if path is None:
            raise ValueError(f"unknown method '{name}': {_nearest(name, self.available())}")
        module_name, _, attribute = path.partition(":")
        try:
            cls = getattr(importlib.import_module(module_name), attribute)
        except Exception as error:  # whatever importing it raises
            raise ValueError(f"method '{name}' cannot be loaded from {path}: {error}") from error
        if not (isinstance(cls, type) and issubclass(cls, Method)):
            raise ValueError(f"method '{name}': {path} is no subclass of methods.Method")
        for required in ("name", "version", "reference", "density_promise"):
            if not hasattr(cls, required):
                raise ValueError(f"method '{name}': {path} lacks the class attribute '{required}'")
        return cls

    def create(self, name: str, **hyperparameters: Any) -> Method:
        """A method by name, with these hyperparameters.

        Raises ValueError for an unknown name or hyperparameter, with the valid ones, and for a
        value that is of another type or out of range.
        """
        cls = self.method_class(name)
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

    def _path(self, name: str) -> str | None:
        """The path of a method of this package or of a registered method."""
        if name in self._files:
            return f"methods.algorithms.{name}:{_read(self._files[name])[0]}"
        return self._registered.get(name)


_registry = Registry()  # of this process
available = _registry.available
create = _registry.create
describe = _registry.describe
method_class = _registry.method_class
register = _registry.register
temporary = _registry.temporary


def first_line(cls: type[Method]) -> str:
    """The first line of a method's docstring."""
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _read(file: Path) -> tuple[str, str]:
    """The class whose `name` is the file's and the first line of its docstring, not imported.

    Raises ValueError where the file defines no such class.
    """
    wanted = f"name = {file.stem!r}"
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and wanted in map(ast.unparse, node.body):
            return node.name, (ast.get_docstring(node) or "").partition("\n")[0]
    raise ValueError(f"{file} defines no class with {wanted}")


def _installed() -> dict[str, str]:
    """Names and paths of installed plug-ins. Slow: reads every installed distribution."""
    return {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def native(value: Any) -> Any:
    """The value with scalars of NumPy, and arrays and tensors of one number, as Python's numbers.

    A number keeps its value: np.float32(1e-3) becomes 0.0010000000474974513.
    """
    if isinstance(value, (list, tuple)):
        return type(value)([native(item) for item in value])
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _typed(method: str, key: str, value: Any, hint: Any) -> Any:
    """The value, checked against plain types and their unions.

    An int is accepted for a float and converted; so is a list for a tuple.
    """
    value = native(value)
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
