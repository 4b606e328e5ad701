"""index.html: every exhibit of a build on one page, each number linked to its runs."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.data.conditions import Results
from analysis.output.exhibit import Written
from analysis.output.headings import heading
from analysis.output.page_results import results_table
from analysis.output.page_runs import RunIndex, left_out, networks, run_groups
from analysis.output.page_table import NOT_RUN, PageTable, page_table, tone
from analysis.output.picture import Mark, picture
from analysis.paper import printed

TEMPLATE, STYLE, SCRIPT = "page.html.j2", "page.css", "page.js"
ORDER = ("reproduced", "better", "inconclusive", "not reproduced", NOT_RUN)
OPEN_ROWS = 40  # an exhibit's table with more rows is folded away
LONG_WORD, PIECE = 15, re.compile(r"[^_-]{1,12}[_-]?|[_-]")  # such a word may break after each piece
ANSWERS = ("verdicts", "claims")  # their rows that were not run are folded away


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

    @property
    def folded(self) -> bool:
        """Whether its table is folded away: it has many rows or columns."""
        return self.table is not None and (len(self.table.rows) > OPEN_ROWS or self.table.many)


def write_page(
    results: Results, written: Sequence[Written], out: Path, *, verdicts: Sequence[tuple[str, Sequence[str]]] = ()
) -> Path:
    """Write index.html for these exhibits.

    verdicts: for each printed number the verdict at the last epoch, and the runs beside whose top-1
    accuracy it stands.
    """
    path = out / "index.html"
    path.write_text(page(results, written, verdicts=verdicts), encoding="utf-8")
    return path


def page(
    results: Results, written: Sequence[Written], *, verdicts: Sequence[tuple[str, Sequence[str]]] = ()
) -> str:  # fmt: skip
    """The page as HTML. Texts are escaped; style, script and pictures are inside."""
    import jinja2

    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["breaking"] = breaking
    script = (folder / SCRIPT).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(TEMPLATE).render(
        style=(folder / STYLE).read_text(encoding="utf-8"), script=script, script_hash=digest,
        citation=printed.CITATION, tone=tone, **_content(results, written, verdicts),
    )  # fmt: skip


def breaking(text: str) -> Any:
    """The text as HTML for narrow columns: lines may break in long words, not around ± or before %."""
    from markupsafe import Markup

    kept = text.replace(" ± ", "\u00a0±\u00a0").replace(" %", "\u00a0%")
    pieces = re.sub(rf"\S{{{LONG_WORD},}}", lambda word: "\0".join(PIECE.findall(word[0])), kept.replace("\0", ""))
    return Markup("<wbr>").join(pieces.split("\0"))


def _content(
    results: Results, written: Sequence[Written], verdicts: Sequence[tuple[str, Sequence[str]]]
) -> dict[str, Any]:
    groups = run_groups(results.tables.results)
    index = RunIndex(groups)
    by_run = {run_id: verdict for verdict, run_ids in verdicts for run_id in run_ids}
    drawn = [exhibit for exhibit in written if exhibit.panels]
    older = {run_id for condition in results.conditions for run_id in condition.older}
    sections = [section(exhibit, index.link) for exhibit in written if not exhibit.panels]
    with_runs = [s for s in sections if _shown(s) and s.runs]
    names = {exhibit.name for exhibit in written}
    return {
        "counts": _counts(verdict for verdict, _ in verdicts),
        "picture": picture(
            [panel for exhibit in drawn for panel in exhibit.panels], _mark_link(index.link, names), by_run
        ),
        "picture_files": [file.name for exhibit in drawn for file in exhibit.files],
        "results": page_table(results_table(results, by_run), index.link),
        "parts": _parts(with_runs),
        "without_runs": [s for s in sections if s not in with_runs],
        "claims": next((s for s in with_runs if s.name == "claims"), None),
        "statuses": sorted(Counter(results.tables.results["status"]).items()),
        "networks": networks(groups),
        "left_out": left_out(groups, older),
        "older": bool(older),
        "methods": len({c.method for c in results.conditions if len(c.done)}),
        "sets": list(index.listed()),
    }


def _mark_link(link: Callable[[Sequence[str]], str], names: set[str]) -> Callable[[Mark], str]:
    """The address that a point links to: its runs, or for a printed number the table that prints it."""
    return lambda mark: link(mark.run_ids) or (f"#{mark.exhibit}" if mark.exhibit in names else "")


def section(exhibit: Written, link: Callable[[Sequence[str]], str]) -> Section:
    table = None if exhibit.table is None else page_table(exhibit.table, link)
    if table is not None and exhibit.name in ANSWERS:
        table = table.fold_not_run()
    return Section(
        name=exhibit.name,
        heading=heading(exhibit.name),
        title=exhibit.title,
        finding=exhibit.finding,
        remark=exhibit.remark,
        table=table,
        figure=_figure(exhibit),
        files=tuple(file.name for file in exhibit.files),
        runs_href=link(exhibit.run_ids),
        runs=len(exhibit.run_ids),
    )


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


def _parts(shown: Sequence[Section]) -> list[tuple[str, str, list[Section]]]:
    """(anchor, heading, exhibits): the verdicts, the paper's exhibits in its order, its claims, ours."""
    paper = [s for s in shown if s.name == "verdicts" or re.fullmatch(r"(table|figure)A?\d+(-.*)?", s.name)]
    claims = [s for s in shown if s.name == "claims"]
    ours = [s for s in shown if s not in paper and s not in claims]
    parts = [
        ("paper", "The paper's tables and figures", sorted(paper, key=lambda s: s.name != "verdicts")),
        ("claims-in-words", "The paper's claims", claims),
        ("ours", "Not in the paper", ours),
    ]
    return [part for part in parts if part[2]]


def _counts(verdicts: Iterable[str]) -> list[tuple[str, int]]:
    """How many printed numbers have each verdict, for any n."""
    found = Counter(next((word for word in ORDER if verdict.startswith(word)), verdict) for verdict in verdicts)
    return sorted(found.items(), key=lambda item: (ORDER.index(item[0]) if item[0] in ORDER else len(ORDER), item[0]))
