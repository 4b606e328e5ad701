"""What an exhibit is: files under one name, and what a reader and a screen reader are told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import render
from analysis.palette import save
from analysis.read import Tables
from analysis.settings import Setting
from analysis.tables import Table


@dataclass(frozen=True)
class Results:
    """What is measured: the tables as they are, and their cells as settings over seeds."""

    tables: Tables
    settings: tuple[Setting, ...]


@dataclass(frozen=True, kw_only=True)
class Written:
    """An exhibit and its files; no files where no run fills it.

    title: its caption, one line. finding: what it shows, in a sentence with its numbers: the alternative
    text of a figure. run_ids: the cells that it is made of. remark: why it is missing or partial.
    """

    name: str
    title: str = ""
    finding: str = ""
    files: tuple[Path, ...] = ()
    run_ids: tuple[str, ...] = ()
    remark: str = ""


Maker = Callable[[Path], Written]


def write_table(table: Table, out: Path, *, finding: str = "") -> Written:
    """A table as Markdown, LaTeX and CSV."""
    written = []
    for kind, write in (("md", render.markdown), ("tex", render.latex), ("csv", render.data)):
        path = out / f"{table.name}.{kind}"
        path.write_text(write(table), encoding="utf-8")
        written.append(path)
    run_ids = sorted({run_id for row in table.rows for run_id in (*row.run_ids, *row.dense_run_ids)})
    return Written(
        name=table.name,
        title=table.caption,
        finding=finding,
        files=tuple(written),
        run_ids=tuple(run_ids),
        remark="" if run_ids else "no runs yet",
    )


def write_figure(
    name: str, data: pd.DataFrame, figure: Any, out: Path, *, title: str, run_ids: Sequence[str], finding: str = ""
) -> Written:
    """A figure as PDF, PNG and SVG, and the data behind it as CSV."""
    path = out / f"{name}.csv"
    data.to_csv(path, index=False, lineterminator="\n")
    files = (*save(figure, out, name), path)
    return Written(name=name, title=title, finding=finding, files=files, run_ids=tuple(sorted(set(run_ids))))
