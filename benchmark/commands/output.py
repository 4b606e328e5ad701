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

from benchmark import results, terminal
from benchmark.results import Row

WIDEST = 10_000  # columns


def console(*, json_output: bool) -> Console:
    """Where people read: standard output, or standard error beside a JSON document.

    Text is shown as it is: `[a]` is no style and `:x:` no emoji.
    """
    return Console(file=sys.stderr if json_output else sys.stdout, markup=False, emoji=False)


def say(screen: Console, text: str) -> None:
    """Print one line as it is, without colours and without a break."""
    screen.print(text, highlight=False, markup=False, soft_wrap=True)


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


def condition(row: Mapping[str, Any]) -> str:
    """alpha or target density, and what departs from the suite."""
    parts = [f"alpha {row['alpha']:g}"] if row["alpha"] != "" else []
    parts += [f"density {row['density_target']:g}"] if row["density_target"] != "" else []
    parts += [row["protocol"]] if row["protocol"] and results.SEPARATOR not in row["protocol"] else []
    departs = row["departs"].split(results.SEPARATOR) if row["departs"] else []
    return ", ".join([*parts, *(part.partition(" (suite")[0] for part in departs)])


def hyperparameters_that_vary(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """run id -> the hyperparameters in which the shown cells of its method differ.

    alpha and density are left out. A hyperparameter that a spec leaves out has its default there,
    and so differs from every value that is given.
    """
    methods = {row["run_id"]: json.loads(row["spec"])["method"] for row in rows}
    names = {name for method in methods.values() for name in method} - {"name", "version", "alpha", "density"}
    values: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for method in methods.values():
        for name in names:
            values[method["name"], name].add(json.dumps(method.get(name)))
    return {
        run_id: {n: v for n, v in method.items() if n in names and len(values[method["name"], n]) > 1}
        for run_id, method in methods.items()
    }


def summary_table(rows: Sequence[Row]) -> Table:
    """Mean and deviation of last test accuracy and density per condition, over the done cells."""
    table = Table(box=None, pad_edge=False, caption="± standard deviation over seeds", caption_justify="left")
    many = len({row["dataset"] for row in rows}) > 1
    for name in (*(["data"] if many else []), "model", "method", "condition", "done"):
        table.add_column(name, no_wrap=name in ("model", "method"), overflow="fold")
    for name in ("accuracy %", "remaining %"):
        table.add_column(name, justify="right", no_wrap=True)
    groups: dict[tuple[str, ...], list[Row]] = collections.defaultdict(list)
    varied = hyperparameters_that_vary(rows)
    for row in rows:
        shown = ", ".join(filter(None, [condition(row), *(f"{n} {v}" for n, v in varied[row["run_id"]].items())]))
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
