"""`list`: the suites, methods, models and data sets by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

import methods
from benchmark import data, models, suites
from benchmark.commands.output import console, emit, show
from benchmark.spec import check_names
from methods import registry
from methods.plug_ins import PlugIns

KINDS: dict[str, tuple[Callable[[], dict[str, str]], PlugIns]] = {
    "suites": (lambda: _suites(), suites.plug_ins),
    "methods": (methods.describe, registry.plug_ins),
    "models": (models.describe, models.plug_ins),
    "data": (data.describe, data.plug_ins),
}


def list_names(what: str, suite: str | None, json_output: bool) -> None:
    """Print the names of the suites, methods, models or data sets, each with one line about it.

    suite: a FILE.py or an installed suite; what it registers is listed too. Raises SpecError.
    """
    check_names([what], KINDS, "list")
    if suite is not None:
        suites.load_module(suite)
    describe, plug_ins = KINDS[what]
    found = {name: _with_package(text, plug_ins, name) for name, text in describe().items()}
    if json_output:
        emit(found)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in found.items():
        table.add_row(name, text)
    show(console(json_output=False), table)


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
