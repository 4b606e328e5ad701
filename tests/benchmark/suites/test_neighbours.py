"""A suite file imports the modules beside it, as `python FILE.py` could, here and in worker processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import methods.registry
from benchmark import suites
from benchmark.spec import SpecError

ROOT = Path(__file__).resolve().parents[3]
SUITE = """
import methods
from shared_bits import SEED
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

methods.register("neighbour", "shared_bits:Neighbour")

def suite():
    from shared_later import LIMIT  # when the suite is expanded
    data = Data(name="synthetic", shape=(1, 8, 8), train_limit=LIMIT, test_limit=16)
    return [cell("neighbour", data=data, model=Model(name="lenet-300-100"), optimizer=Optimizer(batch_size=16),
                 seed=SEED, density=0.5)]
"""
METHOD = """
from dataclasses import dataclass
from methods.algorithms.static import Static

SEED = {seed}

@dataclass(kw_only=True)
class Neighbour(Static):
    \"\"\"Static, beside a suite.\"\"\"

    name = "neighbour"
"""


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    with methods.registry.temporary():
        yield


def written(folder: Path, *, seed: int = 7, suite: str = SUITE) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "shared_bits.py").write_text(METHOD.format(seed=seed))
    (folder / "shared_later.py").write_text("LIMIT = 32\n")
    (folder / "mine.py").write_text(suite)
    return folder / "mine.py"


def test_neighbours_are_found_in_workers_too(tmp_path: Path) -> None:
    """Run from a folder that has a module of the same name: the one beside the file comes first."""
    file, elsewhere = written(tmp_path / "suites"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "shared_bits.py").write_text("raise RuntimeError('the module of the current folder')")
    command = [sys.executable, "-m", "benchmark", "run", "--suite", str(file), "--out", str(tmp_path / "out"), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    (row,) = json.loads(run.stdout)["cells"]
    assert (row["method"], row["status"], row["seed"]) == ("neighbour", "done", 7)


def test_neighbours_of_the_same_name_in_two_folders_do_not_mix(tmp_path: Path) -> None:
    one, other = written(tmp_path / "one", seed=1), written(tmp_path / "other", seed=2)
    for file, seed in ((one, 1), (other, 2), (one, 1)):
        assert [spec.seed for spec in suites.load(str(file)).specs] == [seed]
        code = Path(sys.modules[methods.registry.method_class("neighbour").__module__].__file__ or "")
        assert code == file.with_name("shared_bits.py")


def test_a_neighbour_shadows_nothing_that_is_installed(tmp_path: Path) -> None:
    file = written(tmp_path / "suites", suite="import colorsys, pluggy\n" + SUITE)
    for name in ("colorsys", "pluggy", "torch", "queue"):
        (file.parent / f"{name}.py").write_text("raise RuntimeError('shadowed')")
    code = f"from benchmark import suites; import sys; suites.load({str(file)!r}); import torch, queue"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n1 / 0\n", "shared_bits.py, line 2: ZeroDivisionError: division by zero"),
        ("import no_such_module\n", "shared_bits.py, line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("if\n", r"SyntaxError: invalid syntax \(shared_bits.py, line 1\)"),
    ],
)
def test_an_error_in_a_neighbour_is_one_line_that_says_where(text: str, message: str, tmp_path: Path) -> None:
    file = written(tmp_path / "suites")
    (file.parent / "shared_bits.py").write_text(text)
    with pytest.raises(SpecError, match=f"suite file {file}: .*{message}$"):
        suites.load(str(file))


def test_an_error_in_a_neighbour_that_holds_a_method_is_one_line(tmp_path: Path) -> None:
    file = written(tmp_path / "suites", suite=SUITE.replace("from shared_bits import SEED", "SEED = 1"))
    (file.parent / "shared_bits.py").write_text("1 / 0\n")
    with pytest.raises(SpecError, match="method 'neighbour' cannot be loaded from shared_bits:Neighbour: division by"):
        suites.load(str(file))
