"""What an exhibit is: files under one name, and what a reader and a screen reader are told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import layout, render
from analysis.layout import Layout
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


def write_table(table: Table, out: Path, *, finding: str = "", remark: str = "") -> Written:
    """A table in the paper's layout as Markdown, LaTeX and CSV."""
    run_ids = [run_id for row in table.rows for run_id in (*row.run_ids, *row.dense_run_ids)]
    return write_layout(
        render.laid_out(table), render.data(table), out, run_ids=run_ids, finding=finding, remark=remark
    )


def write_layout(
    shown: Layout,
    data: Sequence[Mapping[str, Any]],
    out: Path,
    *,
    run_ids: Iterable[str],
    finding: str = "",
    remark: str = "",
) -> Written:
    """NAME.md, NAME.tex, and NAME.csv with every number of `data` in full; nothing where the table has no rows."""
    if not shown.body:
        return Written(name=shown.name, title=shown.caption, remark=remark or "not run")
    texts = {"md": layout.markdown(shown), "tex": layout.latex(shown), "csv": layout.records(data)}
    for kind, text in texts.items():
        (out / f"{shown.name}.{kind}").write_text(text, encoding="utf-8")
    found = tuple(sorted(set(run_ids)))
    return Written(
        name=shown.name,
        title=shown.caption,
        finding=finding,
        files=tuple(out / f"{shown.name}.{kind}" for kind in texts),
        run_ids=found,
        remark=remark or ("" if found else "no runs yet"),
    )


def write_figure(
    name: str, data: pd.DataFrame, figure: Any, out: Path, *, title: str, run_ids: Sequence[str], finding: str = ""
) -> Written:
    """A figure as PDF, PNG and SVG, and the data behind it as CSV."""
    path = out / f"{name}.csv"
    data.to_csv(path, index=False, lineterminator="\n")
    files = (*save(figure, out, name), path)
    return Written(name=name, title=title, finding=finding, files=files, run_ids=tuple(sorted(set(run_ids))))


def with_figure(written: Written, figure: Any, out: Path) -> Written:
    """The exhibit with a picture of its table beside it, as PDF, PNG and SVG."""
    return replace(written, files=(*written.files, *save(figure, out, written.name)))
