"""What independent reproductions report, with their sources (other_reproductions.csv).

Like the numbers of targets.csv, these are typed in. Each row names the file that it is from.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("other_reproductions.csv")


@dataclass(frozen=True)
class Reported:
    """One run of DST as somebody else reports it.

    exhibit: the paper's table with the same network. accuracy, density_percent: percentages; None: not
    stated. reading: which epoch the numbers are from.
    """

    exhibit: str
    dataset: str
    model: str
    alpha: float
    epochs: int
    accuracy: float | None
    density_percent: float
    reading: str
    source: str
    note: str


def reported() -> tuple[Reported, ...]:
    """Every row of the table, in its order."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        return tuple(
            Reported(
                exhibit=row["exhibit"],
                dataset=row["dataset"],
                model=row["model"],
                alpha=float(row["alpha"]),
                epochs=int(row["epochs"]),
                accuracy=float(row["accuracy"]) if row["accuracy"] else None,
                density_percent=float(row["density_percent"]),
                reading=row["reading"],
                source=row["source"],
                note=row["note"],
            )
            for row in csv.DictReader(file)
        )
