"""index.html: every exhibit of a build on one page, each number linked to its runs."""

from __future__ import annotations

import base64
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.data.conditions import Results
from analysis.output.exhibit import Written
from analysis.output.page_runs import RunIndex, left_out, networks, run_groups
from analysis.output.table import Row, Table
from analysis.paper import printed

TEMPLATE, STYLE = "page.html.j2", "page.css"
ORDER = ("reproduced", "better", "inconclusive", "not reproduced", "not run")
VERDICTS = {
    "supported": "good", "reproduced": "good", "better": "good", "not supported": "bad", "not reproduced": "bad",
    "mixed": "open", "inconclusive": "open", "not run": "none",
}  # fmt: skip
OPEN_RUNS = 500  # the appendix stands open for up to so many runs
LONG = 60  # characters; a table with a longer cell is shown as cards on narrow screens
SPELLED = {
    **{model.replace("-", " "): name for model, name in printed.ARCHITECTURES.items()},
    **{dataset: printed.dataset(dataset) for dataset in printed.DATASETS}, "lstm": "LSTM", "flops": "FLOPs",
}  # fmt: skip
FOLDED = 4  # more notes than these that begin alike are folded away

Link = Callable[[Sequence[str]], str]  # run ids -> the address of what the page says of them


@dataclass(frozen=True)
class Cell:
    """One cell of a table on the page.

    text; head: the heading of its column; href: the runs it came from, or empty; tone: good, bad,
    open, none or empty. repeated: whether the text is that of the row above, whose cell below it is
    blank.
    """

    text: str
    head: str
    href: str = ""
    tone: str = ""
    repeated: bool = False


@dataclass(frozen=True)
class PageTable:
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]

    @property
    def folded(self) -> tuple[str, ...]:
        """Notes that begin alike, where there are many of them."""
        starts = Counter(note.partition(":")[0] for note in self.notes)
        return tuple(note for note in self.notes if starts[note.partition(":")[0]] > FOLDED)

    @property
    def prose(self) -> bool:
        return any(len(cell.text) > LONG for row in self.rows for cell in row)


@dataclass(frozen=True)
class Figure:
    """A picture within the page.

    source: a data URI; width, height: of the bitmap; text: its alternative.
    """

    source: str
    width: int
    height: int
    text: str


@dataclass(frozen=True)
class Section:
    """An exhibit on the page."""

    name: str
    heading: str
    title: str
    finding: str
    remark: str
    table: PageTable | None
    figure: Figure | None
    files: tuple[str, ...]
    runs_href: str
    runs: int


def write_page(results: Results, written: Sequence[Written], out: Path, *, verdicts: Sequence[str] = ()) -> Path:
    """Write index.html for these exhibits.

    verdicts: the verdict on each printed number at the last epoch, counted first.
    """
    path = out / "index.html"
    path.write_text(page(results, written, verdicts=verdicts), encoding="utf-8")
    return path


def page(results: Results, written: Sequence[Written], *, verdicts: Sequence[str] = ()) -> str:
    """The page as HTML; autoescaped, without scripts, styles and pictures within it."""
    import jinja2

    groups = run_groups(results.tables.results)
    index = RunIndex(groups)
    sections = [section(exhibit, index) for exhibit in written]
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    statuses = Counter(results.tables.results["status"])
    return environment.get_template(TEMPLATE).render(
        style=(folder / STYLE).read_text(encoding="utf-8"), citation=printed.CITATION,
        counts=_counts(verdicts), parts=_parts(sections),
        missing=[s for s in sections if not _shown(s)],
        statuses=sorted(statuses.items()), networks=networks(groups), left_out=left_out(groups),
        open_runs=sum(len(group.runs) for group in groups) <= OPEN_RUNS, claims=_named(sections, "claims"),
        summary=_named(sections, "verdicts"),
        link=index.link, sets=list(index.listed()), tone=tone,
    )  # fmt: skip


def section(exhibit: Written, index: RunIndex) -> Section:
    return Section(
        name=exhibit.name,
        heading=heading(exhibit.name),
        title=exhibit.title,
        finding=exhibit.finding,
        remark=exhibit.remark,
        table=None if exhibit.table is None else page_table(exhibit.table, index.link),
        figure=_figure(exhibit),
        files=tuple(file.name for file in exhibit.files),
        runs_href=index.link(exhibit.run_ids),
        runs=len(exhibit.run_ids),
    )


def page_table(table: Table, link: Link) -> PageTable:
    """A table with links from its numbers to their runs, and without blanks below a label."""
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
    """The colour of a verdict, by its words; empty for what is no verdict."""
    word = re.sub(r"[ (,:].*", "", text) if text.startswith("inconclusive") else re.split(r" \(|[,:]", text)[0]
    return VERDICTS.get(word, "")


def heading(name: str) -> str:
    """`Table 1`, `Figure 7`, `Table A.2`; `MNIST figure 7`; other names in words."""
    if found := re.fullmatch(r"(table|figure)(A?)(\d+)", name):
        return f"{found[1].capitalize()} {'A.' if found[2] else ''}{found[3]}"
    words = re.sub(r"(table|figure)(\d+)", r"\1 \2", name.replace("-", " "))
    for word, written in SPELLED.items():
        words = re.sub(rf"\b{word}\b", written, words)
    return words[:1].upper() + words[1:]


def _figure(exhibit: Written) -> Figure | None:
    file = next((file for file in exhibit.files if file.suffix == ".png"), None)
    if file is None:
        return None
    content = file.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    text = exhibit.finding or f"{exhibit.title}. The data behind it are in {exhibit.name}.csv."
    return Figure(f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height, text)


def _shown(section: Section) -> bool:
    return bool(section.figure or section.table)


def _parts(sections: Sequence[Section]) -> list[tuple[str, str, list[Section]]]:
    """(anchor, heading, exhibits that there are): the paper's in its order, its claims, ours."""
    shown = [s for s in sections if _shown(s) and s.name != "verdicts"]
    printed = [s for s in shown if re.fullmatch(r"(table|figure)A?\d+(-.*)?", s.name)]
    claims = [s for s in shown if s.name == "claims"]
    ours = [s for s in shown if s not in printed and s not in claims]
    parts = [
        ("paper", "The paper's tables and figures", printed),
        ("claims-in-words", "The paper's claims", claims),
        ("ours", "Not in the paper", ours),
    ]
    return [part for part in parts if part[2]]


def _counts(verdicts: Iterable[str]) -> list[tuple[str, int]]:
    """How many printed numbers have which verdict, whatever its n."""
    found = Counter(next((word for word in ORDER if verdict.startswith(word)), verdict) for verdict in verdicts)
    return sorted(found.items(), key=lambda item: (ORDER.index(item[0]) if item[0] in ORDER else len(ORDER), item[0]))


def _named(sections: Sequence[Section], name: str) -> Section | None:
    return next((s for s in sections if s.name == name), None)
