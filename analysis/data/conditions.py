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
DRIFT = "drift: "  # begins what benchmark.results writes of a cell resumed under --accept-drift
LOST = ("diverged", "failed", "cancelled")


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (nan for n < 2) over n of `expected` seeds."""

    mean: float
    sd: float
    n: int
    expected: int

    @property
    def seeds(self) -> str:
        return seeds(self.n, self.expected)


@dataclass(frozen=True)
class Setting:
    """The cells of one spec over its seeds. rows: all but departing ones; drifted: how many of those by drift alone."""

    spec: Mapping[str, Any]
    rows: pd.DataFrame
    departing: int
    drifted: int = 0

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
    def whole_data(self) -> bool:
        """Whether it trains and tests on all of its data set, none of it held out."""
        return all(self.spec["data"].get(key) is None for key in ("train_limit", "test_limit", "validation"))

    @property
    def estimator_as_published(self) -> bool:
        return bool(self.spec["method"].get("estimator", "long_tailed") == "long_tailed")

    @property
    def as_published(self) -> bool:
        """Whether DST has a threshold a row and the long-tailed estimator; true of every other method."""
        return self.estimator_as_published and self.spec["method"].get("threshold", "vector") == "vector"

    @cached_property
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

    def departures(self) -> dict[str, int]:
        """How many cells are left out because they are not the suite's."""
        counts = {
            "departing from the suite": self.departing - self.drifted,
            "resumed in a changed environment or suite (drift)": self.drifted,
        }
        return {what: count for what, count in counts.items() if count}

    def summary(self, column: str, *, scale: float = 1.0) -> Summary:
        """Over the done cells that have the column; fewer than `done` where older rows lack it."""
        return summarize([scale * value for value in self.done[column] if value == value], expected=len(self.rows))

    def by_seed(self, column: str) -> dict[int, float]:
        """seed -> value, of the done cells that have the column."""
        pairs = zip(self.done["seed"], self.done[column], strict=True)
        return {int(seed): float(value) for seed, value in pairs if value == value}


def seeds(n: int, expected: int) -> str:
    """`n=3`, or `n=2/3` where seeds are missing."""
    return f"n={n}" if n == expected else f"n={n}/{expected}"


def summarize(values: Sequence[float], *, expected: int) -> Summary:
    mean = statistics.fmean(values) if values else math.nan
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return Summary(mean, sd, len(values), expected)


def settings(results: pd.DataFrame) -> list[Setting]:
    """Every setting of a results table, ordered by model, method, alpha and density."""
    keys = [setting_key(text) for text in results["spec"]]
    table = results.assign(key=keys, unfinished=results["status"] != "done")
    apart = table["departs"] != ""
    counted = table[~apart].sort_values(["seed", "unfinished", "run_id"], kind="stable")
    counted = counted.drop_duplicates(["key", "seed"])
    positions = counted.groupby("key", sort=False).indices
    departing = table.loc[apart, "key"].value_counts()
    by_drift = table["departs"].map(lambda text: all(part.startswith(DRIFT) for part in text.split(SEPARATOR)))
    drifted = table.loc[apart & by_drift.astype(bool), "key"].value_counts()
    counted = counted.drop(columns="key")
    found = [
        Setting(
            json.loads(key), counted.iloc[positions.get(key, [])], int(departing.get(key, 0)), int(drifted.get(key, 0))
        )
        for key in dict.fromkeys(keys)
    ]
    return sorted(found, key=lambda s: (s.dataset, s.model, s.method, s.alpha or 0, s.density or 0, str(s.spec)))


def setting_key(spec: str) -> str:
    """The JSON of a spec without what tells its seeds apart."""
    return json.dumps(
        {name: value for name, value in json.loads(spec).items() if name not in NOT_SETTING}, sort_keys=True
    )


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
