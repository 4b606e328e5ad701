"""The code blocks of the pages: which ones a reader should run, and what the page says they need."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = ("sh", "python", "console")  # console: lines that begin with $, and what they print
SHOWN = ("text", "toml")
OURS = re.compile(r"-m (benchmark|analysis) |^make ")
NEEDS = re.compile(r"needs? (a cluster|a GPU|ImageNet|MNIST|a network)|\b(minutes|hours|days)\b")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str  # from the root of the repository
    language: str
    text: str
    around: str  # the paragraph above the block, and the block: where a reader looks for what it needs

    @property
    def marked(self) -> bool:
        """Whether the page says that it needs minutes, a network, data or a special machine."""
        return NEEDS.search(" ".join(self.around.split())) is not None

    @property
    def commands(self) -> list[list[str]]:
        """The words of this project's commands and `make TARGET` in a shell block, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines() if self.language in ("sh", "console") else []
        ours = [line.removeprefix("$ ") for line in lines if OURS.search(line)]
        return [shlex.split(line, comments=True) for line in ours]

    def __str__(self) -> str:
        return f"{self.page}: {self.text.splitlines()[0]}"


def blocks(page: Path) -> list[Block]:
    text, found = page.read_text(), []
    for match in BLOCK.finditer(text):
        above = text[: match.start()].rstrip("\n").rpartition("\n\n")[2]
        name = page.relative_to(ROOT).as_posix()
        found.append(Block(page=name, language=match[1], text=match[2], around=f"{above}\n{match[2]}"))
    return found


ALL = [block for page in PAGES for block in blocks(page)]
