"""Independent random streams, each derived from (seed, stream name, index)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, stream: str, index: int = 0) -> int:
    """A 63-bit seed for one stream: the same on every machine and in every process."""
    digest = hashlib.sha256(f"{seed}/{stream}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, stream: str, index: int = 0) -> torch.Generator:
    """A CPU generator for one stream."""
    import torch

    return torch.Generator().manual_seed(derive(seed, stream, index))
