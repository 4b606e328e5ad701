r"""On a code host `\|` stands for a pipe in a table's code; Python-Markdown takes the pipe as it is."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    lines = markdown.split("\n")
    return "\n".join(re.sub(r"`[^`]+`", _pipes, line) if line.startswith("|") else line for line in lines)


def _pipes(code: re.Match[str]) -> str:
    return code[0].replace(r"\|", "|")
