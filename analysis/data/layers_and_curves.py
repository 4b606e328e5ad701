"""What runs recorded: curves over time from traces.csv, kept weights by layer from layers.csv."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.data.conditions import Condition
from analysis.data.read import Tables
from analysis.statistics.resampling import Floats

HISTORY = ("method", "alpha", "run_id", "seed", "epoch", "step", "name", "value")
KEPT = ("model", "alpha", "run_id", "seed", "parameter", "weights", "kept", "remaining_percent")
CONVOLUTION = re.compile(r"(?:.*\.)?(?:conv\d*|shortcut|downsample\.\d+)\.weight")
SHORTCUT = "(shortcut)"
RECURRENT = re.compile(r"weight_[ih]h(_l\d+)")


@dataclass(frozen=True)
class LayerRatios:
    """Weights that a condition's done seeds keep.

    kept: [runs, layers]; weights: [layers], how many each layer has.
    """

    run_ids: tuple[str, ...]
    names: tuple[str, ...]
    weights: Floats
    kept: Floats

    @property
    def remaining(self) -> Floats:
        """Fractions, [runs, layers]."""
        return self.kept / self.weights

    def by_layer(self) -> LayerRatios:
        """The matrices of one recurrent layer, of its input and of its hidden state, taken together."""
        names = [RECURRENT.sub(r"\1", name) for name in self.names]
        layers = list(dict.fromkeys(names))
        member = np.array([[name == layer for layer in layers] for name in names], dtype=float)
        return LayerRatios(self.run_ids, tuple(layers), self.weights @ member, self.kept @ member)


def history(tables: Tables, sparse: Condition, dense: Condition | None) -> pd.DataFrame:
    """Densities and test accuracy by epoch, and densities by step of epoch 1.

    The dense twin adds only its accuracy. Long, one row per recorded value; `step` is NaN in what
    was recorded once per epoch.
    """
    ours = _traces(tables, sparse)
    is_density = (ours["name"] == "density") | ours["name"].str.startswith("density/")
    steps = ours["step"].notna() & (ours["epoch"] == 1) & is_density
    epochs = ours["step"].isna() & (is_density | (ours["name"] == "test_accuracy"))
    parts = [ours[steps | epochs]]
    if dense is not None:
        twin = _traces(tables, dense)
        parts.append(twin[twin["step"].isna() & (twin["name"] == "test_accuracy")])
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def wide(data: pd.DataFrame) -> pd.DataFrame:
    """A history with one row per epoch or step and one column per recorded name, for CSV."""
    index = [name for name in HISTORY if name not in ("name", "value")]
    order = list(dict.fromkeys(data["name"]))
    table = data.assign(step=data["step"].fillna(-1), alpha=data["alpha"].fillna(-1.0).astype(float))
    table = table.pivot(index=index, columns="name", values="value")[order].reset_index()
    counts = {"epoch": "Int64", "step": "Int64"}
    return table.assign(
        alpha=table["alpha"].mask(table["alpha"] < 0), step=table["step"].mask(table["step"] < 0)
    ).astype(counts)


def by_epoch(tables: Tables, condition: Condition, name: str) -> pd.DataFrame:
    """A value recorded once per epoch: one row per epoch, one column per seed; may be empty."""
    rows = _rows(tables, condition, name)
    return _by_seed(rows[rows["step"].isna()], "epoch")


def by_step(tables: Tables, condition: Condition, name: str) -> pd.DataFrame:
    """A value recorded at each step of the first epoch: one row per step, one column per seed."""
    rows = _rows(tables, condition, name)
    return _by_seed(rows[rows["step"].notna() & (rows["epoch"] == 1)], "step")


def of_common_seeds(curves: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Of tables of `by_epoch` or `by_step` the columns that all have: the seeds whose records are complete."""
    common = [seed for seed in curves[0] if all(seed in curve for curve in curves)]
    return [curve[common] for curve in curves]


def kept_weights(tables: Tables, conditions: Iterable[Condition]) -> pd.DataFrame:
    """Weights and kept weights, one row per run and layer, in the layers' order."""
    parts = []
    for condition in conditions:
        seeds = condition.done.set_index("run_id")["seed"]
        layers = tables.layers_of(seeds.index).astype({"weights": int, "kept": int})
        remaining = 100 * layers["kept"] / layers["weights"]
        named = layers.assign(
            model=condition.model, alpha=condition.alpha, seed=layers["run_id"].map(seeds).astype(int)
        )
        parts.append(named.assign(remaining_percent=remaining)[list(KEPT)])
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(KEPT))


