"""A table as data, and its forms: Markdown, LaTeX (booktabs), and the CSV behind it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TEX = str.maketrans({
    "\\": "\\textbackslash{}", **{mark: f"\\{mark}" for mark in "%&_#${}"}, "^": "\\^{}", "~": "\\~{}",
    "±": "$\\pm$", "×": "$\\times$", "−": "$-$", "<": "$<$", ">": "$>$", "≥": "$\\geq$", "≤": "$\\leq$",
    "|": "\\textbar{}", "α": "$\\alpha$", "ρ": "$\\rho$", "τ": "$\\tau$",
})  # fmt: skip
BREAKS = re.compile(r"\s*[\x00-\x1f\x7f-\x9f\u2028\u2029]+\s*")  # line breaks and other control characters


@dataclass(frozen=True)
class Row:
    """The cells of one line. run_ids: the runs that its numbers come from.

    dense_run_ids: those of the numbers in columns of the dense baseline, where these are others.
    starts: whether it begins a group, set apart in LaTeX.
    """

    cells: tuple[str, ...]
    run_ids: tuple[str, ...] = ()
    dense_run_ids: tuple[str, ...] = ()
    starts: bool = False


@dataclass(frozen=True)
class Table:
    """A table as a reader sees it.

    labels: how many of the first columns are text; the others hold numbers. A label that is left
    blank below a blank first cell repeats the one above it. measured: the heads of the columns
    whose numbers come from the row's runs; None: all after the labels. widths: of LaTeX columns of
    running text, a share of the line each; such a table breaks over pages.
    """

    name: str
    caption: str
    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    labels: int = 1
    measured: tuple[str, ...] | None = None
    widths: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        assert all(len(row.cells) == len(self.heads) for row in self.rows), (
            f"{self.name}: a row is not as wide as its head"
        )


def markdown(table: Table) -> str:
    lines = [f"**{one_line(table.caption)}**", "", _line(table.heads), _line(["---"] * len(table.heads))]
    lines += [_line(row.cells) for row in table.rows]
    return "\n".join([*lines, "", *(f"- {one_line(note)}" for note in table.notes), ""])


def latex(table: Table) -> str:
    """A table environment, scaled to the line; a longtable where the columns have widths."""
    opened, closed = _longtable(table) if table.widths else _scaled(table)
    body: list[str] = []
    for row in table.rows:
        if body and row.starts:
            body.append("\\addlinespace")
        cells = " & ".join(map(tex, row.cells))
        start = "{}" if cells.startswith(("[", "*")) else ""  # no option of the line before
        body.append(f"{start}{cells} \\\\")
    notes = ("\\par\\smallskip{\\footnotesize " + tex(note) + "}" for note in table.notes)
    return "\n".join([*opened, *body, *closed, *notes, *([] if table.widths else ["\\end{table}"]), ""])


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """CSV with the columns of the first record; floats in full, nan as nothing.

    A carriage return in a text becomes a newline, as Python's reader would end the row there.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in record.items()} for record in records)
    return text.getvalue()


def tex(text: str) -> str:
    """Plain text for LaTeX, on one line; the word alpha becomes the letter."""
    return re.sub(r"\balpha\b", "α", one_line(text)).translate(TEX)


def one_line(text: str) -> str:
    """The text with a space for every line break: a row is one line."""
    return BREAKS.sub(" ", text)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else repr(float(value))
    return "" if value is None else str(value).replace("\r\n", "\n").replace("\r", "\n")


def _scaled(table: Table) -> tuple[list[str], list[str]]:
    columns = "l" * table.labels + "r" * (len(table.heads) - table.labels)
    opened = [
        "% needs \\usepackage{booktabs,graphicx}",
        "\\begin{table}", "\\centering",
        f"\\caption{{{tex(table.caption)}.}}", f"\\label{{tab:{table.name}}}",
        "\\resizebox{\\linewidth}{!}{%",
        f"\\begin{{tabular}}{{{columns}}}", "\\toprule", _heads(table), "\\midrule",
    ]  # fmt: skip
    return opened, ["\\bottomrule", "\\end{tabular}}"]


def _longtable(table: Table) -> tuple[list[str], list[str]]:
    columns = "".join(f"p{{{0.94 * width / sum(table.widths):.3f}\\linewidth}}" for width in table.widths)
    opened = [
        "% needs \\usepackage{booktabs,longtable}",
        "{\\footnotesize\\setlength{\\tabcolsep}{3pt}\\raggedright",
        f"\\begin{{longtable}}{{{columns}}}",
        f"\\caption{{{tex(table.caption)}.}}\\label{{tab:{table.name}}} \\\\",
        "\\toprule", _heads(table), "\\midrule", "\\endhead",
    ]  # fmt: skip
    return opened, ["\\bottomrule", "\\end{longtable}}"]


def _heads(table: Table) -> str:
    return " & ".join(f"\\textbf{{{tex(head)}}}" for head in table.heads) + " \\\\"


def _line(cells: Sequence[str]) -> str:
    escaped = (one_line(text).replace("\\", "\\\\").replace("|", "\\|") for text in cells)
    return "| " + " | ".join(escaped) + " |"
