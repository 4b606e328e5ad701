"""README.md of a published folder: the card that data hubs read, and what each column means."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.data.read import Tables
from analysis.output.table import Row, Table, markdown
from benchmark.results import MEASURED

COLUMNS = Path(__file__).with_name("columns.csv")
TEMPLATE = "card.md.j2"
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
NUMBERS = {"alpha", "density_target", "seed", "epoch", "step", "value", "weights", "kept", *MEASURED}


def text(tables: Tables, verdicts: Sequence[str]) -> str:
    """The card of these tables. verdicts: those that count, on the paper's numbers."""
    from jinja2 import Environment, PackageLoader

    rows = {"results": len(tables.results), "traces": len(tables.traces), "layers": len(tables.layers)}
    environment = Environment(loader=PackageLoader("analysis.output", ""), trim_blocks=True, lstrip_blocks=True,
                              keep_trailing_newline=True)  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        rows=rows,
        size=_size(sum(rows.values())),
        columns={name: columns(name) for name in rows},
        numbers=NUMBERS,
        statuses=_counted(tables.results["status"]),
        names={name: _names(tables, name) for name in ("dataset", "model", "method")},
        verdicts=_counted(verdict.partition(" (")[0] for verdict in verdicts),
        machines=_machines(tables),
        tables={name: _explained(name) for name in rows},
    )


def columns(table: str) -> list[dict[str, str]]:
    """`column`, `unit` and `definition` of the columns of results, traces or layers."""
    with COLUMNS.open(newline="", encoding="utf-8") as opened:
        return [row for row in csv.DictReader(opened) if row["table"] == table]


def _explained(name: str) -> str:
    rows = (Row((f"`{c['column']}`", c["unit"], c["definition"])) for c in columns(name))
    return _lines(("column", "unit", "definition"), rows)


def _machines(tables: Tables) -> str:
    found = tables.results.fillna({"device": "", "commit": ""}).groupby(["device", "commit"]).size()
    rows = (Row((_code(device), _code(commit), str(count))) for (device, commit), count in found.items())
    return _lines(("device", "commit", "cells"), rows)


def _lines(heads: tuple[str, ...], rows: Iterable[Row]) -> str:
    """A table without its caption."""
    return markdown(Table("", "", heads, tuple(rows))).partition("\n\n")[2].strip()


def _code(value: str) -> str:
    """A value that a stranger may have written, as code, so that Markdown shows it as it is."""
    plain = value.replace("`", "'").strip()
    return f"`{plain}`" if plain else ""


def _names(tables: Tables, column: str) -> str:
    return ", ".join(f"`{name}`" for name in sorted(set(tables.results[column])))


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in sorted(Counter(words).items()))


def _size(rows: int) -> str:
    """The data hub's category for a number of rows."""
    return next((name for most, name in SIZES.items() if rows < most), "n>10M")
