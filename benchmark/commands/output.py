"""What commands print: one JSON document, or tables for people."""

from __future__ import annotations

import collections
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from benchmark import results, terminal
from benchmark.commands.labels import distinctions
from benchmark.messages import printable
from benchmark.results import Row
from benchmark.spec import RunSpec

WIDEST = 10_000  # columns


class Screen(Console):
    """A console on which no text acts on the terminal: a file that is shown may be a stranger's.

    Characters that do not print, such as those of escape sequences, are shown as Python writes
    them.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Every text becomes a `Text` here, also a table's cells before their widths are measured."""
        return super().render_str(terminal.harmless(text), **options)


def console(*, json_output: bool) -> Console:
    """Where people read: standard output, or standard error beside a JSON document.

    Text is shown as it is: `[a]` is no style and `:x:` no emoji.
    """
    return Screen(file=sys.stderr if json_output else sys.stdout, markup=False, emoji=False)


def say(screen: Console, text: str) -> None:
    """Print one line, without colours and without a break; a line's end in it is shown as `\\n`."""
    screen.print(printable(text), highlight=False, markup=False, soft_wrap=True)


def show(screen: Console, table: Table) -> None:
    """Print a table.

    On a narrow screen columns fold, and those that must not (no_wrap: names and numbers) run over
    its edge: nothing is cut.
    """
    options = screen.options.update(max_width=WIDEST)
    for column in table.columns:
        if column.no_wrap:
            column.min_width = max(
                Measurement.get(screen, options, text).maximum for text in [column.header, *column.cells]
            )
    needed = Measurement.get(screen, options, table).minimum
    if needed > screen.width:
        table.width = needed
    screen.print(table, crop=False)


def emit(document: Any) -> None:
    """Print one JSON document on standard output; empty cells are null."""
    stream = terminal.document_stream()
    json.dump(_nulls(document), stream, indent=1, allow_nan=False)
    stream.write("\n")


def _nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _nulls(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nulls(inner) for inner in value]
    return None if value == "" else value


def summary_table(cells: Sequence[tuple[RunSpec, Row]]) -> Table:
    """Mean and deviation of last test accuracy and density per condition, over the done cells."""
    rows = [row for _, row in cells]
    table = Table(box=None, pad_edge=False, caption="± standard deviation over seeds", caption_justify="left")
    many = len({row["dataset"] for row in rows}) > 1
    for name in (*(["data"] if many else []), "model", "method", "condition", "done"):
        table.add_column(name, no_wrap=name in ("model", "method"), overflow="fold")
    for name in ("accuracy %", "remaining %"):
        table.add_column(name, justify="right", no_wrap=True)
    groups: dict[tuple[str, ...], list[Row]] = collections.defaultdict(list)
    told = distinctions(spec for spec, _ in cells)
    for row in rows:
        departs = [part.partition(" (suite")[0] for part in row["departs"].split(results.SEPARATOR) if part]
        shown = ", ".join([*(f"{name} {value}" for name, value in told[row["run_id"]].items()), *departs])
        groups[row["dataset"], row["model"], row["method"], shown].append(row)
    for names, group in groups.items():
        done = [row for row in group if row["status"] == "done"]
        other = collections.Counter(row["status"] for row in group if row["status"] != "done")
        state = ", ".join([f"{len(done)}/{len(group)}", *(f"{n} {status}" for status, n in other.items())])
        accuracies = [row["test_accuracy"] for row in done]
        densities = [100 * row["density"] for row in done]
        table.add_row(*names[0 if many else 1 :], state, _mean(accuracies), _mean(densities))
    return table


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"
