"""One thread for every test: the networks are small, and equal bits need equal thread counts. No MLflow unasked."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("BENCH_NO_MLFLOW", "1")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real data sets."""
    if "BENCH_TEST_DATA" not in os.environ:
        pytest.skip("BENCH_TEST_DATA names no folder with the real data sets")
    return Path(os.environ["BENCH_TEST_DATA"])
