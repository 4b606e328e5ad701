"""uv installs what constraints.txt pins. Needs a network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OF_TORCH = ("cuda-", "nvidia-", "triton")
pytestmark = [pytest.mark.slow, pytest.mark.rare]


def test_uv_resolves_the_extras_to_the_pinned_versions(tmp_path: Path) -> None:
    """All extras but `onnx`, which constraints.txt does not pin."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True, timeout=100)
    python = ("--python", tmp_path / "venv/bin/python")
    extras = ".[slurm,ray,release,dev,docs]"
    command = [uv, "pip", "install", *python, "--dry-run", "-c", "constraints.txt", "-e", extras]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    chosen = dict(re.findall(r"^ \+ (\S+)==([^\s+]+)", done.stderr, re.MULTILINE))
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    names = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    own = {name: version for name, version in chosen.items() if not name.startswith(OF_TORCH)}  # torch pins the rest
    assert own == {name: names.get(name) for name in own}
    assert {"torch", "submitit", "ray", "safetensors", "pytest", "mkdocs"} <= set(chosen)
