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


def commands() -> str:
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))


def test_every_key_of_a_profile_is_explained() -> None:
    from benchmark.launch.slurm.profile import Profile

    text = PAGE.read_text()
    assert all(f"`{name}`" in text for name in Profile.__dataclass_fields__)


@pytest.mark.slow
@pytest.mark.rare
def test_every_command_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("slurmctld", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("a SLURM cluster of its own needs root and `slurm/local-cluster install`")
    for package, extra in (("submitit", "slurm"), ("ray", "ray")):
        pytest.importorskip(package, reason=f"the extra [{extra}] is not installed")
    (tmp_path / "slurm").symlink_to(ROOT / "slurm")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    environment.pop("BENCH_NO_MLFLOW", None)
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", commands()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=850,  # it takes 550 s on a busy machine
    )
    assert done.returncode == 0, done.stderr
    for name, cells in (("runs-local", 2), ("runs-slurm", 8), ("runs-ray", 4), ("runs-two", 2)):
        rows = (tmp_path / name / "results.csv").read_text().count(",done,")
        assert rows == cells
    jobs = [json.loads(line)["job"] for line in (tmp_path / "runs-slurm" / "jobs.jsonl").read_text().splitlines()]
    assert len(jobs) == 2, "the second command adopted what the first one had submitted"
    assert "SLURM: " in done.stdout
    image = re.escape(str(tmp_path / "runs-profile/bench.sif"))
    assert re.search(rf"^srun .* apptainer exec --mount .* {image} python -u -m ", done.stdout, re.MULTILINE)
