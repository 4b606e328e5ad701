"""One thread for every test: the networks are small, and equal bits need equal thread counts. No MLflow unasked."""

import contextlib
import os
import tempfile
from pathlib import Path

import pytest

with contextlib.suppress(ImportError):  # the tests that need a GPU run without it
    from hypothesis import HealthCheck, settings

    # a busy machine is no fault of what is tested
    settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any speed")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("BENCH_NO_MLFLOW", "1")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")  # read when mlflow is first imported, by whichever test
# Torch keys its cache of compiled kernels by the CPU, not by ATEN_CPU_CAPABILITY. A kernel compiled
# under another value writes past the end of its tensors, so each value has a cache of its own.
CAPABILITY = os.environ.get("ATEN_CPU_CAPABILITY", "default")
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/torchinductor-tests-{os.getuid()}-{CAPABILITY}"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: the last file to end would otherwise keep one worker waiting for the other."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real data sets."""
    if "BENCH_TEST_DATA" not in os.environ:
        pytest.skip("BENCH_TEST_DATA names no folder with the real data sets")
    return Path(os.environ["BENCH_TEST_DATA"])
