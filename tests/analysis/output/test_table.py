"""Any text in a cell stays in its cell, in every form of a table."""

from __future__ import annotations

import csv
import io
import re

import pytest

from analysis.output.table import Row, Table, csv_text, latex, markdown

BROKEN = {  # and what a row of one line shows
    "two\nlines": "two lines",
    "old\r\nwindows": "old windows",
    "a\rreturn": "a return",
    "blank \n\n line": "blank line",
    "bell\a and \x1b[31m": "bell and [31m",
    "\u2028 separated": "separated",
}
TEXTS = [
    *BROKEN,
    "pipe | a",
    "back\\slash",
    "both \\| of them",
    "ends in \\",
    "100 % of $5 & #1_a {b} ~c ^d",
    "[1em] a width",
    "* a star",
    "=HYPERLINK(1)",
    'quo"te, comma',
]


def table(text: str) -> Table:
    """The text in every place of a table of two rows."""
    cells = (text, "1", text)
    return Table("name", text, ("head", text, "last"), (Row(cells), Row(cells, starts=True)), notes=(text, "note"))


def cells_of(line: str) -> list[str]:
    """The cells of a Markdown row as a reader sees them: `|` separates unless a backslash escapes it."""
    found = re.findall(r"((?:[^\\|]|\\.)*)\|", line)
    return [re.sub(r"\\([\\|])", r"\1", cell).strip() for cell in found[1:]]


@pytest.mark.parametrize("text", TEXTS)
def test_markdown_keeps_rows_and_cells(text: str) -> None:
    lines = markdown(table(text)).split("\n")
    assert [line[:2] for line in lines] == ["**", "", "| ", "| ", "| ", "| ", "", "- ", "- ", ""]
    shown = BROKEN.get(text, text)
    assert [cells_of(line) for line in (lines[2], *lines[4:6])] == [["head", shown, "last"], *[[shown, "1", shown]] * 2]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("widths", [(), (0.3, 0.3, 0.4)], ids=["scaled", "longtable"])
def test_latex_keeps_rows_and_cells(text: str, widths: tuple[float, ...]) -> None:
    plain, odd = (
        latex(Table(**{**vars(table(content)), "widths": widths})).splitlines() for content in ("plain", text)
    )
    assert len(plain) == len(odd), "each line is the line of a plain table"
    rows = [line for line in odd if line.endswith(" \\\\") and not line.startswith("\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [2, 2]
    for row in rows:
        assert not row.startswith(("[", "*")), "LaTeX takes it for an option of the line before"
        assert not re.search(r"(?<!\\)[%#_]|[\x00-\x1f|]", row)


@pytest.mark.parametrize("text", TEXTS)
def test_csv_keeps_rows_and_cells(text: str) -> None:
    """Data, as it is: a spreadsheet's formula too. A carriage return is a line break."""
    written = csv_text([{"first": text, "second": 1.5}] * 2)
    rows = list(csv.DictReader(io.StringIO(written, newline="")))
    assert rows == [{"first": text.replace("\r\n", "\n").replace("\r", "\n"), "second": "1.5"}] * 2
