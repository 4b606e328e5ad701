"""Methods by name: those in `methods.algorithms`, registered ones, and installed plug-ins.

Listing methods imports neither torch nor the methods; describing them imports only plug-ins.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.plug_ins import PlugIns

if TYPE_CHECKING:
    from methods.base import Method

ENTRY_POINTS = "sparse_training.methods"
ALGORITHMS = Path(__file__).with_name("algorithms")


class Registry:
    """Names of methods, and the `package.module:Class` behind each.

    algorithms: a folder in which each file defines the method of its name.
    """

    def __init__(self, algorithms: Path = ALGORITHMS) -> None:
        self._files = {file.stem: file for file in algorithms.glob("[!_]*.py")}
        self.plug_ins = PlugIns(
            "method", group=ENTRY_POINTS, own=lambda name: self._path(name) if name in self._files else None
        )
        self.register = self.plug_ins.register
        self.temporary = self.plug_ins.temporary

    def own(self) -> list[str]:
        """The names of this package's methods."""
        return sorted(self._files)

    def available(self) -> list[str]:
        """The names of all methods: of this package, registered, and of installed plug-ins.

        A plug-in has an entry point in the group sparse_training.methods.
        """
        return sorted({*self._files, *self.plug_ins.names()})

    def describe(self) -> dict[str, str]:
        """Each method with the first line of its docstring, or with what is wrong with it.

        Only registered methods and plug-ins are imported for this.
        """
        found = self.plug_ins.describe(self.method_class)
        for name, file in self._files.items():
            try:
                found[name] = _read(file)[1]
            except ValueError as error:
                found[name] = f"cannot be used: {error}"
        return dict(sorted(found.items()))

    def method_class(self, name: str) -> type[Method]:
        """The class behind a name.

        Raises ValueError for an unknown name, with the valid ones, and for a class that cannot be
        used.
        """
        from methods.base import Method, class_problem

        if not isinstance(name, str):
            raise ValueError(f"the method is {name!r:.120}: give its name, such as 'dst'")
        if name in self._files:
            path = self._path(name)
            module_name, _, attribute = path.partition(":")
            cls = getattr(importlib.import_module(module_name), attribute)
        elif plug_in := self.plug_ins.find(name):
            path, cls = plug_in.path, self.plug_ins.load(name)
        else:
            raise ValueError(f"unknown method '{name}': {_nearest(name, self.available())}")
        if not (isinstance(cls, type) and issubclass(cls, Method)):
            raise ValueError(f"method '{name}': {path} is no subclass of methods.Method")
        if problem := class_problem(cls):
            raise ValueError(f"method '{name}': {path} {problem}")
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
        try:
            return cls(**{key: typed(name, key, value, hints.get(key)) for key, value in hyperparameters.items()})
        except (TypeError, OverflowError) as error:
            raise ValueError(f"{name}: {error}") from error

    def _path(self, name: str) -> str:
        """The path of a method of this package."""
        return f"methods.algorithms.{name}:{_read(self._files[name])[0]}"


_registry = Registry()  # of this process
available = _registry.available
create = _registry.create
describe = _registry.describe
method_class = _registry.method_class
own = _registry.own
plug_ins = _registry.plug_ins
register = _registry.register
temporary = _registry.temporary


@functools.cache
def _read(file: Path) -> tuple[str, str]:
    """The class whose `name` is the file's and the first line of its docstring, not imported.

    Raises ValueError where the file defines no such class.
    """
    wanted = f"name = {file.stem!r}"
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and wanted in map(ast.unparse, node.body):
            return node.name, (ast.get_docstring(node) or "").partition("\n")[0]
    raise ValueError(f"{file} defines no class with {wanted}")


def native(value: Any) -> Any:
    """The value with scalars of NumPy, and arrays and tensors of one number, as Python's numbers.

    A number keeps its value: np.float32(1e-3) becomes 0.0010000000474974513.
    """
    if isinstance(value, (list, tuple)):
        return type(value)([native(item) for item in value])
    return value.item() if getattr(value, "ndim", None) == 0 else value


def typed(method: str, key: str, value: Any, hint: Any) -> Any:
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
