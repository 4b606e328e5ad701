"""Links of the pages that leave docs/, and folders in the navigation.

The pages are read on a code host too, where they link to any file of the repository. On the site:

- A Markdown file from outside docs/ becomes a page under project/.
- Other documents (images, tables, the page of exhibits and what it links to) are copied there.
- A link to a method's file leads to the method in the reference.
- Links to other source code and to folders lead to the repository if mkdocs.yml has its address,
  `repository` under `extra`. Without an address they become text. (The theme's own `repo_url` would
  make each page ask the code host for its number of stars.)
"""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS, METHODS = ROOT / "docs", ROOT / "methods" / "algorithms"
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
CODE = r"`[^`]+`|"  # first, so that nothing inside code is taken for a link
LINK = re.compile(CODE + r"(?<!!)\[((?:!\[[^\]]*\]\([^)]*\)|[^\]])*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
IMAGE = re.compile(CODE + r"!\[([^\]]*)\]\((?!\w+:)([^)#\s]+)()\)")
BESIDE = re.compile(r'href="([\w.-]+)"')  # links of the page of exhibits to files of its own folder
DOCUMENTS = {".md", ".html", ".png", ".svg", ".pdf", ".csv", ".json"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """A folder in the navigation, such as `decisions/`, stands for its pages."""
    config.nav = _unfold(config.nav)
    return config


def _unfold(entry: Any) -> Any:
    if isinstance(entry, dict):
        return {title: _unfold(inner) for title, inner in entry.items()}
    if isinstance(entry, list):
        return [_unfold(inner) for inner in entry]
    if isinstance(entry, str) and entry.endswith("/"):
        pages = sorted((DOCS / entry).glob("*.md"), key=lambda page: (page.name != "README.md", page.name))
        return [page.relative_to(DOCS).as_posix() for page in pages]
    return entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents that pages link to, directly or through other documents."""
    waiting = list(files.documentation_pages())
    while waiting:
        page = waiting.pop()
        text = "".join(FENCED.split(page.content_string)[::2])
        for link in (*LINK.finditer(text), *IMAGE.finditer(text)):
            target = _target(page, link[2] or "")
            uri = _uri(target)
            if uri and uri.startswith("project/") and target.is_file() and uri not in files.src_uris:
                added = File.generated(config, uri, abs_src_path=str(target))
                files.append(added)
                waiting += [added] if added.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page outside of code blocks to the places of their targets on the site."""

    def rewritten(link: re.Match[str]) -> str:
        if link[2] is None:
            return link[0]
        target = _target(page.file, link[2])
        if target.parent == METHODS and target.suffix == ".py":
            return f"[{link[1]}][methods.algorithms.{target.stem}]"
        if not target.exists() or (uri := _uri(target)) == posixpath.normpath(link[2]):
            return link[0]
        if uri is None:
            repository, path = config.extra.get("repository"), target.relative_to(ROOT).as_posix()
            return f"[{link[1]}]({repository}/tree/HEAD/{path})" if repository else link[1]
        way = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
        return f"{'!' if link.re is IMAGE else ''}[{link[1]}]({way}{link[3] or ''})"

    parts = FENCED.split(markdown)
    parts[::2] = [IMAGE.sub(rewritten, LINK.sub(rewritten, part)) for part in parts[::2]]
    return "".join(parts)


def on_post_build(config: MkDocsConfig) -> None:
    """Copy the files that the page of exhibits links to. Its Markdown files do not become pages."""
    exhibits, copies = ROOT / "paper_figures", Path(config.site_dir) / "project/paper_figures"
    if (copies / "index.html").is_file():
        for name in set(BESIDE.findall((exhibits / "index.html").read_text())):
            shutil.copyfile(exhibits / name, copies / name)


def _target(page: File, link: str) -> Path:
    """The file that a link of a page leads to; for a folder its README.md, if there is one."""
    source = page.abs_src_path
    target = Path(posixpath.normpath((Path(source).parent if source else DOCS / page.src_uri / "..") / link))
    return target / "README.md" if (target / "README.md").is_file() else target


def _uri(target: Path) -> str | None:
    """The place of a file on the site, as a path from docs/; None if the site lacks the file."""
    if target.is_relative_to(DOCS):
        path = target.relative_to(DOCS)
        return (path.with_suffix(".md") if path.suffix == ".ipynb" else path).as_posix()
    if target.is_relative_to(ROOT) and target.suffix in DOCUMENTS:
        return f"project/{target.relative_to(ROOT).as_posix()}"
    return None
