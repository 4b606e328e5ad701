"""A table as a reader sees it, as Markdown and as LaTeX (booktabs); and the data behind it, as CSV."""

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
    "α": "$\\alpha$", "ρ": "$\\rho$", "τ": "$\\tau$",
})  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What a reader sees. labels: how many of the first columns are text, and the others numbers.

    starts: the rows that begin a group, set apart in LaTeX. widths: of LaTeX columns of running text, a
    share of the line each; such a table breaks over pages.
    """

    name: str
    caption: str
    heads: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    labels: int = 1
    starts: tuple[int, ...] = ()
    widths: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        assert all(len(cells) == len(self.heads) for cells in self.body), (
            f"{self.name}: a row is not as wide as its head"
        )


def markdown(layout: Layout) -> str:
    lines = [f"**{layout.caption}**", "", _line(layout.heads), _line(["---"] * len(layout.heads))]
    lines += [_line(cells) for cells in layout.body]
    return "\n".join([*lines, "", *(f"- {note}" for note in layout.notes), ""])


def latex(layout: Layout) -> str:
    """A table environment, scaled to the line; a longtable where the columns have widths."""
    opened, closed = _longtable(layout) if layout.widths else _table(layout)
    body: list[str] = []
    for i, cells in enumerate(layout.body):
        if body and i in layout.starts:
            body.append("\\addlinespace")
        body.append(" & ".join(map(tex, cells)) + " \\\\")
    notes = ("\\par\\smallskip{\\footnotesize " + tex(note) + "}" for note in layout.notes)
    return "\n".join([*opened, *body, *closed, *notes, *([] if layout.widths else ["\\end{table}"]), ""])


def records(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV, the columns those of the first row; floats in full, nan as nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: plain(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def plain(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else repr(float(value))
    return "" if value is None else str(value)


def tex(text: str) -> str:
    """Plain text for LaTeX; the word alpha becomes the letter."""
    return re.sub(r"\balpha\b", "α", text).translate(TEX)


def _table(layout: Layout) -> tuple[list[str], list[str]]:
    columns = "l" * layout.labels + "r" * (len(layout.heads) - layout.labels)
    opened = [
        "% needs \\usepackage{booktabs,graphicx}",
        "\\begin{table}", "\\centering",
        f"\\caption{{{tex(layout.caption)}.}}", f"\\label{{tab:{layout.name}}}",
        "\\resizebox{\\linewidth}{!}{%",
        f"\\begin{{tabular}}{{{columns}}}", "\\toprule", _heads(layout), "\\midrule",
    ]  # fmt: skip
    return opened, ["\\bottomrule", "\\end{tabular}}"]


def _longtable(layout: Layout) -> tuple[list[str], list[str]]:
    columns = "".join(f"p{{{0.94 * width / sum(layout.widths):.3f}\\linewidth}}" for width in layout.widths)
    opened = [
        "% needs \\usepackage{booktabs,longtable}",
        "{\\footnotesize\\setlength{\\tabcolsep}{3pt}\\raggedright",
        f"\\begin{{longtable}}{{{columns}}}",
        f"\\caption{{{tex(layout.caption)}.}}\\label{{tab:{layout.name}}} \\\\",
        "\\toprule", _heads(layout), "\\midrule", "\\endhead",
    ]  # fmt: skip
    return opened, ["\\bottomrule", "\\end{longtable}}"]


def _heads(layout: Layout) -> str:
    return " & ".join(f"\\textbf{{{tex(head)}}}" for head in layout.heads) + " \\\\"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"
