"""Conditions: cells that differ only in their seed, and which of these cells count."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from analysis.data.differences import differences, short
from analysis.data.equal_counts import with_one_density
from analysis.data.read import Tables
from benchmark.results import DRIFT, SEPARATOR

OTHER_THAN_SEED = ("seed", "step_records")  # neither changes what is trained, except by chance
LOST = ("diverged", "failed", "cancelled")
UNRECORDED = "unrecorded"  # the status that `Condition.only` gives the others
OLDER = "of an earlier version of the method"  # why such a cell is in no mean
MOST_RESETS = 2  # per epoch; with more, the last epoch says little
PROTOCOLS = ("paper", "official")
# A dense network keeps every weight in every epoch. Its rows hold the first epoch's accuracy here.
AT_LOWEST = "test_accuracy_at_min_density"
# Hyperparameters that make no variant: every exhibit shows alpha, and the protocols differ in the decay.
NO_VARIANT = ("alpha", "threshold_weight_decay")
# Hyperparameters that define a method as published; another value is a variant of the method.
PUBLISHED = {
    "dst": {
        "estimator": "long_tailed",
        "threshold": "vector",
        "reset_density": 0.01,
        "reset_rule": "layer",
        "initial_threshold": 0.0,
        "absolute_threshold": False,
    }
}


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (nan for n < 2) over n of `expected` seeds.

    values: those of the seeds; empty for a number that the paper printed.
    """

    mean: float
    sd: float
    n: int
    expected: int
    values: tuple[float, ...] = ()

    @property
    def seeds(self) -> str:
        return seeds(self.n, self.expected)


