"""Errors and values of others as text: one printable line, the same in every file and on the screen."""

from __future__ import annotations

LONGEST = 500


def one_line(text: str) -> str:
    """The first line of a text, in at most LONGEST characters, without those that do not print."""
    plain = printable(_first_line(text)[: LONGEST + 1]).strip()
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 1]}…"


def describe(error: BaseException) -> str:
    """`ValueError: what is wrong`, in one line."""
    try:
        text = str(error)
    except Exception:  # the plug-in's error cannot be written either
        text = ""
    return one_line(f"{type(error).__name__}: {_first_line(text)}")


def shown(value: object, *, most: int = 60) -> str:
    """A value as Python writes it, for a message: in one line, and cut after `most` characters."""
    try:
        text = " ".join(repr(value).splitlines())
    except ValueError:  # Python refuses to write an integer of thousands of digits
        return "a huge number"
    except Exception:  # an object of a plug-in
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}…"


def printable(text: str) -> str:
    """The text with characters that do not print as Python writes them.

    Such are escape sequences, `\\x1b`, and halves of a character.
    """
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]
