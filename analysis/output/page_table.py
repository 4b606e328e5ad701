"""A table on the page: the links of its cells, its filters, and what is folded away."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from analysis.output.table import Row, Table

NOT_RUN = "not run"
VERDICTS = {
    "supported": "good", "reproduced": "good", "better": "good", "not supported": "bad", "not reproduced": "bad",
    "mixed": "open", "inconclusive": "open", NOT_RUN: "none",
}  # fmt: skip
# columns that can be filtered, by one of their texts or by a range of numbers
CHOICES = (
    "Architecture", "Network", "Data set", "Method", "Setting", "Condition", "alpha", "α", "First", "Second",
    "Threshold", "Estimator", "Compared at", "Read at", "At", "Pattern of", "Epochs", "Source", "Reading",
    "Density asked", "Density asked (%)", "Density (%)", "Verdict", "Result", "Exhibit", "Section",
)  # fmt: skip
OUTCOMES = ("Verdict", "Result")  # a table with one of these says there what was not run
RANGES = ("Weights kept (%)", "Density reached (%)")
MANY = 11  # with more columns, each row is shown as labelled values at every width
FOLDED = 4  # more notes that begin alike are folded away

Link = Callable[[Sequence[str]], str]  # run ids -> where the page shows these runs


@dataclass(frozen=True)
class Cell:
    """One cell of a table on the page.

    head: the heading of its column. href: the runs that its number is of, or empty. tone: good, bad,
    open, none or empty. repeated: whether the table left the cell blank; the text is then that of
    the row above.
    """

    text: str
    head: str
    href: str = ""
    tone: str = ""
    repeated: bool = False


@dataclass(frozen=True)
class PageTable:
    """not_run: the rows that were not run, one line each, which are folded away below the table."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]
    not_run: tuple[str, ...] = ()

    @property
    def folded(self) -> tuple[str, ...]:
        """Notes that begin alike, where there are many of them."""
        starts = Counter(note.partition(":")[0] for note in self.notes)
        return tuple(note for note in self.notes if starts[note.partition(":")[0]] > FOLDED)

    @property
    def many(self) -> bool:
        """Whether it has too many columns for a screen."""
        return len(self.heads) > MANY

    def filter_of(self, head: str) -> str:
        """How a column can be filtered: "choice", "range" or not at all."""
        return "choice" if head in CHOICES else "range" if head in RANGES else ""

    def fold_not_run(self) -> PageTable:
        """The table with its rows that were not run as lines of `not_run`."""
        told = [i for i, head in enumerate(self.heads) if head in OUTCOMES] or range(len(self.heads))
        folded = [row for row in self.rows if any(row[i].tone == "none" for i in told)]
        lines = tuple(": ".join(cell.text for cell in row[:2]) for row in folded)
        return replace(self, rows=tuple(row for row in self.rows if row not in folded), not_run=lines)


def page_table(table: Table, link: Link) -> PageTable:
    """A table whose numbers link to their runs, and whose blank labels repeat the ones above."""
    measured = table.heads[table.labels :] if table.measured is None else table.measured
    rows: list[tuple[Cell, ...]] = []
    for row in table.rows:
        cells = [
            _cell(row, text, head, link, head in measured) for head, text in zip(table.heads, row.cells, strict=True)
        ]
        if rows and not row.cells[0]:
            for i in (i for i in range(table.labels) if not row.cells[i]):
                cells[i] = Cell(rows[-1][i].text, table.heads[i], repeated=True)
        rows.append(tuple(cells))
    return PageTable(table.caption, table.heads, tuple(rows), table.notes)


def _cell(row: Row, text: str, head: str, link: Link, measured: bool) -> Cell:
    run_ids = row.dense_run_ids if "dense" in head.lower() and row.dense_run_ids else row.run_ids
    linked = measured and run_ids and any(mark.isdigit() for mark in text)
    return Cell(text, head, link(run_ids) if linked else "", tone(text))


def tone(text: str) -> str:
    """The tone of a verdict; empty for other texts."""
    word = re.sub(r"[ (,:].*", "", text) if text.startswith("inconclusive") else re.split(r" \(|[,:]", text)[0]
    return VERDICTS.get(word, "")
