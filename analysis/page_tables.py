"""An exhibit's table as the page shows it: what its Markdown says, with links to the runs that its CSV names."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Link = Callable[[Sequence[str]], str]  # run ids -> the address of what the page says of them
VERDICTS = {
    "supported": "good", "reproduced": "good", "better": "good", "not supported": "bad", "not reproduced": "bad",
    "mixed": "open", "inconclusive": "open", "not run": "none",
}  # fmt: skip
LABELS = ("Architecture", "Method")  # columns that leave out what the row above says
PROSE = 60  # characters from which a cell is text to read, and its table one that narrow screens show as cards
FOLDED = 4
LINKED = 60  # numbers are short: longer texts with digits in them get no link
NOT_OURS = ("Paper", "Section", "Printed", "Stated", "alpha", "Thresholds", "Overhead", "Layers", "Rankings")
EVIDENCE = ("Our numbers",)


@dataclass(frozen=True)
class Cell:
    """text; head: of its column; href: the runs it came from, or empty; tone: good, bad, open, none or empty."""

    text: str
    head: str
    href: str = ""
    tone: str = ""
    again: bool = False  # repeats what the row above says


@dataclass(frozen=True)
class PageTable:
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]

    @property
    def folded(self) -> tuple[str, ...]:
        """Notes that begin alike, where they are so many that a reader wants them out of the way."""
        starts = Counter(note.partition(":")[0] for note in self.notes)
        return tuple(note for note in self.notes if starts[note.partition(":")[0]] > FOLDED)

    @property
    def prose(self) -> bool:
        return any(len(cell.text) > PROSE for row in self.rows for cell in row)


def page_tables(files: Sequence[Path], link: Link) -> list[PageTable]:
    """The tables of an exhibit's Markdown file; none where it has no such file."""
    markdown = next((file for file in files if file.suffix == ".md"), None)
    if markdown is None:
        return []
    traced = [record for file in files if file.suffix == ".csv" for record in _records(file)]
    blocks = _blocks(markdown.read_text(encoding="utf-8"))
    bodies = [[split(line) for line in lines[2:]] for _, lines, _ in blocks]
    runs = _aligned([texts for body in bodies for texts in body], traced)
    tables, at = [], 0
    for (caption, lines, notes), body in zip(blocks, bodies, strict=True):
        heads = split(lines[0])
        tables.append(PageTable(caption, tuple(heads), _rows(heads, body, runs[at : at + len(body)], link), notes))
        at += len(body)
    return tables


def _aligned(body: Sequence[Sequence[str]], records: Sequence[Mapping[str, str]]) -> Sequence[Mapping[str, str]]:
    """The record of the CSV behind each row: in turn, where they are as many; else by what names a row.

    That is its `cell`, or its source and setting; a row of `ours − paper` has the record of the row above.
    """
    if len(body) == len(records):
        return records
    found: list[Mapping[str, str]] = []
    at = 0
    for texts in body:
        if any(text.startswith("ours − ") for text in texts) and found:
            found.append(found[-1])
            continue
        places = [i for i in range(at, len(records)) if _names(records[i]) & set(texts)]
        at = places[0] + 1 if places else at
        found.append(records[places[0]] if places else {})
    return found


def _names(record: Mapping[str, str]) -> set[str]:
    labels = ", ".join(filter(None, [record.get("source", ""), record.get("setting", "")]))
    return {name for name in (record.get("cell", ""), labels if record.get("source") else "") if name}


def split(line: str) -> list[str]:
    """The cells of a line of a pipe table; `\\|` is a bar in a cell."""
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def tone(text: str) -> str:
    """What colour a verdict has, by its words; empty for what is no verdict."""
    word = re.sub(r"[ (,:].*", "", text) if text.startswith("inconclusive") else re.split(r" \(|[,:]", text)[0]
    return VERDICTS.get(word, "")


def _blocks(text: str) -> list[tuple[str, list[str], tuple[str, ...]]]:
    """(caption, lines of the table, notes) of each table in a Markdown file."""
    found: list[tuple[str, list[str], list[str]]] = []
    caption = ""
    inside = False
    for line in text.splitlines():
        if line.startswith("|"):
            if not inside:
                found.append((caption, [], []))
                caption = ""
            found[-1][1].append(line)
        elif line.startswith("**"):
            caption = line.strip("*")
        elif line.startswith("- ") and found:
            found[-1][2].append(line.removeprefix("- "))
        inside = line.startswith("|")
    return [(caption, lines, tuple(notes)) for caption, lines, notes in found if len(lines) > 1]


def _rows(
    heads: Sequence[str], body: Sequence[Sequence[str]], runs: Sequence[Mapping[str, str]], link: Link
) -> tuple[tuple[Cell, ...], ...]:
    rows: list[tuple[Cell, ...]] = []
    for texts, traced in zip(body, runs, strict=True):
        cells = [_cell(text, head, traced, link, first=i == 0) for i, (text, head) in enumerate(zip(texts, heads))]  # noqa: B905
        if cells and not cells[0].text and rows:
            for i in [i for i, head in enumerate(heads) if i == 0 or head in LABELS]:
                cells[i] = cells[i] if cells[i].text else Cell(rows[-1][i].text, heads[i], again=True)
        rows.append(tuple(cells))
    return tuple(rows)


def _cell(text: str, head: str, traced: Mapping[str, str], link: Link, *, first: bool) -> Cell:
    column = "dense_run_ids" if "dense" in head.lower() and "dense_run_ids" in traced else "run_ids"
    run_ids = [name for name in traced.get(column, "").split(";") if name]
    number = re.match(r"[+×-]?\d", text) and len(text) <= LINKED and not head.startswith(NOT_OURS)
    linked = not first and run_ids and (number or (head in EVIDENCE and len(text) > 1))
    return Cell(text, head, link(run_ids) if linked else "", tone(text))


def _records(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as content:
        return list(csv.DictReader(content))
