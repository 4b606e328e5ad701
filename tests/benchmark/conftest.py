"""Data sets that the tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cifar10_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the real CIFAR-10, unpacked once from the pieces in BENCH_TEST_DATA."""
    given = os.environ.get("BENCH_TEST_DATA")
    if given is None:
        pytest.skip("BENCH_TEST_DATA is not set")
    pieces = [Path(given) / f"cifar10-{number}.xz" for number in (1, 2)]
    tool = Path(given).parent / "tools" / "cifar10"
    for needed in (*pieces, tool):
        if not needed.is_file():
            pytest.skip(f"{needed} is missing")
    folder = tmp_path_factory.mktemp("cifar10")
    command = [sys.executable, str(tool), "unpack", str(folder), *map(str, pieces)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder
