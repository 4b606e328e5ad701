"""The kernel path that a test asks for, whatever this machine would choose."""

from __future__ import annotations

import pytest
from torch import Tensor

from methods import kernels


def use_kernels(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute masked weights by this path until the test ends. Skips where the machine cannot have it."""
    if reason := kernels.missing(path):
        pytest.skip(reason)
    monkeypatch.setattr(kernels, "path", lambda _: path)


def is_in_blocks(y: Tensor) -> bool:
    """Whether a linear layer's outputs were computed block by block."""
    of = y.grad_fn
    return of is not None and any("LinearInBlocks" in f.name() for f in (of, *(f for f, _ in of.next_functions if f)))
