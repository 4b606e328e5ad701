"""A table of text whose rows are traced to runs, as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.exhibit import Written

ESCAPES = str.maketrans({
    "\\": "\\textbackslash{}", "%": "\\%", "&": "\\&", "_": "\\_", "#": "\\#", "$": "\\$", "^": "\\^{}",
    "~": "\\~{}", "{": "\\{", "}": "\\}", "<": "$<$", ">": "$>$", "±": "$\\pm$",
})  # fmt: skip


@dataclass(frozen=True)
class PlainTable:
    """cells: a row of text a line of the table. run_ids: the runs behind each row. widths: of LaTeX columns."""

    name: str
    title: str
    heads: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    run_ids: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    widths: tuple[float, ...] = ()


def write_plain(table: PlainTable, out: Path, *, finding: str = "") -> Written:
    """Write a table. The CSV has its text and a column `run_ids`, joined by semicolons."""
    files = []
    for kind, text in (("md", markdown(table)), ("tex", la_tex(table)), ("csv", data(table))):
        path = out / f"{table.name}.{kind}"
        path.write_text(text, encoding="utf-8")
        files.append(path)
    run_ids = tuple(sorted({run_id for row in table.run_ids for run_id in row}))
    remark = "" if run_ids else "no runs yet"
    return Written(
        name=table.name, title=table.title, finding=finding, files=tuple(files), run_ids=run_ids, remark=remark
    )


def markdown(table: PlainTable) -> str:
    body = [_line(cells) for cells in table.cells]
    head = [_line(table.heads), _line(["---"] * len(table.heads))]
    return "\n".join([f"**{table.title}**", "", *head, *body, "", *(f"- {note}" for note in table.notes), ""])


def la_tex(table: PlainTable) -> str:
    """A longtable, which breaks over pages; needs booktabs and longtable."""
    share = table.widths or (1 / len(table.heads),) * len(table.heads)
    columns = "".join(f"p{{{0.94 * width / sum(share):.3f}\\linewidth}}" for width in share)
    heads = " & ".join("\\textbf{" + _tex(head) + "}" for head in table.heads)
    return "\n".join([
        "% needs \\usepackage{booktabs,longtable}",
        "{\\footnotesize\\setlength{\\tabcolsep}{3pt}\\raggedright",
        f"\\begin{{longtable}}{{{columns}}}",
        f"\\caption{{{_tex(table.title)}.}}\\label{{tab:{table.name}}} \\\\",
        "\\toprule", f"{heads} \\\\", "\\midrule", "\\endhead",
        *(_row(cells) for cells in table.cells),
        "\\bottomrule", "\\end{longtable}}",
        *("\\par\\smallskip{\\footnotesize " + _tex(note) + "}" for note in table.notes), "",
    ])  # fmt: skip


def data(table: PlainTable) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(head.lower().replace(" ", "_") for head in table.heads), "run_ids"])
    writer.writerows([*cells, ";".join(ids)] for cells, ids in zip(table.cells, table.run_ids, strict=True))
    return text.getvalue()


def _row(cells: Sequence[str]) -> str:
    return " & ".join(_tex(cell) for cell in cells) + " \\\\"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _tex(text: str) -> str:
    return text.translate(ESCAPES)
