"""Puts this folder on the path for its modules, and skips tests of missing C++ operators."""

import pytest

from methods import kernels


@pytest.fixture
def cpp_operators() -> None:
    """Skips a test where the CPU does not use the C++ operators."""
    if reason := kernels.missing("cpp"):
        pytest.skip(reason)
    if kernels.path("cpu") != "cpp":
        pytest.skip("other kernels are requested")
