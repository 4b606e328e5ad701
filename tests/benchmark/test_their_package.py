"""A package installed by pip: its method, model, data set and suite are listed, run and shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grids import Finished
from their_package import install

pytestmark = pytest.mark.slow
THEIRS = {
    "methods": ("their_method", "Prunes the last weights of each layer at the start."),
    "models": ("their_model", "One hidden layer of any width."),
    "data": ("their_data", "Stripes: the class is the row that is bright."),
    "suites": ("their_suite", "Their method beside static on their data."),
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("theirs"))


def command(installed: Path, *arguments: str | Path) -> Finished:
    """The command line in a process that sees the package, started in an empty folder."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    line = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(line, cwd=installed, env=environment, capture_output=True, text=True, check=False)
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def runs(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "out"
    finished = command(installed, "benchmark", "run", "--suite", "their_suite", "--out", out, "--launcher", "local")
    assert (finished.code, finished.stderr) == (0, "")
    return out


@pytest.mark.parametrize("what", THEIRS)
def test_it_is_listed_and_what_is_broken_in_it_breaks_nothing(what: str, installed: Path) -> None:
    listed = command(installed, "benchmark", "list", what, "--json").json
    name, text = THEIRS[what]
    assert listed[name] == f"{text} (their-package 1.0)"
    broken = listed[f"broken_{what.removesuffix('s')}"]
    assert broken.startswith("cannot be used: ")
    assert broken.endswith("of their-package 1.0: the library of broken is missing")
    assert what != "suites" or "its name is that of benchmark.suites.mnist" in listed["'mnist' of their-package 1.0"]


def test_its_suite_runs_and_the_cells_record_where_their_parts_come_from(runs: Path) -> None:
    environments = [json.loads(path.read_text()) for path in runs.glob("cells/*/environment.json")]
    specs = [json.loads(path.read_text()) for path in runs.glob("cells/*/spec.json")]
    assert {spec["method"]["name"] for spec in specs} == {"dense", "their_method", "not_installed", "static"}
    assert len(environments) == 8
    for environment in environments:
        parts = environment["plug_ins"]
        assert re.fullmatch(r"their-package 1\.0, model\.py, SHA-256 [0-9a-f]{64}", parts["model their_model"])
        assert re.fullmatch(r"their-package 1\.0, data\.py, SHA-256 [0-9a-f]{64}", parts["data set their_data"])
    registered = {environment["plug_ins"].get("method not_installed", "") for environment in environments}
    assert any(re.fullmatch(r"method\.py, SHA-256 [0-9a-f]{64}", text) for text in registered)


def test_it_is_in_the_tables_the_figures_and_the_page(runs: Path, installed: Path, tmp_path: Path) -> None:
    finished = command(installed, "analysis", "build", "--results", runs, "--out", tmp_path)
    assert (finished.code, finished.stderr) == (0, "")
    figure = (tmp_path / "their_data-accuracy-density.csv").read_text()
    table = (tmp_path / "their_data.md").read_text()
    page = (tmp_path / "index.html").read_text()
    drawn = (tmp_path / "their_data-accuracy-density.svg").read_text()
    for text in (figure, table, page):
        assert {"their_method", "their_model"} <= set(re.findall(r"their_\w+", text))
    assert "their_method" in drawn
    assert "their_suite" in page


def test_a_grid_with_plug_ins_that_break_goes_on(installed: Path, tmp_path: Path) -> None:
    """Broken model and data set, by name, beside good cells: nothing stops the others."""
    changes: list[Any] = []
    for model, data in (("broken_model", "their_data"), ("their_model", "broken_data"), ("their_model", "their_data")):
        changes.append(f'(Data(name="{data}"), Model(name="{model}"))')
    text = f"""
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

def suite():
    return [cell("dense", data=data, model=model, optimizer=Optimizer(batch_size=20), protocol=())
            for data, model in ({", ".join(changes)})]
"""
    (tmp_path / "mixed_up.py").write_text(text)
    finished = command(
        installed, "benchmark", "run", "--suite", tmp_path / "mixed_up.py", "--out", tmp_path / "o", "--json"
    )
    assert finished.code == 1
    found = {(row["dataset"], row["model"]): (row["status"], row["error"]) for row in finished.json["cells"]}
    missing = (
        "cannot be loaded from their_package.broken:Missing of their-package 1.0: the library of broken is missing"
    )
    assert found == {
        ("their_data", "broken_model"): ("failed", f"ValueError: model 'broken_model' {missing}"),
        ("broken_data", "their_model"): ("failed", f"ValueError: data set 'broken_data' {missing}"),
        ("their_data", "their_model"): ("done", None),
    }
