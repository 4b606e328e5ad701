"""Numbers that others published for the methods here, with their sources (rivals.csv).

Like those of targets.csv, the numbers are typed in. Each row names the file or page it is from.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("rivals.csv")
CAPTIONS = {
    "rivals-mnist": "Rivals' published numbers on MNIST, and measured here (not in the paper)",
    "rivals-cifar10": "Rivals' published numbers on CIFAR-10, and measured here (not in the paper)",
}
PROTOCOLS = ("rivals", "rivals-short")  # the published number of epochs, which verdicts are on; a quarter of it


@dataclass(frozen=True)
class Rival:
    """One published number. Accuracies and densities are percentages; None: not published.

    hyperparameters: those that distinguish the number from others of its method. origin: "measured"
    by the authors of the source, or "quoted" by them from others. spread: the published ±, a standard
    error unless the note says otherwise.
    """

    exhibit: str
    dataset: str
    model: str
    method: str
    hyperparameters: tuple[tuple[str, Any], ...]
    origin: str
    density_percent: float
    accuracy: float
    spread: float | None
    dense: float | None
    dense_spread: float | None
    source: str
    note: str


@cache
def published(exhibit: str) -> tuple[Rival, ...]:
    """The published numbers of an exhibit, by network, method and density."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return tuple(_rival(row) for row in csv.DictReader(file) if row["exhibit"] == exhibit)


def _rival(row: Mapping[str, str]) -> Rival:
    def accuracy(text: str) -> float | None:
        """Some sources have the error instead."""
        return None if not text else round(100 - float(text), 6) if row["quantity"] == "error" else float(text)

    value = accuracy(row["value"])
    assert value is not None, "every row has a value"
    return Rival(
        exhibit=row["exhibit"],
        dataset=row["dataset"],
        model=row["model"],
        method=row["method"],
        hyperparameters=tuple(json.loads(row["hyperparameters"] or "{}").items()),
        origin=row["origin"],
        density_percent=float(row["density_percent"]),
        accuracy=value,
        spread=float(row["spread"]) if row["spread"] else None,
        dense=accuracy(row["dense"]),
        dense_spread=float(row["dense_spread"]) if row["dense_spread"] else None,
        source=row["source"],
        note=row["note"],
    )
