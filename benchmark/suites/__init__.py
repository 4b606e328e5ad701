"""Suites: named lists of cells.

A suite is a function that returns specs, in a file of its own; files in this folder are found by
name. A suite's module defines `DESCRIPTION`, `EXHIBITS` (names of the tables and figures it feeds)
and `suite() -> list[RunSpec]`. A file of the user's own, or a module of an installed package with
an entry point in the group sparse_training.suites, defines `suite()` and may define the others.
torch is imported only when a suite is expanded, as method defaults come from `methods`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.abc
import importlib.util
import itertools
import pkgutil
import re
import site
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import methods
from benchmark.messages import one_line, shown
from benchmark.plain_values import tuples
from benchmark.spec import (
    Data,
    Model,
    Optimizer,
    RunSpec,
    SpecError,
    check_file_name,
    check_names,
    check_schedule,
    fields,
    in_both,
    nearest,
    replace_fields,
    unknown,
)
from benchmark.terminal import OutputError
from methods.plug_ins import PlugIns, first_line, sha256
from methods.registry import method_class

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))  # a suite per file
BOTH_PROTOCOLS = ("paper", "official")
PROTOCOL = re.compile(r"[A-Za-z0-9._-]+")
MOST_CELLS = 100_000
plug_ins = PlugIns(
    "suite",
    group="sparse_training.suites",
    own=lambda name: f"benchmark.suites.{name}" if name in NAMES else None,
    form="package.module",
    whole_module=True,
)


@dataclass(frozen=True)
class Suite:
    """An expanded suite.

    plugin: what else defines it, which workers load again: the user's file, or the module of an
    installed package; None for the suites of this package. own: the cells without --seeds and --set.
    listed: what suite() returned, where a cell may be repeated.
    """

    name: str
    description: str
    exhibits: tuple[str, ...]
    specs: tuple[RunSpec, ...]
    plugin: Path | str | None = None
    own: tuple[RunSpec, ...] = ()
    listed: tuple[RunSpec, ...] = ()


def available() -> list[str]:
    """The names of the suites of this package and of installed ones."""
    return sorted({*NAMES, *plug_ins.names()})


def describe() -> dict[str, tuple[str, tuple[str, ...]]]:
    """name -> (description, exhibits), without expanding anything; plug-ins are imported for it."""
    texts = dict.fromkeys(NAMES, "") | plug_ins.describe(_module)
    found: dict[str, tuple[str, tuple[str, ...]]] = {name: (text, ()) for name, text in texts.items()}
    for name in found:
        with contextlib.suppress(SpecError):  # the text says what is wrong
            module = _module(name)
            found[name] = _description(module, name), _exhibits(module, name)
    return dict(sorted(found.items()))


def load(name_or_file: str) -> Suite:
    """A suite by name or by file. Raises SpecError if there is none, or if it is not valid.

    The names of this package's suites may be written with hyphens.
    """
    if (name := name_or_file.replace("-", "_")) in NAMES:
        name_or_file = name
    module = load_module(name_or_file)
    plugin: Path | str | None = None if name_or_file in NAMES else module.__name__
    name, where = name_or_file, f"suite {name_or_file}"
    if name_or_file.endswith(".py"):
        plugin = Path(name_or_file).resolve()
        name, where = plugin.stem, f"suite file {plugin}"
    check_file_name(name, f"the name of suite {name_or_file}")
    specs = merged(listed := _cells(module, where))
    if not specs:
        raise SpecError(f"suite {name} has no cells")
    return Suite(name, _description(module, where), _exhibits(module, where), specs, plugin, specs, tuple(listed))


def load_module(name_or_file: str) -> ModuleType:
    """The module of a suite, which may register plug-ins; not expanded. Raises SpecError."""
    if name_or_file.endswith(".py"):
        return load_file(Path(name_or_file).resolve())
    if name_or_file not in available():
        raise unknown("suite", name_or_file, available(), form="FILE.py")
    return _module(name_or_file)


def load_plugin(plugin: Path | str) -> None:
    """Load a suite's file or module in a worker, so that what it registers is known there.

    Raises SpecError.
    """
    if isinstance(plugin, Path):
        load_file(plugin)
        return
    try:
        importlib.import_module(plugin)
    except (Exception, SystemExit) as error:
        raise SpecError(f"module {plugin} of the suite cannot be loaded here: {_text(error)}") from error


def _module(name: str) -> ModuleType:
    """The module of a suite of this package or of an installed one. Raises SpecError."""
    if name in NAMES:
        return importlib.import_module(f"benchmark.suites.{name}")
    try:
        module = plug_ins.load(name)
    except ValueError as error:
        raise SpecError(str(error)) from error
    if not (isinstance(module, ModuleType) and callable(getattr(module, "suite", None))):
        raise SpecError(f"suite {name}: {shown(module)} is no module with a function suite()")
    _description(module, where := f"suite {name}")
    _exhibits(module, where)
    return module


def _cells(module: ModuleType, where: str) -> list[RunSpec]:
    """What suite() returns. Raises SpecError, with the line in the user's file, if it is no list of specs."""
    try:
        returned = module.suite()
        listed = list(itertools.islice(returned, MOST_CELLS + 1)) if isinstance(returned, Iterable) else None
    except ValueError as error:
        raise SpecError(f"{where}: {_line(error, module)}{_text(error)}") from error
    except BaseException as error:
        if _is_from_outside(error):
            raise
        raise SpecError(
            f"{where}: {_line(error, module)}suite() raised {type(error).__name__}: {_text(error)}"
        ) from error
    if listed is None:
        raise SpecError(f"{where}: suite() returned {shown(returned)}, not a list of specs")
    if len(listed) > MOST_CELLS:
        raise SpecError(f"{where}: suite() returned more than {MOST_CELLS} cells")
    for spec in listed:
        if not isinstance(spec, RunSpec):
            raise SpecError(f"{where}: suite() returned {shown(spec)} as a cell: make cells with benchmark.suites.cell")
        for protocol in spec.protocol:
            if not (isinstance(protocol, str) and PROTOCOL.fullmatch(protocol)):
                raise SpecError(f"{where}: protocol {shown(protocol)} of {spec.label} is no name, such as 'paper'")
    return listed


