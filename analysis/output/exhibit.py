"""An exhibit: files under one name, and what the page and the manifest say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd

from analysis.data.conditions import Results
from analysis.data.selection import lost_note
from analysis.output.picture import Panel
from analysis.output.plotting import save
from analysis.output.table import Row, Table, csv_text, latex, markdown

Line = TypeVar("Line")
NO_RUNS = "no runs yet"


@dataclass(frozen=True, kw_only=True)
class Written:
    """An exhibit and its files; no files where no run fills it.

    title: its caption, one line. finding: what it shows, in a sentence with its numbers; the
    alternative text of a figure. run_ids: the cells that it is made of. remark: why it is missing
    or partial. table: what its Markdown shows, for the page. panels: what the page draws instead of
    the figure.
    """

    name: str
    title: str = ""
    finding: str = ""
    files: tuple[Path, ...] = ()
    run_ids: tuple[str, ...] = ()
    remark: str = ""
    table: Table | None = None
    panels: tuple[Panel, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it waits for runs; its table, if it has one, has only what others printed."""
        return not self.files or self.remark == NO_RUNS


Maker = Callable[[Path], Written]
Makers = Mapping[str, Maker]  # by the exhibit's name


@dataclass(frozen=True, kw_only=True)
class TableWithFigure(Generic[Line]):
    """An exhibit of ours: a table and a figure of the same lines.

    lines: what is measured, one object per line of the table. cells: a line as a reader sees it.
    records: its records in the CSV, whose last column `run_ids` is added here. run_ids: its runs.
    finding: a sentence on all lines. figure: draws them. more_notes: notes that depend on the
    lines; remark: a remark on them. more_files: writes files besides. nothing: the remark where
    there are no lines.
    """

    name: str
    caption: str
    heads: tuple[str, ...]
    labels: int
    notes: tuple[str, ...]
    lines: Callable[[Results], Sequence[Line]]
    cells: Callable[[Line], tuple[str, ...]]
    records: Callable[[Line], Iterable[dict[str, Any]]]
    run_ids: Callable[[Line], Sequence[str]]
    finding: Callable[[Sequence[Line]], str]
    figure: Callable[[Sequence[Line]], Any]
    more_notes: Callable[[Results, Sequence[Line]], Iterable[str]] = lambda results, lines: ()
    remark: Callable[[Sequence[Line]], str] = lambda lines: ""
    more_files: Callable[[Sequence[Line], Path], tuple[Path, ...]] = lambda lines, out: ()
    measured: tuple[str, ...] | None = None
    nothing: str = ""

    def makers(self, results: Results) -> Makers:
        return {self.name: lambda out: self.write(results, out)}

    def write(self, results: Results, out: Path) -> Written:
        lines = self.lines(results)
        table = Table(
            self.name,
            self.caption,
            self.heads,
            tuple(Row(self.cells(line), tuple(self.run_ids(line))) for line in lines),
            (*self.notes, *self.more_notes(results, lines), *lost_note(results)),
            labels=self.labels,
            measured=self.measured,
        )
        records = [
            {**record, "run_ids": ";".join(self.run_ids(line))} for line in lines for record in self.records(line)
        ]
        remark = self.remark(lines) if lines else self.nothing
        written = write_table(table, records, out, finding=self.finding(lines), remark=remark)
        if not lines:
            return written
        more = (*self.more_files(lines, out), *save(self.figure(lines), out, self.name))
        return replace(written, files=(*written.files, *more))


def write_table(
    table: Table,
    records: Sequence[Mapping[str, Any]],
    out: Path,
    *,
    finding: str = "",
    remark: str = "",
    more_runs: Iterable[str] = (),
) -> Written:
    """NAME.md, NAME.tex, and NAME.csv with every number of the records in full.

    Nothing for a table without rows. more_runs: the runs of records that the table does not show.
    """
    if not table.rows:
        return Written(name=table.name, title=table.caption, remark=remark or "not run")
    texts = {"md": markdown(table), "tex": latex(table), "csv": csv_text(records)}
    for kind, text in texts.items():
        (out / f"{table.name}.{kind}").write_text(text, encoding="utf-8")
    shown = {run_id for row in table.rows for run_id in (*row.run_ids, *row.dense_run_ids)}
    run_ids = tuple(sorted({*shown, *more_runs}))
    return Written(
        name=table.name,
        title=table.caption,
        finding=finding,
        files=tuple(out / f"{table.name}.{kind}" for kind in texts),
        run_ids=run_ids,
        remark=remark or ("" if run_ids else NO_RUNS),
        table=table,
    )


def write_figure(
    name: str,
    data: pd.DataFrame,
    figure: Any,
    out: Path,
    *,
    title: str,
    run_ids: Iterable[str] = (),
    finding: str = "",
    remarks: Iterable[str] = (),
) -> Written:
    """A figure as PDF, PNG and SVG, and the data behind it as CSV."""
    path = out / f"{name}.csv"
    data.to_csv(path, index=False, lineterminator="\n")
    return Written(
        name=name,
        title=title,
        finding=finding,
        files=(*save(figure, out, name), path),
        run_ids=tuple(sorted(set(run_ids))),
        remark="; ".join(remarks),
    )
