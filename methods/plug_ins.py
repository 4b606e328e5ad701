"""Plug-ins: what users add under a name of their own, by registering it or in an installed package.

There is one `PlugIns` for each kind: here for methods, in `benchmark` for models, data sets and
suites. It reads names without importing the plug-ins.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import re
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_digests: weakref.WeakKeyDictionary[ModuleType, str] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class PlugIn:
    """One plug-in.

    path: `package.module:attribute`, or `package.module` where the kind allows a whole module.
    distribution: the installed package with its version, such as `their-package 1.0`; empty for a
    registered plug-in.
    """

    path: str
    distribution: str = ""


class PlugIns:
    """The plug-ins of one kind, by name.

    kind: a word for messages, such as `method`. group: the entry-point group of installed packages.
    own: returns the path of this project's own method, model … of a name, or None; a plug-in never
    replaces these. form: what a path looks like, for messages. whole_module: whether a path may
    also name a whole module.
    """

    def __init__(
        self,
        kind: str,
        *,
        group: str,
        own: Callable[[str], str | None],
        form: str = "package.module:Class",
        whole_module: bool = False,
    ) -> None:
        self._kind, self._group, self._own, self._form, self._whole_module = kind, group, own, form, whole_module
        self._registered: dict[str, str] = {}

    def register(self, name: str, path: str) -> None:
        """Make what is at `path` available under a name, in this process.

        Raises ValueError where the name belongs to another path or cannot be part of a file's name,
        and where the path does not have the expected form.
        """
        if problem := _name_problem(name):
            raise ValueError(f"{self._kind} {name!r:.120}: {problem}")
        if not self._is_path(path):
            raise ValueError(f"'{path}' is not of the form '{self._form}'")
        installed = [f"{found.path} of {found.distribution}" for found in self._installed(name) if found.path != path]
        registered = self._registered.get(name, path)
        others = [self._own(name), *([] if registered == path else [registered]), *installed]
        if other := next((other for other in others if other not in (None, path)), None):
            raise ValueError(f"{self._kind} '{name}' is {other} already: choose another name")
        self._registered[name] = path

    @contextlib.contextmanager
    def temporary(self) -> Iterator[None]:
        """What is registered inside the `with` block is forgotten after it."""
        before = dict(self._registered)
        try:
            yield
        finally:
            self._registered = before

    def names(self) -> list[str]:
        """The names of all plug-ins, including those that cannot be loaded."""
        return sorted({*self._registered, *(name for name, found in self._entry_points() if not self._hidden(name))})

    def find(self, name: str) -> PlugIn | None:
        """The plug-in of a name; None if there is none.

        Raises ValueError if two installed packages have one of that name.
        """
        if name in self._registered:
            return PlugIn(self._registered[name])
        found = [] if self._hidden(name) else self._installed(name)
        if len(found) > 1:
            packages = " and ".join(plug_in.distribution for plug_in in found)
            raise ValueError(f"{self._kind} '{name}' is in several installed packages, {packages}: keep one of them")
        return found[0] if found else None

    def load(self, name: str) -> Any:
        """What a plug-in's path leads to; None if there is no plug-in of that name.

        Raises ValueError if it cannot be loaded.
        """
        plug_in = self.find(name)
        if plug_in is None:
            return None
        where = f"{plug_in.path} of {plug_in.distribution}" if plug_in.distribution else plug_in.path
        if not self._is_path(plug_in.path):
            raise ValueError(f"{self._kind} '{name}': {where} is not of the form '{self._form}'")
        module_name, _, attribute = plug_in.path.partition(":")
        try:
            module = importlib.import_module(module_name)
            sha256(module)
            return functools.reduce(getattr, attribute.split("."), module) if attribute else module
        except (Exception, SystemExit) as error:  # whatever importing it raises
            raise ValueError(f"{self._kind} '{name}' cannot be loaded from {where}: {_text(error)}") from error

    def describe(self, load: Callable[[str], Any] | None = None) -> dict[str, str]:
        """The first line of each plug-in's docstring, or what is wrong with the plug-in.

        Imports all of them. load: a function that loads and checks one, in place of `self.load`. An
        entry point whose name is taken or not valid is listed as `'name' of package version`.
        """
        found = {}
        for name in self.names():
            try:
                found[name] = first_line((load or self.load)(name))
            except ValueError as error:
                found[name] = f"cannot be used: {error}"
        for name, plug_in in self._entry_points():
            if problem := self._hidden(name):
                found[f"{name!r} of {plug_in.distribution}"] = f"cannot be used: {self._kind} '{name}': {problem}"
        return found

    def origin(self, name: str) -> str:
        """Where a plug-in comes from: its package and version, and its file with the SHA-256.

        Empty for names that are not plug-ins. The checksum is that of the file when it was loaded.
        Raises ValueError if the plug-in cannot be loaded.
        """
        plug_in = self.find(name)
        if plug_in is None:
            return ""
        module = module_of(self.load(name)) or sys.modules[plug_in.path.partition(":")[0]]
        return ", ".join(filter(None, [plug_in.distribution, sha256(module)]))

    def _is_path(self, path: str) -> bool:
        parts = path.split(":") if isinstance(path, str) else [""]
        return all(parts) and (len(parts) == 2 or (len(parts) == 1 and self._whole_module))

    def _hidden(self, name: str) -> str:
        """Why an entry point of this name is not used; empty if it is."""
        if own := self._own(name):
            return f"its name is that of {own}"
        return _name_problem(name)

    def _installed(self, name: str) -> list[PlugIn]:
        return [plug_in for other, plug_in in self._entry_points() if other == name]

    def _entry_points(self) -> tuple[tuple[str, PlugIn], ...]:
        return _entry_points(self._group, tuple(sys.path))


@functools.lru_cache(maxsize=32)
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[tuple[str, PlugIn], ...]:
    """(name, plug-in) of all packages. Cached, because it opens every package's metadata."""
    points = importlib.metadata.entry_points(group=group)
    owners = [(point, point.dist) for point in points]
    return tuple(
        (
            point.name,
            PlugIn(point.value.partition("[")[0].strip(), f"{dist.name} {dist.version}" if dist else "a package"),
        )
        for point, dist in owners
    )


