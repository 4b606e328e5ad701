"""The page: what is on it and where its links lead; and the manifest."""

from __future__ import annotations

import base64
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

from analysis import output
from analysis.build import build, exhibits
from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.output.exhibit import Written
from analysis.output.headings import heading
from analysis.output.manifest import write_manifest
from analysis.output.page import page
from analysis.output.page_table import page_table, tone
from analysis.output.table import Row, Table

VOID = {"meta", "link", "img", "br", "wbr"}


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


def test_the_page_needs_nothing_else_and_runs_only_its_own_script(built: Path) -> None:
    text = html(built)
    found = Page(text)
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    own = (Path(output.__file__).parent / "page.js").read_text()
    assert script == own
    assert len(own.splitlines()) <= 250
    assert not re.search(r"https?:|fetch\(|import|innerHTML|eval\(", own)
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    (policy,) = [a["content"] for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'")
    assert [tag for tag, _ in found.tags if tag == "script"] == ["script"]
    assert {name for _, a in found.tags for name in a if name.startswith("on")} == set()
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


def test_the_picture_has_our_points_and_the_papers(built: Path) -> None:
    text = html(built)
    panel = next(part for part in text.split('<figure class="panel">') if "<strong>Lenet-300-100, MNIST" in part)
    found = re.findall(r'<a class="dot( hollow)?" href="(#[^"]+)".*?<title>(.*?)</title>', panel, re.DOTALL)
    (printed,) = [(href, said.splitlines()) for hollow, href, said in found if hollow]
    assert printed == ("#table1", [
        "DST, alpha 0.0005: Lenet-300-100, MNIST", "printed in the paper: 97.69 ± 0.14 % test accuracy",
        "keeps 2.48 ± 0.21 % of the weights",
    ])  # fmt: skip
    (ours,) = [(href, said) for hollow, href, said in found if not hollow and said.startswith("DST, alpha 0.0005:")]
    with (built / "table1.csv").open() as file:
        (row,) = (
            r for r in csv.DictReader(file)
            if r["source"] == "ours" and r["setting"] == "alpha 0.0005" and r["architecture"] == "lenet-300-100"
        )  # fmt: skip
    assert ours[0] in {f"#run-{run_id}" for run_id in row["run_ids"].split(";")}
    assert f"{float(row['last_sparse_mean']):.2f} ± {float(row['last_sparse_sd']):.2f} % test accuracy" in ours[1]
    assert f"the printed number: {row['verdict']}" in ours[1]


def test_lost_and_departing_cells_are_listed(built: Path) -> None:
    part = html(built).split('id="left-out"')[1].split('id="runs"')[0]
    assert "drift: torch 2.11" in part
    assert '<td data-head="Why" class="fields">failed</td>' in part
    assert "diverged" in part


def test_verdicts_come_first_and_are_counted(results: Path, tmp_path: Path) -> None:
    tables = load([results])
    found = Results(tables)
    written = build(tables, tmp_path, only=["table1", "verdicts"])
    said = ("reproduced", "inconclusive (n=2)", "inconclusive (n=3)")
    text = page(found, written, verdicts=[(verdict, ()) for verdict in said])
    assert Page(text).open == []
    assert text.index('class="verdicts"') < text.index('id="results"') < text.index('id="verdicts"')
    assert text.index('id="verdicts"') < text.index('id="table1"')
    counted = re.findall(r'<span class="mark (\w+)">(\d+ [a-z ]+)</span>', text.split("</h2>")[1])
    assert counted == [("good", "1 reproduced"), ("open", "2 inconclusive")]


def test_exhibits_that_are_not_run_are_named(tmp_path: Path) -> None:
    rows = [synthetic.cell("lenet-300-100", "dense", 0)]
    build(load([synthetic.write(tmp_path / "in", rows)]), tmp_path / "out")
    text = html(tmp_path / "out")
    part = text.split('id="without-runs"')[1].split('id="runs"')[0]
    assert 'id="figure5">Figure 5 <span class="soft">(not run)</span></li>' in part
    assert '<li id="table2"><details><summary>Table 2 <span class="soft">(no runs yet)</span></summary>' in part
    assert text.count('id="table2"') == 1


@pytest.mark.parametrize("verdict", ["not run", "reproduced"])
def test_they_are_folded_away_where_no_number_of_the_paper_was_run(verdict: str, tmp_path: Path) -> None:
    given = Results(load([synthetic.write(tmp_path, [synthetic.cell("lenet-300-100", "dense", 0)])]))
    text = page(given, [Written(name="figure5", remark="not run")], verdicts=[(verdict, ())])
    opened = {"not run": "<details>", "reproduced": "<details open>"}[verdict]
    assert f"{opened}\n<summary>1 exhibit uses" in text.split('id="without-runs"')[1]


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


@pytest.mark.parametrize(("heads", "folded"), [(("What", "Best", "Verdict"), 0), (("What", "Best", "Last"), 1)])
def test_a_row_with_a_verdict_is_not_folded_away_because_of_another_reading(
    heads: tuple[str, ...], folded: int
) -> None:
    table = Table("name", "", heads, (Row(("a", "not run", "reproduced"), ("s",)), Row(("b", "1.0", "2.0"), ("t",))))
    assert len(page_table(table, lambda ids: "").fold_not_run().not_run) == folded


def test_verdicts_have_a_tone() -> None:
    words = ("reproduced", "not reproduced", "inconclusive (n=2)", "not run", "not run (n=0/3)", "97.9", "")
    assert [tone(word) for word in words] == ["good", "bad", "open", "none", "none", "", ""]


def test_headings_are_words_and_no_file_names(results: Path) -> None:
    names = ("table1", "table2-verdicts", "figure8-default-alpha", "mnist-figure7", "mnist-lenet-5-caffe-resets")
    assert [heading(name) for name in names] == [
        "Table 1", "Table 2: verdicts at every alpha", "Figure 8: default alpha", "MNIST: the sparse pattern",
        "MNIST, Lenet-5-Caffe: resets of thresholds",
    ]  # fmt: skip
    made = [name for name in exhibits(Results(load([results]))) if not re.fullmatch(r"(table|figure)\d+", name)]
    headings = [heading(name) for name in made]
    assert len(set(headings)) == len(headings)
    assert [name for name, text in zip(made, headings, strict=True) if text.lower().replace(" ", "-") == name] == []
    assert [text for text in headings if " " not in text] == []


def test_a_figure_says_what_it_shows(results: Path, tmp_path: Path) -> None:
    tables = load([results])
    found = Results(tables)
    png = tmp_path / "figure9.png"
    png.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (20).to_bytes(4, "big") + (10).to_bytes(4, "big"))
    text = page(found, [Written(name="figure9", title="T", finding='It falls to "3 %".', files=(png,))])
    assert 'width="20" height="10" alt="It falls to &#34;3 %&#34;."' in text
