"""What the curves of a training show, in a sentence with its numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pandas as pd

from analysis.data.layers_and_curves import layer_names

FIRST_LAYER_LOW = 0.1  # layer 1 falls below it "quickly" (section 5.1)
FIRST_STEPS = 100  # of which section 5.1 says that the ratios fluctuate
NOT_RUN = "not run"


def layers_of(data: pd.DataFrame) -> dict[str, str]:
    """Parameter -> the layer's name, of the layers in a history."""
    return layer_names([name.removeprefix("density/") for name in density_names(data)])


def density_names(data: pd.DataFrame) -> list[str]:
    """The recorded names of the layers' densities, in their order."""
    return [name for name in data["name"].unique() if name.startswith("density/")]


def finding(data: pd.DataFrame, milestones: Sequence[int], no_dense: str = NOT_RUN) -> str:
    """Where layers and model end, what the decay and the first steps do, sparse beside dense."""
    epochs = data[data["step"].isna()]
    ratio = epochs[epochs["name"].str.startswith("density")].groupby(["name", "epoch"])["value"].mean().unstack("name")
    names = layers_of(data)
    parts = [
        _final_ratios(ratio, names, data),
        *_low(ratio, names),
        *_decay(ratio, names, milestones),
        *_first_steps(data, names),
    ]
    return "; ".join([*parts, *_accuracy(epochs, no_dense)]) + "."


def _final_ratios(ratio: pd.DataFrame, names: dict[str, str], data: pd.DataFrame) -> str:
    """The model's ratio at the end, and the layers': all of at most six, else the lowest and highest."""
    last = 100 * ratio.iloc[-1]
    n = data[data["method"] != "dense"]["run_id"].nunique()
    layers = {label: last[f"density/{parameter}"] for parameter, label in names.items()}
    if len(layers) > 6:
        extremes = (min(layers, key=lambda label: layers[label]), max(layers, key=lambda label: layers[label]))
        layers = {label: layers[label] for label in extremes}
    kept = ", ".join(f"{label} {value:.3g} %" for label, value in layers.items())
    return f"After epoch {int(ratio.index[-1])} the model keeps {last['density']:.3g} % of its weights ({kept}; n={n})"


def _low(ratio: pd.DataFrame, names: dict[str, str]) -> list[str]:
    """When the first fully connected layer of a model of such layers falls below a tenth."""
    first = next((p for p, label in names.items() if label == "Layer 1"), None)
    if first is None:
        return []
    below = ratio.index[ratio[f"density/{first}"] < FIRST_LAYER_LOW]
    when = f"at epoch {int(below[0])}" if len(below) else "at no epoch"
    return [f"layer 1 first keeps less than {100 * FIRST_LAYER_LOW:g} % {when}"]


def _decay(ratio: pd.DataFrame, names: dict[str, str], milestones: Sequence[int]) -> list[str]:
    """The output layer and the model before the first decay of the learning rate."""
    if not milestones or milestones[0] not in ratio.index or not names:
        return []
    parameter, label = list(names.items())[-1]
    kept = ratio[f"density/{parameter}"] * 100
    before, after = f"{kept[milestones[0]]:.3g} % at epoch {milestones[0]}", f"{kept.iloc[-1]:.3g} % at the end"
    return [f"{label}, the output layer, keeps {before}, before the learning rate decays, and {after}"]


def _first_steps(data: pd.DataFrame, names: dict[str, str]) -> list[str]:
    """How often each layer's mean ratio changes direction within the first hundred steps."""
    steps = data[data["step"] <= FIRST_STEPS]
    if steps.empty:
        return []
    turns = []
    for parameter, label in names.items():
        mean = steps[steps["name"] == f"density/{parameter}"].groupby("step")["value"].mean().astype(float)
        signs = [change > 0 for change in mean.diff().dropna() if change]
        turns.append(f"{label} {sum(a != b for a, b in itertools.pairwise(signs))}")
    return [f"changes of direction of the mean ratio within the first {FIRST_STEPS} steps: {', '.join(turns)}"]


def _accuracy(epochs: pd.DataFrame, no_dense: str) -> list[str]:
    """The last accuracies, and in how many epochs sparse is above dense: means over the seeds that both have."""
    accuracy = epochs[epochs["name"] == "test_accuracy"].astype({"value": float})
    if accuracy.empty:
        return []
    of_dense = accuracy["method"] == "dense"
    sparse, dense = (part.pivot(index="epoch", columns="seed", values="value") for part in
                     (accuracy[~of_dense], accuracy[of_dense]))  # fmt: skip
    text = f"sparse accuracy {sparse.mean(axis=1).iloc[-1]:.2f} %" if len(sparse) else "no sparse accuracy"
    if dense.empty:
        return [f"{text}, dense {no_dense}"]
    text += f", dense {dense.mean(axis=1).iloc[-1]:.2f} %"
    both = sparse.columns.intersection(dense.columns)
    if both.empty:
        return [f"{text}; no seed has both"]
    gap = (sparse[both].mean(axis=1, skipna=False) - dense[both].mean(axis=1, skipna=False)).dropna()
    over = "" if len(both) == sparse.shape[1] == dense.shape[1] else f" (n={len(both)} in both)"
    return [f"{text}; sparse is above dense in {(gap > 0).sum()} of {len(gap)} epochs{over}"]
