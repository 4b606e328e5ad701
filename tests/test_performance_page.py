"""docs/performance.md says what the committed measurements say, of the machine that they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.excerpt import load, spec_of
from benchmark.speed import row
from benchmark.train import Training

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/performance.md").read_text()
FILES = sorted((ROOT / "paper_figures/results/speed").glob("cpu-*.json"))
PAIRS = [pair for file in FILES for pair in json.loads(file.read_text())["pairs"]]


def table(title: str) -> list[list[str]]:
    """The cells of the rows of the table under a heading."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_committed_pair_is_on_the_page_and_nothing_else() -> None:
    assert PAIRS
    assert sorted(table("Step cost")) == sorted(row(pair)[:-1] for pair in PAIRS)


def test_a_target_is_reached_where_the_measured_median_is() -> None:
    medians = {(pair["model"], pair["method"]): pair["ratio"]["median"] for pair in PAIRS if pair["method"] != "dense"}
    stated = {(model, method): rest for model, method, *rest in table("Where the targets stand")}
    assert stated.keys() == medians.keys()
    for key, (target, median, verdict) in stated.items():
        assert median == f"{medians[key]:.3f}"
        assert verdict == ("reached" if medians[key] <= float(target) else "missed"), key


def test_what_was_tried_on_the_engine_is_what_was_measured() -> None:
    changes = json.loads((ROOT / "paper_figures/results/speed/engine-cpu.json").read_text())["changes"]
    rows = table("The engine: what was tried")
    assert len(rows) == len(changes)
    for (change, model, method, _, gain, _, n, *_, verdict), measured in zip(rows, changes, strict=True):
        assert [change, model, method, verdict] == [measured[key] for key in ("change", "model", "method", "verdict")]
        assert (gain, n) == (f"{100 * (1 - measured['ratio']['median']):.1f} %", str(measured["n"]))


def test_the_extra_time_a_weight_is_in_the_stated_range() -> None:
    extra = []
    for pair in (pair for pair in PAIRS if pair["method"] == "dst"):
        spec = spec_of(pair["model"], "dst")
        masks = Training(spec, load(pair["model"], spec, torch.device("cpu"))).attached.masks()
        weights = sum(mask.numel() for mask in masks.values())
        extra.append(1e9 * (pair["method_seconds"] - pair["dense_seconds"]) / weights)
    assert f"{min(extra):.0f} to {max(extra):.0f} ns for each weight on all five models" in PAGE
    assert len(extra) == 5


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_machine_named_is_the_one_that_measured(file: Path) -> None:
    machine: dict[str, Any] = json.loads(file.read_text())["machine"]
    assert file.name in PAGE
    assert machine["dirty"] is False
    for named in (
        f"{machine['device_name']}, {machine['cpus']} CPUs",
        f"threads: {machine['threads']}",
        f"torch {machine['torch']}",
        f"Python {machine['python']}",
        f"kernel path: {machine['kernel_path']}",
        f"commit `{machine['commit'][:7]}`",
    ):
        assert named in PAGE
