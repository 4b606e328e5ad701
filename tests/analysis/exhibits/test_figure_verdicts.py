"""The final values that section 5.2 prints of Figures 5 and 6 have verdicts, by the rule of the tables."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import suite_rows

from analysis.build import exhibits
from analysis.data.conditions import Results
from analysis.data.read import load
from benchmark.suites import cifar10

SEEDS = range(5)
RATES = {"figure5": 0.1, "figure6": 0.01}


def results(folder: Path, *, of_figure6: float) -> Results:
    """Figure 5's cells end near the printed values, Figure 6's at this density and near the accuracy."""
    ends = {0.1: (93.93, 93.75, 0.0882), 0.01: (92.74, 92.54, of_figure6)}
    rows, traces = [], []
    for seed in SEEDS:
        for rate, (sparse, dense, density) in ends.items():
            spec = cifar10.by_paper("vgg16", "dst", seed, lr=rate, alpha=5e-6)
            near = (seed - 2) / 100
            row = suite_rows.done(spec, accuracy=sparse + near, density=density * (1 + near / 10))
            twin = suite_rows.done(cifar10.by_paper("vgg16", "dense", seed, lr=rate), accuracy=dense + near)
            epochs: dict[str, Any] = {"density": [0.5, row["density"]], "density/fc2.weight": [0.1, 1.0]}
            traces += suite_rows.records(row, epochs | {"test_accuracy": [80.0, row["test_accuracy"]]})
            traces += suite_rows.records(twin, {"test_accuracy": [81.0, twin["test_accuracy"]]})
            rows += [row, twin]
    return Results(load([suite_rows.write(folder, rows, traces=traces)]))


@pytest.mark.parametrize(("density", "wanted"), [(0.1245, "reproduced"), (0.2, "not reproduced")])
def test_the_printed_final_values_have_verdicts(
    density: float, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.output.exhibit.save", lambda figure, out, name: plt.close(figure) or [])
    found = exhibits(results(tmp_path / "in", of_figure6=density))
    verdicts = {}
    for name, rate in RATES.items():
        written = found[f"{name}-verdicts"](tmp_path)
        with (tmp_path / f"{name}-verdicts.csv").open() as file:
            verdicts[name] = {line["verdict"] for line in csv.DictReader(file) if line["decides"] == "True"}
        shown = found[name](tmp_path)
        assert set(written.run_ids) == set(shown.run_ids), rate
        assert shown.finding.endswith(f"Verdict on the printed final values: {verdicts[name].pop()}.")
        verdicts[name] = shown.finding.rpartition(": ")[2]
    assert verdicts == {"figure5": "reproduced.", "figure6": f"{wanted}."}


def test_verdicts_follow_what_they_are_on(tmp_path: Path) -> None:
    names = list(exhibits(results(tmp_path, of_figure6=0.1)))
    for name in ("table1", "table2", "table3", "figure5", "figure6"):
        assert names[names.index(name) + 1] == f"{name}-verdicts"
