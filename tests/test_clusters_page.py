"""docs/clusters.md: each of its commands, as it is printed, on a SLURM cluster of this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "clusters.md"


def commands(text: str) -> str:
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def run(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The commands in a folder that looks like the repository's root to them."""
    (folder / "slurm").symlink_to(ROOT / "slurm")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    environment.pop("BENCH_NO_MLFLOW", None)
    words = ["bash", "-euxo", "pipefail", "-c", commands]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    return done


def test_every_key_of_a_profile_is_explained() -> None:
    from benchmark.launch.slurm.profile import Profile

    text = PAGE.read_text()
    assert all(f"`{name}`" in text for name in Profile.__dataclass_fields__)


@pytest.mark.slow
def test_the_commands_about_containers_print_a_script_with_the_image(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
    (section,) = re.findall(r"^## In a container$(.*?)^## ", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    printed = run(commands(section), tmp_path).stdout
    assert re.search(rf"^srun .* apptainer exec --mount .* {tmp_path}/bench.sif python -u -m ", printed, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.rare
def test_every_command_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("slurmctld", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("a SLURM cluster of its own needs root and `slurm/local-cluster install`")
    for package, extra in (("submitit", "slurm"), ("ray", "ray")):
        pytest.importorskip(package, reason=f"the extra [{extra}] is not installed")
    done = run(commands(PAGE.read_text()), tmp_path)
    for name, cells in (("runs-local", 2), ("runs-slurm", 8), ("runs-ray", 4), ("runs-two", 2)):
        rows = (tmp_path / name / "results.csv").read_text().count(",done,")
        assert rows == cells
    jobs = [json.loads(line)["job"] for line in (tmp_path / "runs-slurm" / "jobs.jsonl").read_text().splitlines()]
    assert len(jobs) == 2, "the second command adopted what the first one had submitted"
    assert "SLURM: " in done.stdout
