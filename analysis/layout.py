"""Heads and rows of text as Markdown and as LaTeX (booktabs): what every table of ours is written with."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ESCAPES = (
    ("\\", "\\textbackslash{}"), ("%", "\\%"), ("&", "\\&"), ("_", "\\_"), ("#", "\\#"), ("$", "\\$"),
    ("^", "\\^{}"), ("~", "\\~{}"),
)  # fmt: skip
SYMBOLS = (("±", "$\\pm$"), ("alpha ", "$\\alpha$ "), ("×", "$\\times$"), ("−", "$-$"), ("< ", "$<$ "))


@dataclass(frozen=True)
class Layout:
    """What a reader sees. labels: how many of the first columns are text, and the others numbers.

    starts: the rows that begin a group, set apart in LaTeX.
    """

    name: str
    caption: str
    heads: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    labels: int = 1
    starts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert all(len(cells) == len(self.heads) for cells in self.body), (
            f"{self.name}: a row is not as wide as its head"
        )


def markdown(layout: Layout) -> str:
    lines = [f"**{layout.caption}**", "", _line(layout.heads), _line(["---"] * len(layout.heads))]
    lines += [_line(cells) for cells in layout.body]
    return "\n".join([*lines, "", *(f"- {note}" for note in layout.notes), ""])


def latex(layout: Layout) -> str:
    """A table environment; needs booktabs and graphicx."""
    heads = " & ".join(f"\\textbf{{{tex(head)}}}" for head in layout.heads)
    body: list[str] = []
    for i, cells in enumerate(layout.body):
        if body and i in layout.starts:
            body.append("\\addlinespace")
        body.append(" & ".join(tex(cell) for cell in cells) + " \\\\")
    return "\n".join([
        "% needs \\usepackage{booktabs,graphicx}",
        "\\begin{table}", "\\centering",
        f"\\caption{{{tex(layout.caption)}.}}", f"\\label{{tab:{layout.name}}}",
        "\\resizebox{\\linewidth}{!}{%",
        f"\\begin{{tabular}}{{{'l' * layout.labels}{'r' * (len(layout.heads) - layout.labels)}}}", "\\toprule",
        f"{heads} \\\\", "\\midrule", *body, "\\bottomrule", "\\end{tabular}}",
        *("\\par\\smallskip{\\footnotesize " + tex(note) + "}" for note in layout.notes),
        "\\end{table}", "",
    ])  # fmt: skip


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


def write(layout: Layout, rows: Sequence[Mapping[str, Any]], out: Path) -> tuple[Path, ...]:
    """NAME.md, NAME.tex, and NAME.csv with every number in full."""
    texts = {"md": markdown(layout), "tex": latex(layout), "csv": records(rows)}
    for kind, text in texts.items():
        (out / f"{layout.name}.{kind}").write_text(text, encoding="utf-8")
    return tuple(out / f"{layout.name}.{kind}" for kind in texts)


def tex(text: str) -> str:
    for symbol, escaped in ESCAPES:
        text = text.replace(symbol, escaped)
    for symbol, escaped in SYMBOLS:
        text = text.replace(symbol, escaped)
    return text


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"
