"""Layer tables by run: which share of each layer's weights a trained network keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.agreement import Floats
from analysis.read import Tables
from analysis.settings import Setting


@dataclass(frozen=True)
class Layers:
    """The layers of one run, in the network's order."""

    names: tuple[str, ...]
    weights: Floats
    kept: Floats


@dataclass(frozen=True)
class Ratios:
    """Remaining ratios of a setting's done seeds, [runs, layers], fractions."""

    run_ids: tuple[str, ...]
    names: tuple[str, ...]
    weights: Floats
    kept: Floats

    @property
    def remaining(self) -> Floats:
        return self.kept / self.weights


def layers_by_run(tables: Tables) -> dict[str, Layers]:
    """run id -> its layers; runs without a layer table are absent."""
    table = tables.layers
    names = table["parameter"].to_numpy()
    weights, kept = (table[column].to_numpy(dtype=float) for column in ("weights", "kept"))
    groups = table.groupby("run_id", sort=False).indices
    return {str(run): Layers(tuple(names[at]), weights[at], kept[at]) for run, at in groups.items()}


def ratios(setting: Setting, layers: Mapping[str, Layers]) -> Ratios | None:
    """The ratios of the done seeds that have a layer table; None where none has."""
    found = {str(run): layers[run] for run in setting.done["run_id"] if run in layers}
    if not found:
        return None
    first = next(iter(found.values()))
    alike = {run: rows for run, rows in found.items() if rows.names == first.names}
    kept = np.stack([rows.kept for rows in alike.values()])
    return Ratios(tuple(alike), first.names, first.weights, kept)
