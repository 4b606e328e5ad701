"""`list`: the suites, methods, models and data sets by name."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

import methods
from benchmark import data, models, suites
from benchmark.commands.output import console, emit, show
from benchmark.spec import check_names


def list_names(what: str, json_output: bool) -> None:
    """Print the names of the suites, methods, models or data sets, each with one line about it."""
    check_names([what], ("suites", "methods", "models", "data"), "list")
    if what == "suites":
        found = {name: text + _feeds(exhibits) for name, (text, exhibits) in suites.describe().items()}
    elif what == "methods":
        found = methods.describe()
    else:
        found = models.describe() if what == "models" else data.describe()
    if json_output:
        emit(found)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in found.items():
        table.add_row(name, text)
    show(console(json_output=False), table)


def _feeds(exhibits: Sequence[str]) -> str:
    """The tables and figures that a suite feeds, for the end of its line."""
    return f" [{', '.join(exhibits)}]" if exhibits else ""
