"""Tables as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
import math

from analysis import paper
from analysis.settings import Summary
from analysis.tables import EPOCHS, QUANTITIES, Row, Table

HEADS = {
    "dense": "Dense Baseline (%)",
    "remaining": "Model Remaining Percentage (%)",
    "sparse": "Sparse Accuracy (%)",
    "difference": "Difference",
}
GROUPS = {"headline": "Headline: best epoch (LSTM: last)", "last": "Last epoch"}


def markdown(table: Table) -> str:
    heads = [
        *_labels(table),
        *(f"{HEADS[q]}{', last epoch' if e == 'last' else ''}" for e in EPOCHS for q in QUANTITIES),
    ]
    lines = [f"**{table.caption}**", "", _line(heads), _line(["---"] * len(heads))]
    lines += [_line(cells) for cells in _body(table)]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes), ""])


def latex(table: Table) -> str:
    """A table environment; needs booktabs and graphicx."""
    labels = _labels(table)
    width = len(QUANTITIES)
    first = len(labels) + 1
    heads = " & ".join(
        ["\\textbf{" + _tex(head) + "}" for head in [*labels, *(HEADS[q] for _ in EPOCHS for q in QUANTITIES)]]
    )
    groups = " & ".join([*[""] * len(labels), *(f"\\multicolumn{{{width}}}{{c}}{{{_tex(GROUPS[e])}}}" for e in EPOCHS)])
    rules = " ".join(f"\\cmidrule(lr){{{start}-{start + width - 1}}}" for start in (first, first + width))
    body: list[str] = []
    for row, cells in zip(table.rows, _body(table), strict=True):
        if body and (row.source == "paper" or cells[0]):
            body.append("\\addlinespace")
        body.append(" & ".join(_tex(cell) for cell in cells) + " \\\\")
    return "\n".join([
        "% needs \\usepackage{booktabs,graphicx}",
        "\\begin{table}", "\\centering",
        f"\\caption{{{_tex(table.caption)}.}}", f"\\label{{tab:{table.name}}}",
        "\\resizebox{\\linewidth}{!}{%",
        f"\\begin{{tabular}}{{{'l' * len(labels)}{'r' * width * len(EPOCHS)}}}", "\\toprule",
        f"{groups} \\\\", rules, f"{heads} \\\\", "\\midrule", *body, "\\bottomrule", "\\end{tabular}}",
        *("\\par\\smallskip{\\footnotesize " + _tex(note) + "}" for note in table.notes),
        "\\end{table}", "",
    ])  # fmt: skip


def data(table: Table) -> str:
    """Every number in full, a line a row of the table; run ids are joined by semicolons."""
    columns = [f"{e}_{q}_{part}" for e in EPOCHS for q in QUANTITIES for part in ("mean", "sd", "n", "expected")]
    lines = [["architecture", "method", "source", "setting", "status", *columns, "run_ids", "dense_run_ids", "commits"]]
    for row in table.rows:
        numbers = [text for e in EPOCHS for q in QUANTITIES for text in _numbers(row.values.get((e, q)))]
        traced = [";".join(names) for names in (row.run_ids, row.dense_run_ids, row.commits)]
        lines.append([row.model, row.method, row.source, row.setting, row.status, *numbers, *traced])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def cell(row: Row, epoch: str, quantity: str) -> str:
    """A number as a reader sees it: `97.90 ± 0.07 (n=5)`, `not run`, or empty where nothing is printed."""
    value = row.values.get((epoch, quantity))
    if value is None:
        return "" if row.source == "paper" or (row.values and quantity != "dense") else "not run"
    if row.source == "paper":
        return f"{value.mean:+.2f}" if quantity == "difference" else _spread(value, exact=quantity == "remaining")
    if value.n == 0:
        return f"not run (n=0/{value.expected})" if quantity != "difference" else ""
    if quantity == "difference":
        return f"{value.mean:+.2f}"
    return (
        f"{_spread(value)} (n={value.n})"
        if value.n == value.expected
        else f"{_spread(value)} (n={value.n}/{value.expected})"
    )


def _spread(value: Summary, *, exact: bool = False) -> str:
    if math.isnan(value.sd):
        return f"{value.mean:g}" if exact else f"{value.mean:.2f}"
    return f"{value.mean:.2f} ± {value.sd:.2f}"


def _labels(table: Table) -> list[str]:
    return ["Architecture", *(["Method"] if _several_methods(table) else []), "Source"]


def _several_methods(table: Table) -> bool:
    return len({row.method for row in table.rows}) > 1


def _body(table: Table) -> list[list[str]]:
    body = []
    before = ("", "")
    for row in table.rows:
        model = paper.ARCHITECTURES.get(row.model, row.model) if row.model != before[0] else ""
        method = paper.METHODS.get(row.method, row.method) if (row.model, row.method) != before else ""
        label = ", ".join(filter(None, [row.source, row.setting]))
        numbers = [cell(row, e, q) for e in EPOCHS for q in QUANTITIES]
        body.append([model, *([method] if _several_methods(table) else []), label, *numbers])
        before = (row.model, row.method)
    return body


def _numbers(value: Summary | None) -> list[str]:
    if value is None:
        return [""] * 4
    counts = ["", ""] if value.expected == 0 else [str(value.n), str(value.expected)]
    return [*("" if math.isnan(number) else repr(float(number)) for number in (value.mean, value.sd)), *counts]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"


def _tex(text: str) -> str:
    for plain, escaped in (
        ("\\", "\\textbackslash{}"),
        ("%", "\\%"),
        ("&", "\\&"),
        ("_", "\\_"),
        ("#", "\\#"),
        ("$", "\\$"),
        ("^", "\\^{}"),
        ("~", "\\~{}"),
    ):
        text = text.replace(plain, escaped)
    return text.replace("±", "$\\pm$").replace("alpha ", "$\\alpha$ ")