@dataclass(frozen=True)
class Condition:
    """The cells of one spec over its seeds.

    Baselines whose count is that of another method's cell of the same seed are one condition too; its
    spec has their mean density (`equal_counts`).

    rows: the cells, one per seed, without those that depart from their suite. departing: how many
    do; drifted: how many of these depart only because of drift. added: the method's hyperparameters
    in this spec that other specs of the method lack. A spec leaves such a hyperparameter out at its
    default. older: the run ids of finished cells of earlier versions of the method, which are left out.
    """

    spec: Mapping[str, Any]
    rows: pd.DataFrame
    departing: int
    drifted: int = 0
    added: tuple[str, ...] = ()
    older: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its spec as JSON, as `spec_without_seed` gives it."""
        return json.dumps(self.spec, sort_keys=True)

    def key_without(self, *hyperparameters: str) -> str:
        """Its spec as JSON without these hyperparameters: equal where conditions differ only in them."""
        method = {name: value for name, value in self.spec["method"].items() if name not in hyperparameters}
        return json.dumps({**self.spec, "method": method}, sort_keys=True)

    @property
    def dataset(self) -> str:
        return str(self.spec["data"]["name"])

    @property
    def architecture(self) -> str:
        """The model's name without its widths."""
        return str(self.spec["model"]["name"])

    @property
    def widths(self) -> tuple[int, ...] | None:
        """The widths of the hidden layers, None for the architecture's own."""
        found = self.spec["model"].get("widths")
        return None if found is None else tuple(found)

    @property
    def model(self) -> str:
        """The architecture, and its widths if they are others, so that no mean mixes them."""
        return self.architecture if self.widths is None else f"{self.architecture} {'-'.join(map(str, self.widths))}"

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
    def learning_rate(self) -> float:
        return float(self.spec["optimizer"]["lr"])

    @property
    def variant(self) -> dict[str, Any]:
        """Hyperparameters that make this a variant: not of the published value, or added later."""
        own, published = self.spec["method"], PUBLISHED.get(self.method, {})
        return unpublished(self.spec) | {name: own[name] for name in self.added if name not in published}

    @property
    def as_published(self) -> bool:
        return not self.variant

    @property
    def label(self) -> str:
        """What distinguishes the method's conditions: `alpha 0.0005`, `density 0.05`."""
        return label(self.spec, self.variant)

    @property
    def name(self) -> str:
        """Model, method and label: `lenet-300-100 dst alpha 0.0005`."""
        return " ".join(filter(None, [self.model, self.method, self.label]))

    @property
    def seeds(self) -> str:
        """How many of its seeds are done: `n=3`, or `n=2/3`."""
        return seeds(len(self.done), len(self.rows))

    @property
    def whole_data(self) -> bool:
        """Whether it trains and tests on all of its data set, none of it held out."""
        return all(self.spec["data"].get(key) is None for key in ("train_limit", "test_limit", "validation"))

    @property
    def follows_protocol(self) -> bool:
        """Whether it follows a protocol on the whole data, with the method as published."""
        return self.whole_data and self.as_published and bool(set(self.protocols) & set(PROTOCOLS))

    @property
    def epochs(self) -> int:
        """The epochs that its finished cells trained, in all phases of the method together.

        Tables of an earlier version lack them; then they are those of the spec.
        """
        found = self.done["epochs"].max()
        return int(found if found == found else self.spec["optimizer"]["epochs"])

    @cached_property
    def protocols(self) -> tuple[str, ...]:
        found = {name for text in self.rows["protocol"] for name in text.split(SEPARATOR) if name}
        return tuple(sorted(found, reverse=True))

    @property
    def protocol(self) -> str:
        """Which of the two protocols it follows, the paper's first; empty where it follows none."""
        return next((name for name in PROTOCOLS if name in self.protocols), "")

    @cached_property
    def done(self) -> pd.DataFrame:
        return self.rows[self.rows["status"] == "done"]

    @property
    def ended(self) -> bool:
        """Whether it has cells and none of them is still to run."""
        return len(self.rows) > 0 and len(self.done) + sum(self.lost().values()) == len(self.rows)

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The run ids of the cells that are done."""
        return tuple(self.done["run_id"])

    @property
    def rarely_reset(self) -> bool:
        """Whether layers are reset at most MOST_RESETS times an epoch, mean over finished seeds."""
        rates = self.done["threshold_resets"].astype(float) / self.done["epochs"].astype(float)
        return bool(rates.isna().all() or rates.mean() <= MOST_RESETS)

    def only(self, run_ids: Container[str]) -> Condition:
        """The same, as if no other runs were done: those without records that an exhibit reads, for example."""
        pairs = zip(self.rows["status"], self.rows["run_id"], strict=True)
        others = np.array([status == "done" and run_id not in run_ids for status, run_id in pairs], dtype=bool)
        return replace(self, rows=self.rows.assign(status=self.rows["status"].mask(others, UNRECORDED)))

    def lost(self) -> dict[str, int]:
        """How many cells diverged, failed or were cancelled."""
        counts = self.rows["status"].value_counts()
        return {status: int(counts[status]) for status in LOST if status in counts}

    def departures(self) -> dict[str, int]:
        """How many cells are left out because they are not the suite's, or not of the method's last version."""
        counts = {
            "departing from the suite": self.departing - self.drifted,
            "resumed in a changed environment or suite (drift)": self.drifted,
            OLDER: len(self.older),
        }
        return {what: count for what, count in counts.items() if count}

    def summary(self, column: str, *, scale: float = 1.0) -> Summary:
        """Over the done cells that have the column; fewer than `done` where older rows lack it."""
        return summarize([scale * value for value in self.done[column] if value == value], expected=len(self.rows))

    def by_seed(self, column: str) -> dict[int, float]:
        """seed -> value, of the done cells that have the column."""
        pairs = zip(self.done["seed"], self.done[column], strict=True)
        return {int(seed): float(value) for seed, value in pairs if value == value}


@dataclass(frozen=True)
class Results:
    """The results tables, and their cells as conditions, each in the last version of its method."""

    tables: Tables

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        return tuple(last_versions(conditions(self.tables.results)))


def seeds(n: int, expected: int) -> str:
    """`n=3`, or `n=2/3` where seeds are missing."""
    return f"n={n}" if n == expected else f"n={n}/{expected}"


def summarize(values: Sequence[float], *, expected: int) -> Summary:
    mean = statistics.fmean(values) if values else math.nan
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return Summary(mean, sd, len(values), expected, tuple(values))


def conditions(results: pd.DataFrame) -> list[Condition]:
    """Every condition of a results table, ordered by data set, model, method, alpha and density."""
    keys = with_one_density(results, [spec_without_seed(text) for text in results["spec"]])
    table = results.assign(key=keys)
    table.loc[table["method"] == "dense", AT_LOWEST] = math.nan
    departs = table["departs"] != ""
    counted = table[~departs].sort_values("seed", kind="stable")
    positions = counted.groupby("key", sort=False).indices
    departing = table.loc[departs, "key"].value_counts()
    by_drift = table["departs"].map(lambda text: all(part.startswith(DRIFT) for part in text.split(SEPARATOR)))
    drifted = table.loc[departs & by_drift.astype(bool), "key"].value_counts()
    counted = counted.drop(columns="key")
    specs = {key: json.loads(key) for key in dict.fromkeys(keys)}
    shared = _shared_hyperparameters(specs.values())
    found = [
        Condition(
            spec, counted.iloc[positions.get(key, [])], int(departing.get(key, 0)), int(drifted.get(key, 0)),
            tuple(name for name in spec["method"] if name not in shared[_method(spec)]),
        )
        for key, spec in specs.items()
    ]  # fmt: skip
    return sorted(found, key=lambda c: (c.dataset, c.model, c.method, c.alpha or 0, c.density or 0, str(c.spec)))


def last_versions(found: Sequence[Condition]) -> list[Condition]:
    """The conditions without those of which a later version of the method has finished cells too.

    Conditions are the same in two versions where the hyperparameters that both have are equal, and
    with them all other fields of the spec.
    """
    names = [json.dumps({**c.spec, "method": [c.method, c.variant]}, sort_keys=True) for c in found]
    alike: dict[str, list[Condition]] = {}
    for name, condition in zip(names, found, strict=True):
        alike.setdefault(name, []).append(condition)
    kept = []
    for name, condition in zip(names, found, strict=True):
        if not any(_replaces(other, condition) for other in alike[name]):
            older = [run_id for other in alike[name] if _replaces(condition, other) for run_id in other.run_ids]
            kept.append(replace(condition, older=tuple(older)))
    return kept


def _replaces(later: Condition, earlier: Condition) -> bool:
    if not (len(later.done) and len(earlier.rows) and _method(later.spec)[1] > _method(earlier.spec)[1]):
        return False
    own, other = later.spec["method"], earlier.spec["method"]
    return all(own[name] == other[name] for name in {*own} & {*other} - {"version"})


def spec_without_seed(spec: str) -> str:
    """The JSON of a spec without what distinguishes its seeds: the key of its condition."""
    tree = {name: value for name, value in json.loads(spec).items() if name not in OTHER_THAN_SEED}
    return json.dumps(tree, sort_keys=True)


def label(spec: Mapping[str, Any], variant: Mapping[str, Any] | None = None) -> str:
    """What distinguishes a spec from others of its method: alpha or density, and variant.

    For a method with neither, the numbers among its hyperparameters.
    """
    alpha, density = spec["method"].get("alpha"), spec.get("density")
    asked = [f"alpha {alpha:g}"] if alpha is not None else [f"density {density:.4g}"] if density is not None else []
    shown = asked or [f"{name} {value:g}" for name, value in spec["method"].items() if _is_number(name, value)]
    return ", ".join([*shown, *(f"{name} {short(value)}" for name, value in (variant or {}).items())])


def settings(conditions: Iterable[Condition]) -> dict[str, str]:
    """By key, a condition's label and what distinguishes it: `alpha 0.0005, standardised inputs`.

    A condition is compared with the first one of the same label in its protocol; without a protocol,
    with the first one in any protocol. Epochs are left out: tables have a column for them.
    """
    alike: dict[tuple[str, ...], list[Condition]] = {}
    for condition in conditions:
        place = (condition.dataset, condition.model, condition.method, condition.label)
        alike.setdefault(place, []).append(condition)
    return {c.key: ", ".join(filter(None, [c.label, *_apart(c, same)])) for same in alike.values() for c in same}


def _apart(condition: Condition, alike: Sequence[Condition]) -> list[str]:
    stated = [c for c in alike if (c.protocols == condition.protocols if condition.protocols else c.protocols)]
    official = condition.protocols == ("official",) and any("paper" in c.protocols for c in alike)
    apart = differences(condition.spec, (stated or alike)[0].spec, without=("epochs",))
    return [*(["official protocol"] if official else []), *apart]


def _is_number(name: str, value: object) -> bool:
    return name != "version" and isinstance(value, int | float) and not isinstance(value, bool)


def unpublished(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of a spec's method that are not at the value of its publication."""
    own = spec["method"]
    published = PUBLISHED.get(own["name"], {})
    return {name: own[name] for name, value in published.items() if own.get(name, value) != value}