def _description(module: ModuleType, where: str) -> str:
    description = getattr(module, "DESCRIPTION", first_line(module))
    if not isinstance(description, str):
        raise SpecError(f"{where}: DESCRIPTION is {shown(description)}, not a text")
    return description


def _exhibits(module: ModuleType, where: str) -> tuple[str, ...]:
    exhibits = getattr(module, "EXHIBITS", ())
    if not isinstance(exhibits, (list, tuple)) or not all(isinstance(name, str) for name in exhibits):
        raise SpecError(f"{where}: EXHIBITS is {shown(exhibits)}, not a tuple of names such as ('table1',)")
    return tuple(exhibits)


def _is_from_outside(error: BaseException) -> bool:
    """Whether the user or the terminal ended the command, rather than code that raises KeyboardInterrupt itself."""
    frames = traceback.extract_tb(error.__traceback__)
    interrupted = isinstance(error, KeyboardInterrupt) and "KeyboardInterrupt" not in (frames[-1].line or "")
    return interrupted or isinstance(error, OutputError)


def _text(error: BaseException) -> str:
    """All lines of an error as one, because a suite file leaves no traceback to look at."""
    try:
        text = str(error)
    except Exception:  # the user's own class may raise
        text = f"a {type(error).__name__} that has no text"
    return one_line(" ".join(text.split()))


class _Neighbours(importlib.abc.MetaPathFinder):
    """Finds the modules beside the suite file that was loaded last.

    They come before the modules of the current folder and after torch and whatever else is
    installed. Modules beside another suite file are forgotten, so that files of the same name in
    two folders do not mix.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._found: set[str] = set()

    def move(self, folder: Path) -> None:
        """Find the modules in this folder from now on, as they are in its files now."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        for name in [name for name in sys.modules if name.partition(".")[0] in self._found]:
            del sys.modules[name]
        importlib.invalidate_caches()
        self._folder, self._found = folder, set()

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if path is not None or self._folder is None or fullname in sys.stdlib_module_names:
            return None
        spec = PathFinder.find_spec(fullname, [str(self._folder)])
        if spec is None or PathFinder.find_spec(fullname, site.getsitepackages()) is not None:
            return None
        self._found.add(fullname)
        return spec


_neighbours = _Neighbours()


def load_file(path: Path, *, defines_suite: bool = True) -> ModuleType:
    """Import a user's suite file, which may register plug-ins. Raises SpecError naming the file.

    It may import the modules beside it, as `python FILE.py` could, and register a method in one of
    them as "neighbour:Class". A module with the name of an installed one is not found there.
    """
    spec = importlib.util.spec_from_file_location(f"user_suite_{path.stem}", path)
    kind = "suite file" if defines_suite else "file"
    if spec is None or spec.loader is None or not path.is_file():
        raise SpecError(f"{kind} {path} does not exist")
    module = importlib.util.module_from_spec(spec)
    sha256(module)
    sys.modules[spec.name] = module
    _neighbours.move(path.parent.resolve())
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        if _is_from_outside(error):
            raise
        raise SpecError(f"{kind} {path}: {_line(error, module)}{type(error).__name__}: {_text(error)}") from error
    if defines_suite and not callable(getattr(module, "suite", None)):
        raise SpecError(f"suite file {path} defines no function suite()")
    return module


def _line(error: BaseException, module: ModuleType) -> str:
    """The line of the suite file, or of a file beside it, where an error arose: `line 4: `, `shared.py, line 3: `.

    Empty for other files, and for a syntax error, whose text has its line.
    """
    path = Path(str(module.__file__))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent == path.parent]
    if not frames or isinstance(error, SyntaxError):
        return ""
    file = Path(frames[-1].filename)
    return f"line {frames[-1].lineno}: " if file == path else f"{file.name}, line {frames[-1].lineno}: "


