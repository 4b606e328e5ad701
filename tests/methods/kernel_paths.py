"""The kernel path that a test asks for, whatever this machine would choose."""

from __future__ import annotations

import pytest

from methods import kernels


def use_kernels(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute masked weights by this path until the test ends. Skips where the machine cannot have it."""
    if reason := kernels.missing(path):
        pytest.skip(reason)
    monkeypatch.setattr(kernels, "path", lambda _: path)
