"""The three readings of a cell: the epochs that it is read at, and the columns that hold them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import pandas as pd

from analysis.data.conditions import Condition, Results
from analysis.data.selection import of_table
from analysis.paper import printed

EPOCHS = ("last", "best", "lowest")
COUNTED = "last"  # summaries count at it: the only one that the run's results do not choose
NAMES = {"last": "last", "best": "best accuracy", "lowest": "lowest density"}
DENSITY = {"last": "density", "best": "density_at_best_test_accuracy", "lowest": "min_density"}
ACCURACY = {
    ("top1", "best"): "best_test_accuracy",
    ("top1", "last"): "test_accuracy",
    ("top1", "lowest"): "test_accuracy_at_min_density",
    ("top5", "best"): "test_top5_accuracy_at_best_test_accuracy",
    ("top5", "last"): "test_top5_accuracy",
    ("top5", "lowest"): "test_top5_accuracy_at_min_density",
}
SETTLED = {"density": "settled_density", "top1": "settled_test_accuracy"}
FROM_TRACES = {"best": ("test_accuracy", max), "lowest": ("density", min)}


def dense_epoch(epoch: str) -> str:
    """The epoch that the dense twin is read at.

    It is the same epoch; for the lowest density, which a dense network does not have, the last.
    """
    return "last" if epoch == "lowest" else epoch


def read_at(condition: Condition) -> tuple[str, ...]:
    """The epochs that a condition has: the lowest density only where the method finds its own."""
    return EPOCHS if condition.alpha is not None else ("last", "best")


def settled(condition: Condition) -> Condition:
    """The condition with the columns SETTLED: density and accuracy where no layer was just reset.

    They are those of the last epoch; of a run whose thresholds were reset, those of its epoch of
    lowest density. Soon after a reset a layer keeps nearly all of its weights, and resets can come
    in every epoch, so that hardly an epoch is without one. The epoch of lowest density is the one
    furthest from a reset. It is chosen without the test set.
    """
    was_reset = condition.rows["threshold_resets"] > 0
    columns = {
        SETTLED[name]: condition.rows[lowest].where(was_reset, condition.rows[last])
        for name, lowest, last in (
            ("density", DENSITY["lowest"], DENSITY["last"]),
            ("top1", ACCURACY["top1", "lowest"], ACCURACY["top1", "last"]),
        )
    }
    return dataclasses.replace(condition, rows=condition.rows.assign(**columns))


def measured(name: str, results: Results) -> list[Condition]:
    """The conditions of a table of the paper, with top-5 accuracies where it prints them."""
    own = of_table(name, results.conditions)
    top5 = any(target.metric == "top5" for target in printed.targets(name))
    return with_top5(own, results.tables.traces) if top5 else own


def with_top5(conditions: Iterable[Condition], traces: pd.DataFrame) -> list[Condition]:
    """Adds the top-5 accuracy at the best and the lowest-density epoch, which only traces have."""
    names = ("test_accuracy", "test_top5_accuracy", "density")
    found = list(conditions)
    wanted = {run_id for condition in found for run_id in condition.run_ids}
    kept = traces[traces["run_id"].isin(wanted) & traces["name"].isin(names) & traces["step"].isna()]
    records = {run_id: _records(rows, names) for run_id, rows in kept.groupby("run_id")}
    return [dataclasses.replace(condition, rows=_added(condition.rows, records)) for condition in found]


def _records(rows: pd.DataFrame, names: Sequence[str]) -> list[dict[str, float]]:
    """What a run recorded, one mapping per epoch that has all of the names."""
    epochs: dict[float, dict[str, float]] = {}
    for epoch, name, value in zip(rows["epoch"], rows["name"], rows["value"], strict=True):
        epochs.setdefault(epoch, {})[name] = float(value)
    return [epochs[epoch] for epoch in sorted(epochs) if len(epochs[epoch]) == len(names)]


def _added(rows: pd.DataFrame, records: dict[str, list[dict[str, float]]]) -> pd.DataFrame:
    columns = {}
    for epoch, (name, choose) in FROM_TRACES.items():
        values = []
        for run_id in rows["run_id"]:
            known = records.get(run_id, [])
            extreme = choose((record[name] for record in known), default=float("nan"))
            values.append(next((r["test_top5_accuracy"] for r in known if r[name] == extreme), float("nan")))
        columns[ACCURACY["top5", epoch]] = values
    return rows.assign(**columns)
