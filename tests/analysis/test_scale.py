"""Ten thousand cells with traces are read and built within 2 GB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import synthetic_scale

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from pathlib import Path
from analysis.output import plotting
from analysis.build import build
from analysis.data.read import load
plotting.FORMATS = {"png": {}}  # three formats take three times as long and no more memory
build(load([Path(sys.argv[1])]), Path(sys.argv[2]))
status = Path("/proc/self/status").read_text()  # getrusage counts the process that started this one too
print(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
"""
KIB_OF_2_GB = 2_000_000_000 // 1024


def peak_kib(folder: Path, out: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, out], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.rare
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_ten_thousand_cells_with_traces_build_within_two_gigabytes(tmp_path: Path) -> None:
    folder = synthetic_scale.write(tmp_path / "results", cells=10_000, epochs=20)
    assert peak_kib(folder, tmp_path / "out") < KIB_OF_2_GB
    assert {"index.html", "manifest.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
