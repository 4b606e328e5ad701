"""The wheel, installed beside the packages that it needs: what is in it, and what its programs do.

It is built from the files that the images of containers/ copy, so these are enough.
"""

from __future__ import annotations

import csv
import functools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import image_files
import pytest
from image_files import ROOT

import methods.kernels

PACKAGES = ("methods", "benchmark", "analysis")
ABSENT = ("torch", "torchvision", "mlflow", "ray", "submitit", "pyarrow", "sklearn")
BLOCKER = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""
SUITE = """
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

DATA = Data(name="synthetic", shape=(1, 8, 8), train_limit=64, test_limit=32)


def suite():
    sgd = Optimizer(lr=0.05, momentum=0.9, batch_size=16, epochs=1)
    return [cell("dst", data=DATA, model=Model(name="lenet-300-100"), optimizer=sgd, alpha=1e-3)]
"""
pytestmark = pytest.mark.slow
Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in image_files.copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", built, source)
    (found,) = built.iterdir()
    return found


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel and sees the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=100)
    pip("--python", folder / "bin/python", "install", "--no-deps", "--no-compile", wheel)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


@pytest.fixture(scope="module")
def call(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Call:
    """Runs a program of the environment in a folder outside the checkout."""
    outside = tmp_path_factory.mktemp("outside")

    def run(program: str, *words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
        command = [programs / program, *words]
        return subprocess.run(command, cwd=outside, env=environment, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture(scope="module")
def cell(call: Call, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with one trained cell."""
    folder = tmp_path_factory.mktemp("cell")
    (folder / "tiny.py").write_text(SUITE)
    done = call("sparse-bench", "run", "--suite", folder / "tiny.py", "--device", "cpu", "--out", folder / "runs")
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "runs"


@pytest.fixture
def without_torch(call: Call, tmp_path: Path) -> Call:
    """`call` where nothing is installed that only trainings, launchers and MLflow need."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    run = functools.partial(call, PYTHONPATH=str(tmp_path))
    missing = [run("python", "-c", f"import {name}").stderr.splitlines()[-1] for name in ABSENT]
    assert missing == [f"ModuleNotFoundError: No module named '{name}'" for name in ABSENT]
    return run


def pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    """Kernels' sources, templates, the paper's tables, and `py.typed`, among them."""
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.partition("/")[0] in PACKAGES}
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    tracked = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert inside == tracked
    assert {f"{package}/py.typed" for package in PACKAGES} < inside


def test_sparse_bench_trains_a_cell_with_the_wheels_own_kernels(cell: Path) -> None:
    with (cell / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["status"] == "done"
    environment = json.loads((cell / "cells" / row["run_id"] / "environment.json").read_text())
    assert environment["kernel_path"] == methods.kernels.path("cpu")
    assert environment["commit"] is None, "the checkout's code ran, not the wheel's"


def test_the_wheels_analysis_builds_where_torch_and_mlflow_are_not_installed(
    cell: Path, without_torch: Call, tmp_path: Path
) -> None:
    only = ("--only", "table1,figure2")
    done = without_torch("python", "-m", "analysis", "build", "--results", cell, "--out", tmp_path / "exhibits", *only)
    assert (done.returncode, done.stderr) == (0, "")
    printed = (tmp_path / "exhibits/table1.md").read_text()
    assert "97.69" in printed, "the paper's tables are in the wheel"
    assert (tmp_path / "exhibits/figure2.svg").stat().st_size > 1000


@pytest.mark.rare
def test_the_wheels_analysis_builds_the_whole_page_there(cell: Path, without_torch: Call, tmp_path: Path) -> None:
    done = without_torch("python", "-m", "analysis", "build", "--results", cell, "--out", tmp_path / "exhibits")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "exhibits/index.html").stat().st_size > 10_000
