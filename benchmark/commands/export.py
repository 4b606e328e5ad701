"""`export`: write the tables again, from the run folder or from MLflow."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark import results
from benchmark.commands import filters, published
from benchmark.commands.output import emit
from benchmark.messages import printable
from benchmark.spec import SpecError, check_names
from benchmark.terminal import say
from benchmark.tracking.export import downloaded


def export(out: Path, source: str, to: Path | None, where: Sequence[str], json_output: bool) -> None:
    """Write the tables from the run folder or from MLflow, of all cells or some.

    to: a folder of tables that the rows join (`published.merge`); without it the run folder's own
    tables are written anew.
    """
    check_names([source], ("folders", "mlflow"), "--from")
    if where and to is None:
        raise SpecError(f"--where takes rows for --to: without it the tables of {out} would lose all others")
    place = to or out
    if source == "mlflow":
        with downloaded(out) as (folder, cells):
            rows = filters.rows_left(cells, where)
            added = _write(rows, folder, out, to)
    else:
        cells = results.cells(results.existing(out))
        if lost := results.unlisted(out, {spec.run_id for spec, _ in cells}):
            print(f"warning: {printable(lost)}", file=sys.stderr)
        rows = filters.rows_left(cells, where)
        added = _write(rows, out, out, to)
    names = ["results.csv", "results.parquet", "traces.csv", "layers.csv"]
    if json_output:
        emit({"out": str(place), "rows": len(rows), "added": added, "files": names})
    else:
        say(f"{place}: {', '.join(names)}; {len(rows)} rows" + (f", {added} of them new or changed" if to else ""))


def _write(rows: Sequence[results.Row], folder: Path, out: Path, to: Path | None) -> int:
    """Write the tables of rows whose records lie in `folder`; how many rows are new there."""
    if to is not None:
        return published.merge(rows, folder, to)
    if not (out / results.MARKER).exists():
        published.check(out)
    results.write_rows(rows, folder, out)
    return len(rows)
