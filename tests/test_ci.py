"""`.ci/run` on machines without root, without a network, and without the Python packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("g++", "git", "python3-venv", "chromium", "SLURM")
NO_ROOT = {"id": "echo 1000"}
NO_NETWORK = {"id": "echo 0", "apt-get": "exit 100"}


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder of programs for PATH, with what a shell script needs and a make that only says its targets."""
    for name in ("bash", "dirname"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    add(tmp_path, make='echo "make $*"', python3="exit 1")
    return tmp_path


def add(folder: Path, **programs: str) -> None:
    for name, text in programs.items():
        (folder / name).write_text(f"#!{folder / 'bash'}\n{text}\n")
        (folder / name).chmod(0o755)


def run(bare: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": str(bare)}
    return subprocess.run(
        [bare / "bash", ROOT / ".ci/run"], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("machine", "why"), [(NO_ROOT, "(no root)"), (NO_NETWORK, "is there a network?")], ids=["no root", "no network"]
)
def test_what_cannot_be_installed_is_named_and_the_tests_run(machine: dict[str, str], why: str, bare: Path) -> None:
    add(bare, **machine)
    finished = run(bare)
    assert finished.returncode == 0, finished.stderr
    check = "make check TESTS=tests/methods/algorithms tests/methods/kernels"
    check += " tests/benchmark/training/test_engine.py tests/benchmark/training/test_loop.py"
    first = check if "avx512f" in Path("/proc/cpuinfo").read_text() else "make lint"
    assert finished.stdout.splitlines() == ["make setup", first, "make test"]
    *said, last = [line for line in finished.stderr.splitlines() if line.startswith(".ci/run: ")]
    assert "make test-all" in last
    assert len(said) == len(PARTS), finished.stderr
    for part, line in zip(PARTS, said, strict=True):
        assert line.startswith(f".ci/run: {part} "), line
        assert why in line


def test_without_the_python_packages_it_says_that_nothing_can_be_tested(bare: Path) -> None:
    add(bare, **NO_NETWORK, make="exit 2")
    finished = run(bare)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.splitlines()[-1].endswith("Nothing can be tested")


def test_the_workflow_runs_the_two_commands_of_the_readme_and_keeps_the_coverage() -> None:
    """All tests, the rare ones too, run once a week."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert [step["run"] for step in steps if "run" in step] == [
        "make test-all", "make demo", "make test", "make coverage",
    ]  # fmt: skip
    (kept,) = (step["with"]["path"] for step in steps if "upload-artifact" in step.get("uses", ""))
    recipe = subprocess.run(["make", "-n", "coverage"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"--cov-report html:{kept} " in recipe
