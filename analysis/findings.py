"""What the curves and patterns show, in sentences whose numbers are computed from the data behind them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pandas as pd

from analysis.figures import FIRST_STEPS
from analysis.histories import layer_names
from analysis.paper import ARCHITECTURES

LOW = 0.1  # of layer 1, "quickly" (section 5.1)


def of_curves(data: pd.DataFrame, milestones: Sequence[int]) -> str:
    """Where layers and model end, what decay and the first steps do, and how sparse and dense accuracy compare."""
    epochs = data[data["step"].isna()]
    ratio = epochs[epochs["name"].str.startswith("density")].groupby(["name", "epoch"])["value"].mean().unstack("name")
    names = layer_names([str(name).removeprefix("density/") for name in _layers(data)])
    parts = [
        _ends(ratio, names, data),
        *_low(ratio, names),
        *_decay(ratio, names, milestones),
        *_first_steps(data, names),
    ]
    return "; ".join([*parts, *_accuracy(epochs)]) + "."


def of_pattern(data: pd.DataFrame) -> str:
    """Which layers keep most and least at each alpha, and how far the alphas agree in their order."""
    return " ".join(_pattern(own, ARCHITECTURES.get(str(model), str(model))) for model, own in _by_model(data))


def _by_model(data: pd.DataFrame) -> Iterable[tuple[object, pd.DataFrame]]:
    found: Iterable[tuple[object, pd.DataFrame]] = data.groupby("model", sort=False)
    return found


def _pattern(data: pd.DataFrame, model: str) -> str:
    names = layer_names(list(data["parameter"]))
    mean = data.groupby(["alpha", "parameter"])["remaining_percent"].mean().unstack("alpha").reindex(list(names))
    parts = []
    for alpha in mean:
        order = mean[alpha].sort_values(kind="stable")
        least, most = (f"{names[str(order.index[at])]} ({order.iloc[at]:.3g} %)" for at in (0, -1))
        parts.append(f"at alpha {alpha:g} {least} is the sparsest layer and {most} the densest")
    if mean.shape[1] > 1 and len(mean) > 2:
        parts.append(f"rank correlation of the layers between alphas: at least {_agreement(mean):.2f}")
    return f"{model}: {'; '.join(parts)}."


def _agreement(mean: pd.DataFrame) -> float:
    """The lowest of Spearman's correlations between columns."""
    return float(mean.corr(method="spearman").to_numpy().min())


def _layers(data: pd.DataFrame) -> list[str]:
    return [name for name in data["name"].unique() if name.startswith("density/")]


def _ends(ratio: pd.DataFrame, names: dict[str, str], data: pd.DataFrame) -> str:
    """The model's ratio at the end, and the layers': all of few, else the two ends."""
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
    below = ratio.index[ratio[f"density/{first}"] < LOW]
    when = f"at epoch {int(below[0])}" if len(below) else "at no epoch"
    return [f"layer 1 first keeps less than {100 * LOW:g} % {when}"]


def _decay(ratio: pd.DataFrame, names: dict[str, str], milestones: Sequence[int]) -> list[str]:
    """The output layer and the model before the first decay of the learning rate."""
    if not milestones or milestones[0] not in ratio.index or not names:
        return []
    parameter, label = list(names.items())[-1]
    kept = ratio[f"density/{parameter}"] * 100
    before, after = f"{kept[milestones[0]]:.3g} % at epoch {milestones[0]}", f"{kept.iloc[-1]:.3g} % at the end"
    return [f"{label}, the output layer, keeps {before}, before the learning rate decays, and {after}"]


def _first_steps(data: pd.DataFrame, names: dict[str, str]) -> list[str]:
    """How often a layer's mean ratio changes direction within the first hundred steps."""
    steps = data[data["step"] <= FIRST_STEPS]
    if steps.empty:
        return []
    turns = []
    for parameter, label in names.items():
        mean = steps[steps["name"] == f"density/{parameter}"].groupby("step")["value"].mean().astype(float)
        signs = [change > 0 for change in mean.diff().dropna() if change]
        turns.append(f"{label} {sum(a != b for a, b in itertools.pairwise(signs))}")
    return [f"changes of direction of the mean ratio within the first {FIRST_STEPS} steps: {', '.join(turns)}"]


def _accuracy(epochs: pd.DataFrame) -> list[str]:
    accuracy = epochs[epochs["name"] == "test_accuracy"].astype({"value": float})
    mean = accuracy.assign(dense=accuracy["method"] == "dense").groupby(["dense", "epoch"])["value"].mean()
    if mean.empty:
        return []
    last = {dense: values.iloc[-1] for dense, values in mean.groupby(level="dense")}
    text = f"sparse accuracy {last[False]:.2f} %" if False in last else "no sparse accuracy"
    if len(last) < 2:
        return [text + ", dense not run"]
    gap = (mean[False] - mean[True]).dropna()
    return [f"{text}, dense {last[True]:.2f} %; sparse is above dense in {(gap > 0).sum()} of {len(gap)} epochs"]
