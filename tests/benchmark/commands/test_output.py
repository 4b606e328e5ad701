"""What commands print for people."""

from __future__ import annotations

import pytest
from rich.table import Table

from benchmark.commands.output import console, say, show


def test_text_that_looks_like_a_style_or_an_emoji_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "package:X: [bold] a"
    table = Table(box=None, show_header=False)
    table.add_row(text)
    screen = console(json_output=False)
    screen.print(table)
    say(screen, text)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [text, text]


def test_no_escape_sequence_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("\x1b[2Jhead", box=None, caption="\x1b[3m")
    table.add_column("\x1b]0;title\x07", no_wrap=True)
    table.add_row("two\nlines", "\x1b[31m")
    screen = console(json_output=False)
    show(screen, table)
    screen.print("\x1b[2J", style="bold")
    say(screen, "a\x1b[2J\nb")
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    assert [line.split() for line in printed.splitlines()] == [
        [r"\x1b[2Jhead", r"\x1b]0;title\x07"],
        ["two", r"\x1b[31m"],
        ["lines"],
        [r"\x1b[3m"],
        [r"\x1b[2J"],
        [r"a\x1b[2J\nb"],
    ]
