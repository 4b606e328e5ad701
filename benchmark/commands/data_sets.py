"""`data fetch` and `data verify`."""

from __future__ import annotations

from pathlib import Path

from benchmark import data
from benchmark.commands.output import emit


def fetch(name: str, data_dir: Path, json_output: bool) -> None:
    """Download a data set, then check it."""
    data.fetch(name, data_dir)
    verify(name, data_dir, json_output)


def verify(name: str, data_dir: Path, json_output: bool) -> None:
    """Print one line per file if all are good. Raises DataError for the first that is not."""
    lines = data.verify(name, data_dir)
    if json_output:
        emit({"name": name, "data_dir": str(data_dir), "files": lines})
    else:
        print("\n".join(lines))
