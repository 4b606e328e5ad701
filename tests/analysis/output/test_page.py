"""The page: what is on it, where its links lead, and how a browser takes it; and the manifest."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import synthetic
import synthetic_claims
from browser import CHROMIUM, Browser

from analysis.build import build
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.output.exhibit import Written
from analysis.output.manifest import write_manifest
from analysis.output.page import heading, page, page_table, tone
from analysis.output.table import Row, Table

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Tags with their attributes, and whether every tag is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def values(self, tag: str, attribute: str) -> list[str]:
        return [value for name, found in self.tags if name == tag and (value := found.get(attribute)) is not None]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST of the world in which the claims hold."""
    return world(tmp_path_factory.mktemp("results"), datasets=("mnist",))


def world(root: Path, **part: Sequence[str]) -> Path:
    """Results with a cell that failed, one that departs, and markup in its words."""
    folder = synthetic_claims.write(root, holds=True, **part)
    lost = synthetic.cell("lstm-a", "set", 0, density=0.02, status="failed") | {
        "error": "<script>alert(1)</script> & so"
    }
    departing = synthetic.cell("lstm-a", "set", 1, density=0.02, departs="drift: torch 2.11")
    extra = folder / "extra"
    synthetic.write(extra, [lost, departing])
    return folder


@pytest.fixture(scope="module")
def built(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictured(results, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exhibits of every data set."""
    return pictured(world(tmp_path_factory.mktemp("every")), tmp_path_factory.mktemp("whole"))


def pictured(results: Path, out: Path) -> Path:
    """All exhibits, figures only as PNG: the page shows no other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.output.plotting.FORMATS", {"png": {}})
        build(load([results]), out)
    return out


def html(built: Path) -> str:
    return (built / "index.html").read_text(encoding="utf-8")


def test_every_tag_is_closed_and_every_link_leads_somewhere(built: Path) -> None:
    found = Page(html(built))
    assert found.open == []
    ids = Counter(value for _, attributes in found.tags if (value := attributes.get("id")) is not None)
    assert [name for name, count in ids.items() if count > 1] == []
    links = found.values("a", "href")
    assert {link for link in links if link.startswith("#") and link[1:] not in ids} == set()
    assert {link for link in links if not link.startswith("#") and not (built / link).exists()} == set()
    assert {name for _, a in found.tags if (name := a.get("aria-labelledby"))} <= set(ids)


def test_the_page_needs_nothing_else_and_runs_nothing(built: Path) -> None:
    text = html(built)
    found = Page(text)
    assert "script" not in {tag for tag, _ in found.tags}
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; so" in text
    assert found.values("link", "href") == ["data:,"]
    assert all(source.startswith("data:image/png;base64,") for source in found.values("img", "src"))
    assert not re.search(r"url\(|@import", text)


def test_screen_readers_find_their_way(built: Path) -> None:
    found = Page(html(built))
    tags = Counter(tag for tag, _ in found.tags)
    assert [tags[name] for name in ("header", "main", "nav", "footer", "h1")] == [1, 1, 1, 1, 1]
    assert tags["caption"] == tags["table"] > 3
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in found.tags if tag == "th")
    assert found.tags[next(i for i, (tag, _) in enumerate(found.tags) if tag == "a")][1] == {
        "class": "skip",
        "href": "#main",
    }
    assert all(len(text) > 20 for text in found.values("img", "alt"))
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_a_number_leads_to_its_own_runs(built: Path) -> None:
    text = html(built)
    with (built / "table1.csv").open() as file:
        (row,) = (
            r
            for r in csv.DictReader(file)
            if r["source"] == "ours" and r["setting"] == "alpha 0.0005" and "300" in r["architecture"]
        )
    lines = [line for line in text.splitlines() if "ours, alpha 0.0005" in line and "#run-" in line]
    (line,) = (line for line in lines if ">last<" in line and "Lenet-300" in line)
    links = re.findall(r'href="#run-(\w+)">', line)
    assert set(links) <= {*row["run_ids"].split(";"), *row["dense_run_ids"].split(";")}
    assert links[0] in row["dense_run_ids"].split(";")
    assert links[1] in row["run_ids"].split(";")
    for run_id in row["run_ids"].split(";"):
        assert f'<li id="run-{run_id}"><code>{run_id}</code> seed ' in text


def test_lost_and_departing_cells_are_listed(built: Path) -> None:
    part = html(built).split('id="left-out"')[1].split('id="runs"')[0]
    assert "drift: torch 2.11" in part
    assert '<td class="fields">failed</td>' in part
    assert "diverged" in part


def test_verdicts_come_first_and_are_counted(results: Path, tmp_path: Path) -> None:
    tables = load([results])
    found = Results(tables)
    written = build(tables, tmp_path, only=["table1", "verdicts"])
    text = page(found, written, verdicts=["reproduced", "inconclusive (n=2)", "inconclusive (n=3)"])
    assert Page(text).open == []
    assert text.index("Number by number") < text.index('id="table1"')
    assert '<b>1</b> <span class="mark good">reproduced</span>' in text
    assert re.search(r'<b>2</b> <span class="mark [a-z]+">inconclusive</span>', text)
    assert text.count("<li><b>") == 2


def test_exhibits_that_are_not_run_are_named(tmp_path: Path) -> None:
    rows = [synthetic.cell("lenet-300-100", "dense", 0)]
    build(load([synthetic.write(tmp_path / "in", rows)]), tmp_path / "out")
    part = html(tmp_path / "out").split('id="missing"')[1]
    assert "Figure 5" in part
    assert "(not run)" in part


def test_only_leaves_the_page_as_it_is(results: Path, tmp_path: Path) -> None:
    build(load([results]), tmp_path, only=["table1"])
    assert not (tmp_path / "index.html").exists()
    (tmp_path / "index.html").write_text("mine")
    build(load([results]), tmp_path, only=["table1"])
    assert (tmp_path / "index.html").read_text() == "mine"


def test_the_manifest_has_the_hashes_of_files_and_rows(results: Path, built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    for name, entry in manifest["exhibits"].items():
        assert all(file.startswith(name) for file in entry["files"])
        for file, digest in entry["files"].items():
            assert hashlib.sha256((built / file).read_bytes()).hexdigest() == digest
        assert set(entry["run_ids"]) <= set(manifest["rows"])
    assert hashlib.sha256((built / "index.html").read_bytes()).hexdigest() == manifest["pages"]["index.html"]
    assert manifest["exhibits"]["claims"]["run_ids"]


def test_a_changed_row_or_trace_changes_its_hash_alone(results: Path, tmp_path: Path) -> None:
    tables = load([results])
    run_ids = [str(run_id) for run_id in tables.results["run_id"]]
    traced = str(tables.traces["run_id"].iloc[-1])
    shown = [
        Written(name=name, run_ids=(run_id,)) for name, run_id in (("a", run_ids[0]), ("b", traced), ("c", run_ids[1]))
    ]
    before = json.loads(write_manifest(tables, shown, [], tmp_path).read_text())
    tables.results.loc[tables.results["run_id"] == run_ids[0], "train_flops"] = 17.0
    tables.traces.iloc[-1, list(tables.traces.columns).index("value")] = 0.123
    after = json.loads(write_manifest(tables, shown, [], tmp_path).read_text())
    assert {i for i in before["rows"] if before["rows"][i]["results"] != after["rows"][i]["results"]} == {run_ids[0]}
    assert {i for i in before["rows"] if before["rows"][i].get("traces") != after["rows"][i].get("traces")} == {traced}
    entries = before["exhibits"]
    changed = {n for n in entries if entries[n]["rows_sha256"] != after["exhibits"][n]["rows_sha256"]}
    assert changed == {"a", "b"}


def test_numbers_link_to_the_runs_of_their_row_and_blank_labels_repeat_the_ones_above() -> None:
    rows = (Row(("a | b", "1.0", "2.0", "7"), ("s",), ("d",)), Row(("", "not run", "3.0", "7"), ("t",)))
    heads = ("Architecture", "Dense", "Sparse", "Printed")
    table = Table("name", "A caption", heads, rows, ("a note",), measured=("Dense", "Sparse"))
    found = page_table(table, lambda run_ids: "#" + run_ids[0])
    assert (found.caption, found.heads, found.notes) == ("A caption", heads, ("a note",))
    assert [(cell.text, cell.href) for cell in found.rows[0]] == [
        ("a | b", ""), ("1.0", "#d"), ("2.0", "#s"), ("7", ""),
    ]  # fmt: skip
    assert [(cell.text, cell.repeated, cell.tone, cell.href) for cell in found.rows[1]] == [
        ("a | b", True, "", ""), ("not run", False, "none", ""), ("3.0", False, "", "#t"), ("7", False, "", ""),
    ]  # fmt: skip
    labelled = page_table(
        Table("name", "", ("Source", "Sparse"), (Row(("5 % kept", "2.0"), ("s",)),)), lambda ids: "#s"
    )
    assert [cell.href for cell in labelled.rows[0]] == ["", "#s"]


def test_verdicts_have_a_tone_and_exhibits_a_heading() -> None:
    words = ("reproduced", "not reproduced", "inconclusive (n=2)", "not run", "not run (n=0/3)", "97.9", "")
    assert [tone(word) for word in words] == ["good", "bad", "open", "none", "none", "", ""]
    names = ("table1", "tableA2", "figure12", "digits-figure7", "pattern-consistency")
    spelled = ("mnist-lenet-5-caffe-resets", "mnist-accuracy-flops", "lstm-counting")
    assert [heading(name) for name in spelled] == [
        "MNIST Lenet-5-Caffe resets", "MNIST accuracy FLOPs", "LSTM counting",
    ]  # fmt: skip
    assert [heading(name) for name in names] == [
        "Table 1", "Table A.2", "Figure 12", "Digits figure 7", "Pattern consistency",
    ]  # fmt: skip


def test_a_figure_says_what_it_shows(results: Path, tmp_path: Path) -> None:
    tables = load([results])
    found = Results(tables)
    png = tmp_path / "figure9.png"
    png.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (20).to_bytes(4, "big") + (10).to_bytes(4, "big"))
    text = page(found, [Written(name="figure9", title="T", finding='It falls to "3 %".', files=(png,))])
    assert 'width="20" height="10" alt="It falls to &#34;3 %&#34;."' in text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_shows_the_page_without_complaint_or_overflow(whole: Path, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile") as browser:
        for width in (1280, 390):
            for dark in (False, True):
                browser.open(whole / "index.html", width=width, dark=dark)
                assert browser.evaluate("innerWidth") == width
                assert browser.evaluate("document.documentElement.scrollWidth") <= width
                assert browser.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
                assert (browser.complaints, browser.requests) == ([], [])
                assert lowest_contrast(browser) >= 4.5
        browser.open(whole / "index.html", width=390)
        first = browser.evaluate("document.querySelector('td a[href^=\"#run-\"]').hash.slice(1)")
        browser.evaluate("location.hash = '%s'" % first)  # noqa: UP031
        assert browser.evaluate("document.querySelector(':target').id") == first
        assert browser.evaluate("document.querySelector(':target').getBoundingClientRect().height") > 0


def lowest_contrast(browser: Browser) -> float:
    """The smallest WCAG contrast of any text on the page with what is painted behind it."""
    return float(
        browser.evaluate("""(() => {
      const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
      const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
      const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
        if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
      let least = 21;
      for (const e of document.body.querySelectorAll('*')) {
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
        const a = light(parse(getComputedStyle(e).color)), b = light(behind(e));
        least = Math.min(least, (Math.max(a, b) + .05) / (Math.min(a, b) + .05));
      }
      return least; })()""")
    )