def module_of(found: Any) -> ModuleType | None:
    """The module that defines a class, a function or an object of a class; a module is its own."""
    if isinstance(found, ModuleType):
        return found
    name = getattr(found, "__module__", None)
    return sys.modules.get(name) if isinstance(name, str) else None


def innermost(error: BaseException, part_of: Callable[[FrameType], str]) -> tuple[str, str]:
    """The part that raised an error, and the place: ("method 'mine'", "after_step (mine.py, line 31)").

    part_of: the part that a frame belongs to, or an empty text. Both texts are empty if no frame
    belongs to a part.
    """
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if part := part_of(frame):
            code = frame.f_code
            return part, f"{code.co_name} ({Path(code.co_filename).name}, line {line})"
    return "", ""


def sha256(module: ModuleType) -> str:
    """`file.py, SHA-256 …` of a module's file as it was when this was first called; empty without a file."""
    if module not in _digests:
        file = getattr(module, "__file__", None)
        content = Path(file).read_bytes() if file is not None and Path(file).is_file() else None
        text = "" if content is None else f"{Path(str(file)).name}, SHA-256 {hashlib.sha256(content).hexdigest()}"
        _digests[module] = text
    return _digests[module]


def first_line(found: Any) -> str:
    """The first line of the docstring of a class, a function, a module or an object."""
    return (getattr(found, "__doc__", None) or "").strip().partition("\n")[0]


def _name_problem(name: str) -> str:
    if isinstance(name, str) and NAME.fullmatch(name) and name not in (".", ".."):
        return ""
    return "its name must be 1 to 100 of the characters A-Z a-z 0-9 . _ -"


def _text(error: BaseException) -> str:
    """The error's text in one line, or the name of its type if it has none."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # the plug-in's own class may raise
        text = ""
    return text or type(error).__name__
