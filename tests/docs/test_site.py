"""The site of `make docs` has no warning and no dead link, and fetches nothing from elsewhere."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest

import methods

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
EXHIBITS = Path("project/paper_figures/index.html")  # a page of its own, with tests of its own; its links are here


class Links(HTMLParser):
    """The links of a page, what it loads, and the places in it that a link can lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.places.add(values.get("id") or "")
        if tag == "a":
            self.links.append(values.get("href") or "")
        elif tag in ("img", "script", "link"):
            self.loaded.append(values.get("src") or values.get("href") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the extra [docs] is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = build("--site-dir", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def build(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    """Every page but the one for missing pages, whose links begin at the root of the server."""
    names = [page.relative_to(site) for page in site.rglob("*.html")]
    return {name: Links((site / name).read_text()) for name in names if name not in (Path("404.html"), EXHIBITS)}


def test_a_page_outside_the_navigation_a_dead_link_and_a_missing_anchor_are_errors(tmp_path: Path) -> None:
    """With the project's settings and command. `--quiet` would hide the warnings from `--strict`."""
    pytest.importorskip("mkdocs", reason="the extra [docs] is not installed")
    assert "mkdocs build --strict\n" in (ROOT / "Makefile").read_text()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# One\n\n[a](nowhere.md) [b](index.md#nowhere) [c](../nowhere)\n")
    (tmp_path / "docs/lost.md").write_text("# Two\n")
    own = "docs_dir: docs\nsite_dir: site\nnav: [index.md]\nhooks: []\nplugins: []\nexclude_docs: ''\n"
    (tmp_path / "mkdocs.yml").write_text(f"INHERIT: {ROOT}/mkdocs.yml\n{own}")
    done = build("--config-file", tmp_path / "mkdocs.yml")
    assert done.returncode == 1
    assert "Aborted with 4 warnings in strict mode!" in done.stdout + done.stderr


def test_every_link_leads_to_a_file_and_to_a_place_in_it(site: Path, pages: dict[Path, Links]) -> None:
    dead = []
    for page, found in pages.items():
        for link in [*found.links, *found.loaded]:
            path, _, place = unquote(link).partition("#")
            if re.match(r"\w+:", link):
                continue
            target = Path(os.path.normpath(page.parent / path)) if path else page
            if not (site / target).is_file() or (place and target in pages and place not in pages[target].places):
                dead.append((str(page), link))
    assert dead == []


def test_every_link_of_the_page_of_exhibits_leads_to_a_file_and_to_a_place_in_it(site: Path) -> None:
    found = Links((site / EXHIBITS).read_text())
    links = [unquote(link) for link in found.links if not re.match(r"\w+:", link)]
    files = {link for link in links if not link.startswith("#")}
    assert len(files) > 100
    assert [link for link in files if not (site / EXHIBITS.parent / link.partition("#")[0]).is_file()] == []
    assert [link for link in links if link.startswith("#") and link[1:] not in found.places] == []


def test_nothing_is_loaded_from_another_host(pages: dict[Path, Links]) -> None:
    loaded = {link for found in pages.values() for link in found.loaded}
    assert loaded
    assert [link for link in loaded if re.match(r"(https?:)?//", link)] == []


def test_a_method_in_the_table_leads_to_its_page_in_the_reference(pages: dict[Path, Links]) -> None:
    links = pages[Path("methods.html")].links
    assert [
        name for name in methods.registry.own() if f"reference/algorithms.html#methods.algorithms.{name}" not in links
    ] == []


def test_all_that_is_public_is_in_the_reference(pages: dict[Path, Links]) -> None:
    places = pages[Path("reference/methods.html")].places
    missing = [name for name in methods.__all__ if not any(f"methods.{name}" in place for place in places)]
    assert missing == []


@pytest.mark.parametrize(
    ("extra", "shown"),
    [({}, "slurm/ and `x[0](../slurm)`"), ({"repository": "R"}, "[slurm/](R/tree/HEAD/slurm) and `x[0](../slurm)`")],
)
def test_source_code_is_a_link_where_the_repository_is_known(extra: dict[str, str], shown: str) -> None:
    pytest.importorskip("mkdocs", reason="the extra [docs] is not installed")
    hook = runpy.run_path(str(ROOT / "docs/hooks/links.py"))["on_page_markdown"]
    file = SimpleNamespace(abs_src_path=str(ROOT / "docs/page.md"), src_uri="page.md")
    page, config = SimpleNamespace(file=file), SimpleNamespace(extra=extra)
    assert hook("[slurm/](../slurm) and `x[0](../slurm)`", page=page, config=config, files=None) == shown


def test_a_pipe_in_the_code_of_a_table_has_no_backslash(site: Path) -> None:
    assert "list suites|methods|models|data" in (site / "command-line.html").read_text()
    assert r"list suites\|methods\|models\|data" in (ROOT / "docs/command-line.md").read_text()


def test_the_notebook_is_a_page_and_a_file(site: Path) -> None:
    page = (site / "notebooks/dst_on_your_model.html").read_text()
    assert "data:image/png;base64," in page
    assert "of the weights kept" in page
    assert (site / "notebooks/dst_on_your_model.ipynb").is_file()
