"""Layer densities of finished cells, as the hyperparameter `pattern` takes them. Imports no torch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from benchmark.results import LAYERS
from benchmark.spec import SpecError


def layer_pattern(layers: Path, run_ids: Sequence[str]) -> tuple[float, ...]:
    """The density of each layer over these cells, in the model's order: kept / weights, both summed.

    layers: the layers.csv of a run folder or of an export. Raises SpecError where the file is not
    such a table or lacks one of the cells, and where the cells' networks differ in their layers.
    """
    if not layers.is_file():
        raise SpecError(f"{layers} does not exist: 'python -m benchmark export' writes one")
    with layers.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in LAYERS if name not in (reader.fieldnames or ())]:
            raise SpecError(f"{layers} is no table of layers: it lacks {', '.join(missing)}")
        rows = [row for row in reader if row["run_id"] in run_ids]
    cells = [[row for row in rows if row["run_id"] == run_id] for run_id in run_ids]
    names = [[row["parameter"] for row in cell] for cell in cells]
    for run_id, found in zip(run_ids, names, strict=True):
        if not found:
            raise SpecError(f"{layers} has no layers of run {run_id}")
        if found != names[0]:
            raise SpecError(f"{layers}: run {run_id} has other layers than run {run_ids[0]}")
    return tuple(
        sum(int(row["kept"]) for row in layer) / sum(int(row["weights"]) for row in layer)
        for layer in zip(*cells, strict=True)
    )
