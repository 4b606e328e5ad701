"""Errors of others as text: one printable line, the same in every file and on the screen."""

from __future__ import annotations

LONGEST = 500


def one_line(text: str) -> str:
    """The first line of a text, in at most LONGEST characters.

    Characters that do not print, such as escape sequences and halves of a character, are written as
    Python writes them: `\\x1b`.
    """
    first = (text.strip().splitlines() or [""])[0][: LONGEST + 1]
    plain = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in first
    ).strip()
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 3]}..."


def describe(error: BaseException) -> str:
    """`ValueError: what is wrong`, in one line."""
    try:
        text = str(error)
    except Exception:  # the plug-in's error cannot be written either
        text = ""
    lines = text.strip().splitlines() or [""]
    return one_line(f"{type(error).__name__}: {lines[0]}")
