"""The peak is the most that is held at once, not what is allocated in all."""

from __future__ import annotations

import pytest
import torch

from benchmark.speed.peak_memory import peak_bytes

MEBIBYTE = 2**20


def work() -> None:
    first = torch.empty(3 * MEBIBYTE, dtype=torch.uint8)
    del first
    second, third = (torch.empty(2 * MEBIBYTE, dtype=torch.uint8) for _ in range(2))
    del second, third


def test_what_is_released_is_not_counted_again(capfd: pytest.CaptureFixture[str]) -> None:
    before = torch.empty(5 * MEBIBYTE, dtype=torch.uint8)
    assert peak_bytes(work, torch.device("cpu")) == 4 * MEBIBYTE
    assert capfd.readouterr() == ("", "")
    del before
