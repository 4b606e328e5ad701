"""`export`: write the tables again, from the run folder or from MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmark import results
from benchmark.commands import filters
from benchmark.commands.output import emit
from benchmark.spec import check_names
from benchmark.tracking.export import downloaded


def export(out: Path, source: str, to: Path | None, where: Sequence[str], json_output: bool) -> None:
    """Write the tables from the run folder or from MLflow, of all cells or some, here or into
    another folder.
    """
    check_names([source], ("folders", "mlflow"), "--from")
    place = to or out
    if source == "mlflow":
        with downloaded(out) as (folder, cells):
            rows = filters.rows_left(cells, where)
            results.write_rows(rows, folder, place)
    else:
        rows = filters.rows_left(results.cells(results.existing(out)), where)
        results.write_rows(rows, out, place)
    names = ["results.csv", "results.parquet", "traces.csv", "layers.csv"]
    if json_output:
        emit({"out": str(place), "rows": len(rows), "files": names})
    else:
        print(f"{place}: {', '.join(names)}; {len(rows)} rows")
