"""The data behind the figures: what traces and layer tables say of a setting, long, and nothing computed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from analysis.read import Tables
from analysis.settings import Setting

COLUMNS = ("method", "alpha", "run_id", "seed", "epoch", "step", "name", "value")
CONVOLUTION = re.compile(r"(?:.*\.)?(?:conv\d*|shortcut|downsample\.\d+)\.weight")
SHORTCUT = "(shortcut)"
PATTERN = ("model", "alpha", "run_id", "seed", "parameter", "weights", "kept", "remaining_percent")


def history(tables: Tables, sparse: Setting, dense: Setting | None) -> pd.DataFrame:
    """Densities by step of epoch 1 and by epoch, test accuracy by epoch; of the dense twin accuracy alone.

    `step` is NaN in what was recorded once an epoch.
    """
    ours = _traces(tables, sparse)
    is_density = (ours["name"] == "density") | ours["name"].str.startswith("density/")
    by_step = ours["step"].notna() & (ours["epoch"] == 1) & is_density
    by_epoch = ours["step"].isna() & (is_density | (ours["name"] == "test_accuracy"))
    parts = [ours[by_step | by_epoch]]
    if dense is not None:
        twin = _traces(tables, dense)
        parts.append(twin[twin["step"].isna() & (twin["name"] == "test_accuracy")])
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def wide(data: pd.DataFrame) -> pd.DataFrame:
    """A history with a row an epoch or step, and a column a recorded name, for CSV."""
    index = [name for name in COLUMNS if name not in ("name", "value")]
    order = list(dict.fromkeys(data["name"]))
    table = data.assign(step=data["step"].fillna(-1), alpha=data["alpha"].fillna(-1.0).astype(float))
    table = table.pivot(index=index, columns="name", values="value")[order].reset_index()
    counts = {"epoch": "Int64", "step": "Int64"}
    return table.assign(
        alpha=table["alpha"].mask(table["alpha"] < 0), step=table["step"].mask(table["step"] < 0)
    ).astype(counts)


def pattern(tables: Tables, settings: Iterable[Setting]) -> pd.DataFrame:
    """Weights and kept weights of each layer, a row a run and layer, in the layers' order."""
    parts = []
    for setting in settings:
        seeds = setting.done.set_index("run_id")["seed"]
        layers = tables.layers[tables.layers["run_id"].isin(seeds.index)]
        layers = layers.astype({"weights": int, "kept": int})
        remaining = 100 * layers["kept"] / layers["weights"]
        named = layers.assign(model=setting.model, alpha=setting.alpha, seed=layers["run_id"].map(seeds).astype(int))
        parts.append(named.assign(remaining_percent=remaining)[list(PATTERN)])
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(PATTERN))


def layer_names(parameters: Sequence[str]) -> dict[str, str]:
    """Qualified parameter names -> the paper's words, where they follow a pattern: Conv 3, FC 1, Layer 2.

    Convolutions inside blocks are numbered in the order given, shortcuts included and marked.
    """
    plain = list(dict.fromkeys(parameters))
    only_linear = all(re.fullmatch(r"fc\d+\.weight", name) for name in plain)
    linear = "Layer" if only_linear and len(plain) > 2 else "FC"
    convolutions = [name for name in plain if CONVOLUTION.fullmatch(name)]
    numbers = {name: i for i, name in enumerate(convolutions, start=1)} if any(map(_in_block, convolutions)) else {}
    return {name: _layer_name(name, linear, numbers.get(name)) for name in plain}


def _in_block(parameter: str) -> bool:
    return "." in parameter.removesuffix(".weight")


def _layer_name(parameter: str, linear: str, number: int | None) -> str:
    if number is not None:
        return f"Conv {number}" if re.search(r"conv\d*\.weight$", parameter) else f"Conv {number} {SHORTCUT}"
    if found := re.fullmatch(r"(fc|conv)(\d*)\.weight", parameter):
        return f"{linear if found[1] == 'fc' else 'Conv'} {found[2]}".strip()
    if found := re.fullmatch(r".*\.weight_(ih|hh)_l(\d+)", parameter):
        return f"LSTM {int(found[2]) + 1} {'input' if found[1] == 'ih' else 'recurrent'}"
    return parameter.removesuffix(".weight")


def _traces(tables: Tables, setting: Setting) -> pd.DataFrame:
    seeds = setting.done.set_index("run_id")["seed"]
    found = tables.traces[tables.traces["run_id"].isin(seeds.index)]
    named = found.assign(method=setting.method, alpha=setting.alpha, seed=found["run_id"].map(seeds).astype(int))
    return named.sort_values(["seed"], kind="stable")[list(COLUMNS)]
