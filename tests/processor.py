"""What tests ask of the processor that they run on."""

from __future__ import annotations

import pytest

from benchmark.training.engine import cpu_runs_bfloat16_lstms


def need_bfloat16_lstm() -> None:
    """Skip the test where this CPU cannot run an LSTM in bfloat16 (AVX2 without AVX-512)."""
    if not cpu_runs_bfloat16_lstms():
        pytest.skip("this CPU cannot run an LSTM in bfloat16: oneDNN needs AVX-512 for it")