def layer_ratios(tables: Tables, condition: Condition) -> LayerRatios | None:
    """The layer ratios of the done seeds that have a layer table; None where none has."""
    tabled = {str(run_id): tables.layers_of([run_id]) for run_id in condition.done["run_id"]}
    found = {run_id: rows for run_id, rows in tabled.items() if len(rows)}
    if not found:
        return None
    layers = {run_id: tuple(rows["parameter"]) for run_id, rows in found.items()}
    names = max(layers.values(), key=len)  # a run without some of its layers is left out
    alike = {run_id: found[run_id] for run_id in found if layers[run_id] == names}
    first = next(iter(alike.values()))
    kept = np.stack([rows["kept"].to_numpy(dtype=float) for rows in alike.values()])
    return LayerRatios(tuple(alike), names, first["weights"].to_numpy(dtype=float), kept)


def settled_ratios(tables: Tables, condition: Condition) -> LayerRatios | None:
    """The layer ratios of the done seeds at the epochs of `epochs.settled`; None where none is known.

    Of runs with a reset they come from traces.csv; such a run without records is left out.
    """
    last = layer_ratios(tables, condition)
    if last is None:
        return None
    was_reset = dict(zip(condition.done["run_id"], condition.done["threshold_resets"] > 0, strict=True))
    kept = {
        run_id: _kept_at_lowest(tables, run_id, last) if was_reset[run_id] else last.kept[i]
        for i, run_id in enumerate(last.run_ids)
    }
    known = {run_id: layers for run_id, layers in kept.items() if layers is not None}
    return LayerRatios(tuple(known), last.names, last.weights, np.stack(list(known.values()))) if known else None


def _kept_at_lowest(tables: Tables, run_id: str, last: LayerRatios) -> Floats | None:
    """Weights that each layer keeps in the run's epoch of lowest density."""
    rows = tables.traces_of([run_id])
    rows = rows[rows["step"].isna() & rows["name"].astype(str).str.startswith("density")]
    epochs = rows.astype({"name": str}).pivot(index="epoch", columns="name", values="value").astype(float)
    wanted = [f"density/{name}" for name in last.names]
    if "density" not in epochs or not set(wanted) <= set(epochs.columns):
        return None
    return np.asarray(np.rint(epochs.loc[epochs["density"].idxmin(), wanted].to_numpy(dtype=float) * last.weights))


def mean_remaining(tables: Tables, condition: Condition) -> pd.Series:
    """The share of each layer's weights that is kept at the end, mean over seeds, by parameter."""
    rows = tables.layers_of(condition.done["run_id"])
    share = rows["kept"].astype(float) / rows["weights"].astype(float)
    return share.groupby(rows["parameter"], sort=False).mean()


def layer_names(parameters: Sequence[str]) -> dict[str, str]:
    """Qualified parameter names -> the paper's words, where they follow a pattern: Conv 3, FC 1.

    Convolutions inside blocks are numbered in the order given; shortcuts count and are marked.
    """
    plain = list(dict.fromkeys(parameters))
    only_linear = all(re.fullmatch(r"fc\d+\.weight", name) for name in plain)
    linear = "Layer" if only_linear and len(plain) > 2 else "FC"
    convolutions = [name for name in plain if CONVOLUTION.fullmatch(name)]
    in_blocks = any("." in name.removesuffix(".weight") for name in convolutions)
    numbers = {name: i for i, name in enumerate(convolutions, start=1)} if in_blocks else {}
    return {name: _layer_name(name, linear, numbers.get(name)) for name in plain}


def _layer_name(parameter: str, linear: str, number: int | None) -> str:
    if number is not None:
        return f"Conv {number}" if re.search(r"conv\d*\.weight$", parameter) else f"Conv {number} {SHORTCUT}"
    if found := re.fullmatch(r"(fc|conv)(\d*)\.weight", parameter):
        return f"{linear if found[1] == 'fc' else 'Conv'} {found[2]}".strip()
    if found := re.fullmatch(r".*\.weight_(ih|hh)_l(\d+)", parameter):
        return f"LSTM {int(found[2]) + 1} {'input' if found[1] == 'ih' else 'recurrent'}"
    return parameter.removesuffix(".weight")


def _traces(tables: Tables, condition: Condition) -> pd.DataFrame:
    seeds = condition.done.set_index("run_id")["seed"]
    found = tables.traces_of(seeds.index)
    named = found.assign(method=condition.method, alpha=condition.alpha, seed=found["run_id"].map(seeds).astype(int))
    return named.sort_values(["seed"], kind="stable")[list(HISTORY)]


def _rows(tables: Tables, condition: Condition, name: str) -> pd.DataFrame:
    seed_of = condition.done.set_index("run_id")["seed"].astype(int)
    rows = tables.traces_of(seed_of.index)
    rows = rows[rows["name"] == name]
    return rows.assign(seed=rows["run_id"].astype(object).map(seed_of))


def _by_seed(rows: pd.DataFrame, clock: str) -> pd.DataFrame:
    if rows.empty:
        return pd.DataFrame()
    return rows.pivot(index=clock, columns="seed", values="value").astype(float).sort_index()
