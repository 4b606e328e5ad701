"""An exception that a check met, as the text of its finding."""

from __future__ import annotations

import contextlib
import inspect
from types import FrameType

from methods.base import Method
from methods.plug_ins import innermost


def raised(error: Exception, cls: object) -> str:
    """The error, after the function, file and line of the method's own code that raised it.

    cls: the method's class; its file is its own code too. Where other code raised the error, the
    text begins with `raised`.
    """
    file = ""
    with contextlib.suppress(TypeError, OSError):  # made up in an interpreter
        file = inspect.getfile(cls)  # type: ignore[arg-type]

    def part_of(frame: FrameType) -> str:
        own = frame.f_code.co_filename == file or isinstance(frame.f_locals.get("self"), Method)
        return "method" if own else ""

    _, where = innermost(error, part_of)
    return f"{f'{where}:' if where else 'raised'} {type(error).__name__}: {error}"