def cell(
    method: str,
    *,
    data: Data,
    model: Model,
    optimizer: Optimizer,
    seed: int = 0,
    protocol: Sequence[str] = BOTH_PROTOCOLS,
    precision: str = "float32",
    step_records: int | None = None,
    **hyperparameters: Any,
) -> RunSpec:
    """A spec with the method's hyperparameters resolved (`Method.identity`).

    Raises ValueError for bad ones.
    """
    made = methods.create(method, **hyperparameters)
    identity = made.identity()
    density = identity.pop("density", None)
    spec = RunSpec(
        data=data,
        model=model,
        optimizer=optimizer,
        method={"name": method, "version": made.version, **identity},
        density=density,
        seed=seed,
        precision=precision,
        protocol=tuples(protocol),
        step_records=step_records,
    )
    check_schedule(optimizer)
    return spec


def merged(specs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
    """Each cell once, in order of first appearance, with the memberships of all its appearances."""
    found: dict[str, RunSpec] = {}
    for spec in specs:
        before = found.get(spec.run_id)
        found[spec.run_id] = spec if before is None else in_both(before, spec)
    return tuple(found.values())


def with_seeds(specs: Sequence[RunSpec], seeds: Sequence[int]) -> tuple[RunSpec, ...]:
    """The same cells with these seeds instead of their own, seed by seed."""
    return merged(dataclasses.replace(spec, seed=seed) for seed in seeds for spec in specs)


def with_fields(specs: Sequence[RunSpec], changes: Mapping[str, Any]) -> tuple[RunSpec, ...]:
    """The cells with dotted fields changed together, marked as departing.

    A method's field changes only in cells whose method has it. Raises SpecError for an unknown
    field or a value that does not fit.
    """
    for dotted in changes:
        _check_field(specs, dotted)
    return merged(_set(spec, changes) for spec in specs)


def _check_field(specs: Sequence[RunSpec], dotted: str) -> None:
    section, _, name = dotted.partition(".")
    if section == "method":
        valid = {key for spec in specs for key in _hyperparameters(spec)}
        if name not in valid:
            raise SpecError(f"no cell's method has '{name}': {nearest(name, valid)}")
    elif dotted == "density" and all(spec.density is None for spec in specs):
        raise SpecError("no cell's method keeps a density that could be set")
    elif dotted not in fields(specs[0]):
        check_names([dotted], [key for key in fields(specs[0]) if key not in ("protocol", "departs")], "field")


def _hyperparameters(spec: RunSpec) -> dict[str, Any]:
    """The method's hyperparameters without the density; defaults left out of the spec are in."""
    try:
        added = method_class(spec.method["name"]).added_hyperparameters()
    except ValueError as error:
        raise SpecError(str(error)) from error
    everything = {**added, **spec.method}
    return {name: value for name, value in everything.items() if name not in ("name", "version", "density")}


def _set(spec: RunSpec, changes: Mapping[str, Any]) -> RunSpec:
    before = _settable(spec)
    of_method = [dotted for dotted in changes if dotted == "density" or dotted.startswith("method.")]
    changed = replace_fields(spec, {dotted: value for dotted, value in changes.items() if dotted not in of_method})
    check_schedule(changed.optimizer)
    if mine := {dotted: changes[dotted] for dotted in of_method if dotted in before}:
        all_of_method = {
            name: value for name, value in before.items() if name == "density" or name.startswith("method.")
        }
        given = {name.removeprefix("method."): value for name, value in (all_of_method | mine).items()}
        changed = _with_method(changed, given)
    after = _settable(changed)
    differing = [dotted for dotted in changes if dotted in before and after[dotted] != before[dotted]]
    departs = [f"{dotted}={changes[dotted]} (suite: {before[dotted]})" for dotted in differing]
    return dataclasses.replace(changed, departs=(*spec.departs, *departs)) if departs else spec


def _settable(spec: RunSpec) -> dict[str, Any]:
    """Every dotted field that can be changed, with its value; the density only where the method keeps one."""
    plain = {dotted: value for dotted, value in fields(spec).items() if not dotted.startswith("method.")}
    if spec.density is None:
        del plain["density"]
    return plain | {f"method.{name}": value for name, value in _hyperparameters(spec).items()}


def _with_method(spec: RunSpec, hyperparameters: Mapping[str, Any]) -> RunSpec:
    """The cell with its method's hyperparameters, density included, replaced.

    Raises SpecError for bad ones.
    """
    try:
        identity = methods.create(spec.method["name"], **hyperparameters).identity()
    except ValueError as error:
        raise SpecError(str(error)) from error
    density = identity.pop("density", None)
    method = {"name": spec.method["name"], "version": spec.method["version"], **identity}
    return dataclasses.replace(spec, method=method, density=density)
