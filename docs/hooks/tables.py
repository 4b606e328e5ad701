r"""Removes the backslash of `\|` in the code of tables: code hosts need it, Python-Markdown shows it."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    lines = markdown.split("\n")
    return "\n".join(re.sub(r"`[^`]+`", _pipes, line) if line.startswith("|") else line for line in lines)


def _pipes(code: re.Match[str]) -> str:
    return code[0].replace(r"\|", "|")
