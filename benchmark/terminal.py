"""What a command does with its standard streams, whatever its terminal, its reader and its disk are.

Characters that a terminal cannot show are replaced. With `--json`, standard output carries one
document and nothing else: what suites and libraries print goes to standard error, and an error is a
document too. A warning is one line.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import typer

from benchmark.messages import printable

READER_LEFT = 141  # 128 + SIGPIPE, as a shell reports a program that the signal ends
UNWRITABLE = 1
INTERRUPTED = 130
SIZE = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)  # of a terminal; rich would print nothing on 0 columns
MOST_CHARACTERS = 2000  # of an error; from a longer one the middle is left out
_UsageError: Any = typer.BadParameter.__base__  # typer's own or click's, depending on typer's version
_document: TextIO | None = None


class OutputError(BaseException):
    """A standard stream cannot be written, which ends the command wherever it happens.

    It is no OSError, because typer and rich would end the process with exit codes of their own.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output cannot be written: {error.strerror}")
        self.exit_code = READER_LEFT if error.errno == errno.EPIPE else UNWRITABLE


class _Stream(io.TextIOWrapper):
    """A standard stream that takes every text, and raises OutputError if it cannot be written."""

    def write(self, text: str, /) -> int:
        with _as_output_error():
            return super().write(text)

    def flush(self) -> None:
        with _as_output_error():
            super().flush()


@contextlib.contextmanager
def _as_output_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(error) from error


def call(app: typer.Typer, explain: Callable[[Exception], tuple[str, int]]) -> int:
    """Run a command line; its exit code.

    explain: the message and the exit code for an error of the user or the machine. It raises every
    other error again.
    """
    for name in ("COLUMNS", "LINES"):
        if not SIZE.fullmatch(os.environ.get(name, "1")):
            del os.environ[name]
    with _streams(json_output="--json" in sys.argv):
        try:
            code = _run(app, explain)
            _flush()
        except OutputError as error:
            code = error.exit_code
            if code != READER_LEFT:
                with contextlib.suppress(OutputError):
                    print(f"error: {error}", file=sys.stderr)
            _drop_what_is_left()
    return code


def harmless(text: str) -> str:
    """The text with its lines as they are, and other characters that do not print as Python writes them."""
    return "\n".join(map(printable, text.split("\n")))


def say(text: str, *, end: str = "\n") -> None:
    """Print text that may hold what a stranger wrote: no escape sequence in it acts on the terminal."""
    print(harmless(text), end=end)


def document_stream() -> TextIO:
    """Where a command prints its JSON document."""
    return _document or sys.stdout


def replace_unknown_characters() -> None:
    """For processes that train: what they print may hold characters that the log's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _run(app: typer.Typer, explain: Callable[[Exception], tuple[str, int]]) -> int:
    try:
        code = app(standalone_mode=False)
    except _UsageError as error:
        return _misused(error)
    except (KeyboardInterrupt, typer.Abort):
        return _failed("interrupted", INTERRUPTED)
    except Exception as error:
        return _failed(*explain(error))
    return code if isinstance(code, int) else 0


def _misused(error: Any) -> int:
    """One line, and where to read more; the whole help for a command without arguments."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(error.exit_code)
    help_ = "" if error.ctx is None else f"; '{error.ctx.command_path} --help' lists what there is"
    return _failed(f"{error.format_message().rstrip('.')}{help_}", error.exit_code)


def _failed(message: str, code: int) -> int:
    line = printable(" ".join(message.splitlines()))
    shown = line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 200]} … {line[-200:]}"
    print(f"error: {shown}", file=sys.stderr)
    if _document is not None:
        json.dump({"error": shown, "exit_code": code}, _document, indent=1)
        _document.write("\n")
    return code


@contextlib.contextmanager
def _streams(*, json_output: bool) -> Iterator[None]:
    """Replace the standard streams while a command runs."""
    global _document
    before, raw = (sys.stdout, sys.stderr), warnings.formatwarning
    output, errors = _stream(sys.stdout), _stream(sys.stderr)
    _document = output if json_output else None
    sys.stdout, sys.stderr = errors if json_output else output, errors
    warnings.formatwarning = _warning
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        warnings.formatwarning = raw
        _document = None
        for stream in (output, errors):
            if isinstance(stream, _Stream):
                stream.detach()


def _warning(message: Warning | str, *_: object, **__: object) -> str:
    """A warning as one line, without the file that gives it."""
    return f"warning: {printable(' '.join(str(message).split()))}\n"


def _stream(stream: TextIO | None) -> TextIO:
    if stream is None:  # the command was started with a closed stream
        return _Stream(open(os.devnull, "wb"))
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    return _Stream(
        stream.buffer,
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _flush() -> None:
    for stream in (document_stream(), sys.stdout, sys.stderr):
        stream.flush()


def _drop_what_is_left() -> None:
    """Send what a stream could not write to nowhere, so that Python's last flush does not fail too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (document_stream(), sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OutputError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
