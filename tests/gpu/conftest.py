"""What every test on a GPU starts from."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from benchmark.training.engine import prepare_process


@pytest.fixture(autouse=True)
def as_in_a_worker() -> Iterator[None]:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    prepare_process("cuda")
    yield
    torch.use_deterministic_algorithms(False)
