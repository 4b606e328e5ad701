"""The suite that the exhibit writes is Python: only checked values get into it, and no text of a table as code."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.build import build
from analysis.data.read import InputError, load
from benchmark import suites
from benchmark.results import COLUMNS, write_csv
from benchmark.spec import SpecError

COMMITTED = Path(__file__).resolve().parents[3] / "paper_figures/results/mnist-lenet-300-100"
SUITE = "compact-networks.py"


def copy(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """The committed cells of LeNet-300-100 with every spec edited, and with the run ids of the new specs."""
    folder.mkdir()
    ids: dict[str, str] = {}
    with (COMMITTED / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        spec = json.loads(row["spec"])
        edit(spec)
        row["spec"] = json.dumps(spec, sort_keys=True, separators=(",", ":"))
        ids[row["run_id"]] = hashlib.sha256(row["spec"].encode()).hexdigest()[:12]
        row["run_id"] = ids[row["run_id"]]
    write_csv(folder / "results.csv", COLUMNS, rows)
    with (COMMITTED / "layers.csv").open(newline="") as file:
        layers = list(csv.DictReader(file))
    write_csv(folder / "layers.csv", list(layers[0]), [x | {"run_id": ids[x["run_id"]]} for x in layers])
    return folder


def command(mark: Path) -> str:
    return f"__import__('os').system('touch {mark}')"


@pytest.mark.parametrize(
    ("section", "fields"), [("data", ("classes", "train_limit")), ("optimizer", ("gamma", "milestones"))]
)
def test_the_name_of_a_field_that_is_code_is_refused_and_runs_nothing(
    tmp_path: Path, section: str, fields: tuple[str, str]
) -> None:
    mark, out = tmp_path / "ran", tmp_path / "out"

    def edit(spec: dict[str, Any]) -> None:
        spec[section][f"{fields[0]}={command(mark)} or None, {fields[1]}"] = None

    crafted = copy(tmp_path / "crafted", edit)
    said = ""
    with contextlib.suppress(SpecError):
        try:
            build(load([crafted]), out, only=["compact-networks"])
        except InputError as error:
            said = str(error)
        suites.load(str(out / SUITE))
    assert not mark.exists()
    assert said.startswith(f"{crafted / 'results.csv'}, row 2: spec is no JSON of a cell: unknown ")
    assert "\n" not in said
    assert not out.exists()


def test_a_value_that_looks_like_code_stays_a_value(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    text = f"""') or "{command(mark)}" + '\\' + {command(mark)} #"""
    crafted = copy(tmp_path / "crafted", lambda spec: spec["data"].update(augment=text))
    build(load([crafted]), tmp_path, only=["compact-networks"])
    assert {spec.data.augment for spec in suites.load(str(tmp_path / SUITE)).specs} == {text}
    assert not mark.exists()
