"""Kept weights by layer, where a run's table lacks a layer."""

from __future__ import annotations

from pathlib import Path

import suite_rows

from analysis.data.conditions import Results
from analysis.data.layers_and_curves import layer_ratios
from analysis.data.read import load
from benchmark import suites

LAYERS = {"fc1.weight": (100, 5), "fc2.weight": (50, 7)}


def test_a_run_without_one_of_its_layers_is_left_out_and_not_the_others(tmp_path: Path) -> None:
    specs = [s for s in suites.load("mnist").specs if s.model.name == "lenet-300-100" and s.method.get("alpha") == 5e-4]
    rows = [suite_rows.done(spec, accuracy=97.0, density=0.05) for spec in specs if spec.seed < 3]
    layers = [
        layer
        for row in rows
        for layer in suite_rows.layers(row, LAYERS)
        if (row["seed"], layer["parameter"]) != (0, "fc2.weight")
    ]
    results = Results(load([suite_rows.write(tmp_path, rows, layers=layers)]))
    (condition,) = results.conditions
    found = layer_ratios(results.tables, condition)
    assert found is not None
    assert (found.names, found.run_ids) == (tuple(LAYERS), tuple(row["run_id"] for row in rows if row["seed"]))
    assert found.kept.tolist() == [[5, 7], [5, 7]]
