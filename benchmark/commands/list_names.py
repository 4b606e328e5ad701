"""`list`: the suites, methods, models and data sets by name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

import methods
from benchmark import data, models, suites
from benchmark.commands.output import console, emit, say, show
from benchmark.messages import shown
from benchmark.spec import SpecError, check_names
from methods import registry
from methods.plug_ins import PlugIns

KINDS: dict[str, tuple[Callable[[], dict[str, str]], PlugIns]] = {
    "suites": (lambda: _suites(), suites.plug_ins),
    "methods": (methods.describe, registry.plug_ins),
    "models": (models.describe, models.plug_ins),
    "data": (data.describe, data.plug_ins),
}


def list_names(what: str, name: str | None, suite: str | None, json_output: bool) -> None:
    """Print the names of the suites, methods, models or data sets, each with one line about it.

    name: only this one; of a method also the hyperparameters and the docstring. suite: a FILE.py or
    an installed suite; what it registers is listed too. Raises SpecError.
    """
    check_names([what], KINDS, "list")
    if suite is not None:
        suites.load_module(suite)
    describe, plug_ins = KINDS[what]
    found = {each: _with_package(text, plug_ins, each) for each, text in describe().items()}
    if name is not None:
        check_names([name], found, what.removesuffix("s"))
        found = {name: found[name]}
        if what == "methods":
            _list_method(name, json_output)
            return
    if json_output:
        emit(found)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for each, text in found.items():
        table.add_row(each, text)
    show(console(json_output=False), table)


def _list_method(name: str, json_output: bool) -> None:
    """Print a method's hyperparameters with types and defaults, and its docstring. Raises SpecError."""
    try:
        cls = registry.method_class(name)
    except ValueError as error:
        raise SpecError(str(error)) from error
    parameters = inspect.signature(cls.__init__).parameters
    given = {each: parameters[each] for each in cls.hyperparameter_names()}
    about = {key: getattr(cls, key) for key in ("name", "version", "reference", "density_promise")} | {"name": name}
    types_ = {each: _type(parameter) for each, parameter in given.items()}
    defaults = {each: p.default for each, p in given.items() if p.default is not p.empty}
    if json_output:
        defaults = {each: _for_json(value) for each, value in defaults.items()}
        emit({**about, "types": types_, "defaults": defaults, "description": inspect.getdoc(cls) or ""})
        return
    screen = console(json_output=False)
    say(screen, ", ".join(f"{key} {value}" for key, value in about.items()))
    table = Table(box=None, pad_edge=False)
    for column in ("hyperparameter", "default", "type"):
        table.add_column(column, overflow="fold")
    for each in given:
        table.add_row(each, repr(defaults[each]) if each in defaults else "required", types_[each])
    show(screen, table)
    for line in ["", *(inspect.getdoc(cls) or "").split("\n")]:
        say(screen, line)


def _for_json(default: Any) -> Any:
    """The default, or as Python writes it where JSON has no such value."""
    try:
        json.dumps(default, allow_nan=False)
    except (TypeError, ValueError):
        return shown(default)
    return default


def _type(parameter: inspect.Parameter) -> str:
    """The annotation as text; empty without one."""
    written = parameter.annotation
    return (
        "" if written is parameter.empty else written if isinstance(written, str) else inspect.formatannotation(written)
    )


def _suites() -> dict[str, str]:
    """The suites, each with the tables and figures that it feeds at the end of its line."""
    return {name: text + _feeds(exhibits) for name, (text, exhibits) in suites.describe().items()}


def _feeds(exhibits: Sequence[str]) -> str:
    return f" [{', '.join(exhibits)}]" if exhibits else ""


def _with_package(text: str, plug_ins: PlugIns, name: str) -> str:
    """A name's line, with the installed package that it comes from at the end."""
    try:
        plug_in = plug_ins.find(name)
    except ValueError:  # several packages, which its line says
        return text
    package = plug_in.distribution if plug_in else ""
    return text if not package or package in text else f"{text} ({package})"
