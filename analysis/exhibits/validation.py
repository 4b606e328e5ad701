"""Accuracy at the epoch that held-out examples choose, beside the best and the last epoch (suite validation)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.data.comparable import place
from analysis.data.conditions import Condition, Results, Summary, summarize
from analysis.data.layers_and_curves import by_epoch
from analysis.data.read import Tables
from analysis.output.exhibit import Makers, Written, write_table
from analysis.output.numbers import WIDE, mean_and_sd, printed_number, with_seeds
from analysis.output.table import Row, Table
from analysis.paper import printed
from analysis.paper.printed import Target

NAME = "validation"
CAPTION = "The epoch that held-out training examples choose, read on the test set (not in the paper)"
HEADS = (
    "Network", "Condition", "Epoch read", "Epochs of the seeds", "Test accuracy (%)", "Remaining (%)",
    "Printed accuracy (%)", "Printed remaining (%)",
)  # fmt: skip
READINGS = ("chosen on held-out examples", "best on the test set", "last")
NOTES = (
    "Each training was run twice on the same examples, evaluated once on held-out training examples and once on the "
    "test set. Only seeds whose two runs keep the same share of weights in every epoch are shown: they are the same "
    "network.",
    "Chosen: the first epoch of highest accuracy on the held-out examples. Best: the first of highest test accuracy; "
    "choosing it there is optimistic. Without the held-out examples a network trains on fewer than the paper's.",
    f"Mean ± standard deviation over seeds. {WIDE}",
)


@dataclass(frozen=True)
class Seed:
    """One training: accuracy on held-out and on test examples and the share kept, by epoch."""

    run_ids: tuple[str, str]
    held_out: pd.Series
    test: pd.Series
    density: pd.Series

    def epoch(self, reading: str) -> int:
        if reading == "last":
            return int(self.test.index[-1])
        return int((self.held_out if reading == READINGS[0] else self.test).idxmax())


@dataclass(frozen=True)
class Pair:
    """A condition evaluated on held-out examples, its twin on the test set, and the seeds that both have."""

    condition: Condition
    seeds: tuple[Seed, ...]
    differing: int

    def summary(self, reading: str, what: str) -> Summary:
        """Of "test" accuracy or "density", in percent."""
        scale = 1 if what == "test" else 100
        values = [scale * float(getattr(seed, what)[seed.epoch(reading)]) for seed in self.seeds]
        return summarize(values, expected=len(self.condition.rows))


def makers(results: Results) -> Makers:
    return {NAME: lambda out: _write(results, out)}


def pairs(results: Results) -> list[Pair]:
    """Every condition with held-out examples that has a twin with the same trainings."""
    limited = {
        _apart_from_evaluation(c): c
        for c in results.conditions
        if c.spec["data"].get("validation") is None and c.spec["data"].get("train_limit") is not None
    }
    found = []
    for c in sorted(results.conditions, key=place):
        twin = limited.get(_apart_from_evaluation(c))
        if c.spec["data"].get("validation") is not None and twin is not None:
            both = [_seed(results.tables, c, twin, seed) for seed in sorted({*c.done["seed"]} & {*twin.done["seed"]})]
            alike = tuple(seed for seed in both if seed is not None)
            if both:
                found.append(Pair(c, alike, len(both) - len(alike)))
    return found


def _apart_from_evaluation(condition: Condition) -> str:
    """Its spec as JSON without which examples it trains and is evaluated on."""
    data = {k: v for k, v in condition.spec["data"].items() if k not in ("validation", "train_limit")}
    return json.dumps({**condition.spec, "data": data}, sort_keys=True)


def _seed(tables: Tables, held_out: Condition, test: Condition, seed: int) -> Seed | None:
    """The seed's two runs, or None where they are not the same training or recorded no epochs."""
    ours = [by_epoch(tables, c, name).get(seed) for c in (held_out, test) for name in ("test_accuracy", "density")]
    if any(curve is None for curve in ours):
        return None
    chosen_by, kept, tested, kept_too = (curve.dropna() for curve in ours)
    if not kept.equals(kept_too) or not chosen_by.index.equals(tested.index) or tested.empty:
        return None
    ids = [str(c.done.loc[c.done["seed"] == seed, "run_id"].iloc[0]) for c in (held_out, test)]
    return Seed((ids[0], ids[1]), chosen_by, tested, kept)


def _write(results: Results, out: Path) -> Written:
    found = pairs(results)
    shown = [pair for pair in found if pair.seeds]
    rows = [
        Row(_cells(pair, reading), _run_ids(pair), starts=reading == READINGS[0])
        for pair in shown
        for reading in READINGS
    ]
    table = Table(NAME, CAPTION, HEADS, tuple(rows), NOTES, labels=4, measured=HEADS[3:6])
    records = [record for pair in shown for record in _records(pair)]
    differing = [f"{p.condition.name}: {p.differing} left out, whose two runs differ" for p in found if p.differing]
    return write_table(table, records, out, finding=_finding(shown), remark="; ".join(differing))


def _run_ids(pair: Pair) -> tuple[str, ...]:
    return tuple(run_id for seed in pair.seeds for run_id in seed.run_ids)


def _cells(pair: Pair, reading: str) -> tuple[str, ...]:
    target = _target(pair.condition)
    return (
        printed.architecture(pair.condition.model),
        pair.condition.label,
        reading,
        ", ".join(str(seed.epoch(reading)) for seed in pair.seeds),
        with_seeds(pair.summary(reading, "test")),
        with_seeds(pair.summary(reading, "density")),
        "" if target is None else printed_number(target.sparse, target.sparse_std),
        "" if target is None else printed_number(target.density_percent, target.density_std),
    )


def _target(condition: Condition) -> Target | None:
    """What Table 1 prints of DST on this network at this alpha."""
    wanted = (condition.dataset, condition.model, condition.method, condition.alpha)
    return next((t for t in printed.targets("table1") if (t.dataset, t.model, t.method, t.alpha) == wanted), None)


def _records(pair: Pair) -> Iterator[dict[str, Any]]:
    for seed in pair.seeds:
        for reading in READINGS:
            epoch = seed.epoch(reading)
            yield {
                "dataset": pair.condition.dataset, "model": pair.condition.model, "method": pair.condition.method,
                "alpha": pair.condition.alpha, "reading": reading, "epoch": epoch,
                "held_out_accuracy": seed.held_out[epoch], "test_accuracy": seed.test[epoch],
                "density": seed.density[epoch], "run_ids": ";".join(seed.run_ids),
            }  # fmt: skip


def _finding(shown: Sequence[Pair]) -> str:
    """What choosing the epoch on the test set adds to the accuracy."""
    said = []
    for pair in shown:
        chosen, best = (pair.summary(reading, "test") for reading in READINGS[:2])
        added = [b - c for b, c in zip(best.values, chosen.values, strict=True)]
        more = mean_and_sd(summarize(added, expected=len(added)))
        said.append(f"{printed.architecture(pair.condition.model)} {more} points (n={len(added)})")
    return f"The best epoch on the test set is above the chosen one by: {'; '.join(said)}." if said else ""
