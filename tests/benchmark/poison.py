"""A pickle that makes a file when it is loaded, to plant where a stranger could leave one."""

from __future__ import annotations

import pickle
from pathlib import Path


class _Poison:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def poison(trace: Path) -> bytes:
    """The pickle; it has been tried, and `trace`, the file that it makes, is gone again."""
    content = pickle.dumps(_Poison(trace))
    pickle.loads(content)
    trace.unlink()
    return content