def dense_twin(sparse: Condition, among: Sequence[Condition]) -> Condition | None:
    """The dense condition that a sparse one is compared with.

    It has the same data, model, epochs, learning rate and protocol.
    """
    same = [
        dense
        for dense in among
        if dense.method == "dense"
        and dense.spec["data"] == sparse.spec["data"]
        and dense.model == sparse.model
        and all(dense.spec["optimizer"].get(key) == sparse.spec["optimizer"].get(key) for key in ("lr", "epochs"))
        and (set(dense.protocols) & set(sparse.protocols) or not (dense.protocols and sparse.protocols))
        and len(dense.rows)
    ]
    likeness = ("model", "optimizer", "precision")
    return max(same, key=lambda d: [d.spec.get(key) == sparse.spec.get(key) for key in likeness], default=None)


def _method(spec: Mapping[str, Any]) -> tuple[str, Any]:
    return spec["method"]["name"], spec["method"].get("version", 0)


def _shared_hyperparameters(specs: Iterable[Mapping[str, Any]]) -> dict[tuple[str, Any], set[str]]:
    """(method, version) -> the hyperparameters that all of its specs have."""
    found: dict[tuple[str, Any], set[str]] = {}
    for spec in specs:
        names = {*spec["method"], *NO_VARIANT}
        found[_method(spec)] = found.get(_method(spec), names) & names
    return found
