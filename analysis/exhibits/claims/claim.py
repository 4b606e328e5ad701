"""What a claim of the paper is tested on: settings and curves out of the tables, and the result of a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from analysis.exhibit import Results
from analysis.settings import Setting, dense_twin
from analysis.settings import seeds as seeds_of
from analysis.tables import follows_protocol

Result = Literal["supported", "not supported", "mixed", "not run"]
LAST = ("test_accuracy", "density")
BEST = ("best_test_accuracy", "density_at_best_test_accuracy")


@dataclass(frozen=True)
class Outcome:
    """The result of a test, the numbers that it rests on, and the runs that they are of. n: how many runs."""

    result: Result
    evidence: str = ""
    run_ids: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return len(self.run_ids)


Predicate = Callable[[Results], Outcome]


def judge(held: Sequence[bool], evidence: str, used: Iterable[Setting]) -> Outcome:
    """Supported where the test held in every unit (a seed, a setting, a network), mixed where in some."""
    if not held:
        return not_run(evidence)
    result: Result = "supported" if all(held) else "mixed" if any(held) else "not supported"
    run_ids = {str(run_id) for setting in used for run_id in setting.done["run_id"]}
    return Outcome(result, evidence, tuple(sorted(run_ids)))


def not_run(why: str = "") -> Outcome:
    return Outcome("not run", why)


def measured(results: Results, model: str, *, alpha: float | None = None, lr: float | None = None) -> list[Setting]:
    """DST as the paper runs it on a model, with runs; the paper's protocol where there is any of it. By alpha."""
    found = [
        s
        for s in results.settings
        if (s.model, s.method) == (model, "dst")
        and follows_protocol(s)
        and s.spec["method"].get("reset_density") != 0
        and len(s.done)
        and (alpha is None or s.alpha == alpha)
        and (lr is None or s.spec["optimizer"]["lr"] == lr)
    ]
    return [s for s in found if "paper" in s.protocols] or found


def stated(results: Results, model: str, *, alpha: float, lr: float | None = None) -> Setting | None:
    """The setting that the paper states, where it has runs."""
    return next(iter(measured(results, model, alpha=alpha, lr=lr)), None)


def twin_of(results: Results, setting: Setting) -> Setting | None:
    """Its dense baseline, where that has runs."""
    twin = dense_twin(setting, results.settings)
    return twin if twin is not None and len(twin.done) else None


def by_epoch(results: Results, setting: Setting, name: str) -> pd.DataFrame:
    """A value that is recorded once an epoch: a row an epoch, a column a seed; empty where nothing is recorded."""
    return _curve(results, setting, name, "epoch")


def by_step(results: Results, setting: Setting, name: str) -> pd.DataFrame:
    """A value that is recorded each step of the first epoch: a row a step, a column a seed."""
    return _curve(results, setting, name, "step")


def layers_of(results: Results, setting: Setting) -> pd.Series:
    """The share of each layer's weights that is kept at the end, mean over seeds, by parameter."""
    rows = results.tables.layers_of(setting.done["run_id"])
    share = rows["kept"].astype(float) / rows["weights"].astype(float)
    return share.groupby(rows["parameter"], sort=False).mean()


def mean_of(setting: Setting, column: str) -> float:
    return float(setting.done[column].mean())


def seeds(setting: Setting) -> str:
    """How many are done: `n=3`, or `n=2/3` where seeds are missing."""
    return seeds_of(len(setting.done), len(setting.rows))


def several(values: Iterable[float], form: str = ".2f") -> str:
    """Numbers of the seeds as a reader sees them: `0.10, 0.12, 0.11`."""
    return ", ".join(format(float(value), form) for value in values)


def _curve(results: Results, setting: Setting, name: str, clock: str) -> pd.DataFrame:
    seed_of = setting.done.set_index("run_id")["seed"].astype(int)
    rows = results.tables.traces_of(seed_of.index)
    rows = rows[rows["name"] == name]
    rows = rows[rows["step"].isna()] if clock == "epoch" else rows[rows["step"].notna() & (rows["epoch"] == 1)]
    if rows.empty:
        return pd.DataFrame()
    wide = rows.assign(seed=rows["run_id"].astype(object).map(seed_of))
    return wide.pivot(index=clock, columns="seed", values="value").astype(float).sort_index()
