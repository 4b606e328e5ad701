"""What commands print for people."""

from __future__ import annotations

import pytest
from rich.table import Table

from benchmark.commands.output import console, say


def test_text_that_looks_like_a_style_or_an_emoji_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "package:X: [bold] a"
    table = Table(box=None, show_header=False)
    table.add_row(text)
    screen = console(json_output=False)
    screen.print(table)
    say(screen, text)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [text, text]
