"""Tables of rows and columns as they are, where the paper has no layout to follow: Markdown, LaTeX, CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.exhibit import Written
from analysis.palette import save
from analysis.settings import Summary

ESCAPES = {"\\": "\\textbackslash{}", **{mark: f"\\{mark}" for mark in "%&_#$"}, "^": "\\^{}", "~": "\\~{}"}
SYMBOLS = {"±": "$\\pm$", "−": "$-$", "≥": "$\\geq$", "≤": "$\\leq$", "ρ": "$\\rho$", "τ": "$\\tau$", "α": "$\\alpha$"}


@dataclass(frozen=True, kw_only=True)
class PlainTable:
    """Texts as a reader sees them. data: the same numbers in full, a row a line, with `run_ids`."""

    name: str
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    data: pd.DataFrame


def write_plain_table(
    table: PlainTable, out: Path, *, run_ids: Sequence[str], finding: str = "", remark: str = ""
) -> Written:
    """A plain table as Markdown, LaTeX and CSV; nothing is written where it has no rows."""
    if not table.rows:
        return Written(name=table.name, title=table.caption, remark=remark or "not run")
    texts = {"md": markdown(table), "tex": latex(table), "csv": table.data.to_csv(index=False, lineterminator="\n")}
    files = []
    for kind, text in texts.items():
        files.append(out / f"{table.name}.{kind}")
        files[-1].write_text(text, encoding="utf-8")
    return Written(
        name=table.name,
        title=table.caption,
        finding=finding,
        files=tuple(files),
        run_ids=tuple(sorted(set(run_ids))),
        remark=remark,
    )


def with_figure(written: Written, figure: Any, out: Path) -> Written:
    """The exhibit with a picture of its table beside it, as PDF, PNG and SVG."""
    return replace(written, files=(*written.files, *save(figure, out, written.name)))


def markdown(table: PlainTable) -> str:
    lines = [table.heads, ("---",) * len(table.heads), *table.rows]
    body = ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines]
    return "\n".join([f"**{table.caption}**", "", *body, "", *(f"- {note}" for note in table.notes), ""])


def latex(table: PlainTable) -> str:
    """A table environment; needs booktabs and graphicx."""
    heads = " & ".join("\\textbf{" + escaped(head) + "}" for head in table.heads)
    body = [" & ".join(escaped(text) for text in row) + " \\\\" for row in table.rows]
    return "\n".join([
        "% needs \\usepackage{booktabs,graphicx}",
        "\\begin{table}", "\\centering",
        f"\\caption{{{escaped(table.caption)}.}}", f"\\label{{tab:{table.name}}}",
        "\\resizebox{\\linewidth}{!}{%",
        f"\\begin{{tabular}}{{{'l' * len(table.heads)}}}", "\\toprule",
        f"{heads} \\\\", "\\midrule", *body, "\\bottomrule", "\\end{tabular}}",
        *("\\par\\smallskip{\\footnotesize " + escaped(note) + "}" for note in table.notes),
        "\\end{table}", "",
    ])  # fmt: skip


def reading(value: Summary) -> str:
    """`97.90 ± 0.07 (n=5)`, `(n=2/3)` where seeds are missing, or `not run`."""
    if not value.n:
        return "not run"
    spread = f"{value.mean:.2f} ± {value.sd:.2f}" if value.n > 1 else f"{value.mean:.2f}"
    return f"{spread} (n={value.n})" if value.n == value.expected else f"{spread} (n={value.n}/{value.expected})"


def escaped(text: str) -> str:
    """Plain text for LaTeX."""
    return "".join(ESCAPES.get(mark, SYMBOLS.get(mark, mark)) for mark in text)
