"""Cells that differ in their seed alone, as one setting; and which of them count."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from benchmark.results import SEPARATOR

NOT_SETTING = ("seed", "step_records")  # neither changes what is trained but by chance
LOST = ("diverged", "failed", "cancelled")


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (nan for n < 2) over n of `expected` seeds."""

    mean: float
    sd: float
    n: int
    expected: int


@dataclass(frozen=True)
class Setting:
    """The cells of one spec over its seeds. rows: all of them, departing ones apart."""

    spec: Mapping[str, Any]
    rows: pd.DataFrame
    departing: int

    @property
    def dataset(self) -> str:
        return str(self.spec["data"]["name"])

    @property
    def model(self) -> str:
        """The architecture, with its widths where they are not its own: nothing pools or pairs the two."""
        name, widths = str(self.spec["model"]["name"]), self.spec["model"].get("widths")
        return name if widths is None else f"{name} {'-'.join(map(str, widths))}"

    @property
    def method(self) -> str:
        return str(self.spec["method"]["name"])

    @property
    def alpha(self) -> float | None:
        value = self.spec["method"].get("alpha")
        return None if value is None else float(value)

    @property
    def density(self) -> float | None:
        value = self.spec.get("density")
        return None if value is None else float(value)

    @property
    def protocols(self) -> tuple[str, ...]:
        found = {name for text in self.rows["protocol"] for name in text.split(SEPARATOR) if name}
        return tuple(sorted(found, reverse=True))

    @cached_property
    def done(self) -> pd.DataFrame:
        return self.rows[self.rows["status"] == "done"]

    def lost(self) -> dict[str, int]:
        """How many cells diverged, failed or were cancelled."""
        counts = self.rows["status"].value_counts()
        return {status: int(counts[status]) for status in LOST if status in counts}

    def summary(self, column: str, *, scale: float = 1.0) -> Summary:
        return summarize([scale * value for value in self.done[column]], expected=len(self.rows))


def summarize(values: Sequence[float], *, expected: int) -> Summary:
    mean = statistics.fmean(values) if values else math.nan
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return Summary(mean, sd, len(values), expected)


def settings(results: pd.DataFrame) -> list[Setting]:
    """Every setting of a results table, ordered by model, method, alpha and density."""
    groups: dict[str, list[int]] = {}
    for position, text in enumerate(results["spec"]):
        tree = {key: value for key, value in json.loads(text).items() if key not in NOT_SETTING}
        groups.setdefault(json.dumps(tree, sort_keys=True), []).append(position)
    found = []
    for text, positions in groups.items():
        rows = results.iloc[positions]
        departs = rows["departs"] != ""
        counted = rows[~departs].sort_values(["seed", "run_id"])
        counted = counted.assign(unfinished=counted["status"] != "done").sort_values(
            ["seed", "unfinished"], kind="stable"
        )
        found.append(Setting(json.loads(text), counted.drop_duplicates("seed"), int(departs.sum())))
    return sorted(found, key=lambda s: (s.dataset, s.model, s.method, s.alpha or 0, s.density or 0, str(s.spec)))


def dense_twin(setting: Setting, among: Sequence[Setting]) -> Setting | None:
    """The dense setting that a sparse one is compared with: same data, model, epochs, learning rate, protocol."""
    same = [
        dense
        for dense in among
        if dense.method == "dense"
        and dense.spec["data"] == setting.spec["data"]
        and dense.model == setting.model
        and all(dense.spec["optimizer"].get(key) == setting.spec["optimizer"].get(key) for key in ("lr", "epochs"))
        and (set(dense.protocols) & set(setting.protocols) or not (dense.protocols and setting.protocols))
        and len(dense.rows)
    ]
    likeness = ("model", "optimizer", "precision")
    return max(same, key=lambda d: [d.spec.get(key) == setting.spec.get(key) for key in likeness], default=None)
