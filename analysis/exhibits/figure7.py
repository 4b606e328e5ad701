"""The paper's sparse patterns: percentage of each layer's weights that remain, beside how many it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.canvas import canvas, greek
from analysis.histories import SHORTCUT, layer_names
from analysis.palette import ALPHAS, DENSE
from analysis.paper import ARCHITECTURES

REMAINING = "Parameters\nremaining (%)"
Counts = Mapping[tuple[str, float], str]


def one_model(data: pd.DataFrame, title: str, counts: Counts) -> Any:
    """Figures 7, 11 and 12: bars an alpha, dots for seeds; below, each layer's number of parameters.

    counts: (model, alpha) -> how many seeds, for the legend; also of alphas that are to be shown and were not run.
    """
    figure, axes = canvas([["kept"], ["weights"]], (9.6, 4.9), title, height_ratios=(2.4, 1))
    _bars(axes["kept"], data, counts)
    axes["kept"].set(ylabel=REMAINING)
    axes["kept"].tick_params(labelbottom=False)
    weights = _weights(data)
    axis = axes["weights"]
    axis.bar(range(len(weights)), list(weights), 0.8, color=DENSE)
    for place, value in enumerate(weights):
        axis.annotate(_count(value), (place, value), (0, 2), textcoords="offset points", ha="center", fontsize=7.5)
    _name_layers(axis, data, weights=False)
    axis.set(ylabel="Parameters", ylim=(0, 1.25 * max(weights)))
    axis.yaxis.set_major_formatter(lambda value, _: _count(value))
    return figure


def several_models(data: pd.DataFrame, title: str, counts: Counts) -> Any:
    """The same for models with few layers, a panel each; the numbers of parameters stand under the layers."""
    models = list(data["model"].unique())
    columns = 1 if len(models) == 1 else 2
    names = [f"panel{i}" for i in range(len(models))] + ["."] * (-len(models) % columns)
    mosaic = [names[i : i + columns] for i in range(0, len(names), columns)]
    figure, axes = canvas(mosaic, (9.6, 0.4 + 3.1 * len(mosaic)), title)
    for model, name in zip(models, names, strict=False):
        part = data[data["model"] == model]
        _bars(axes[name], part, counts)
        _name_layers(axes[name], part, weights=True)
        axes[name].set(xlabel="Layer, and its number of parameters", ylabel=REMAINING.replace("\n", " "))
        axes[name].set_title(ARCHITECTURES.get(model, model), pad=18)
    return figure


def _bars(axis: Any, data: pd.DataFrame, counts: Counts) -> None:
    layers = list(data["parameter"].unique())
    model = data["model"].iloc[0]
    alphas = sorted(alpha for name, alpha in counts if name == model)
    width = 0.8 / len(alphas)
    colours = ALPHAS if len(alphas) > 1 else ALPHAS[1:]
    for i, alpha in enumerate(alphas):
        seeds = data[data["alpha"] == alpha]
        mean = seeds.groupby("parameter")["remaining_percent"].mean().reindex(layers).astype(float)
        places = [place + (i - (len(alphas) - 1) / 2) * width for place in range(len(layers))]
        label = greek(f"α = {alpha:g} ({counts[model, alpha]})")
        axis.bar(places, mean, width * 0.92, color=colours[i % len(colours)], label=label)
        if seeds["run_id"].nunique() > 1:
            at = seeds["parameter"].map(dict(zip(layers, places, strict=True)))
            dots = {"s": 9, "color": "#222222", "edgecolors": "white", "linewidths": 0.4, "zorder": 3}
            axis.scatter(at, seeds["remaining_percent"], **dots)
    highest = data["remaining_percent"].max()
    axis.set(ylim=(0, 105 if highest > 50 else 1.15 * highest), xlim=(-0.6, len(layers) - 0.4))
    axis.grid(visible=False, axis="x")
    axis.set_xticks(range(len(layers)))
    axis.tick_params(axis="x", length=0)
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2, handlelength=1.2)


def _name_layers(axis: Any, data: pd.DataFrame, *, weights: bool) -> None:
    """Under each group of bars the layer's name; upright where there are many."""
    labels = [name.replace(f" {SHORTCUT}", "*") for name in layer_names(list(data["parameter"])).values()]
    sizes = [f"\n{_count(value)}" if weights else "" for value in _weights(data)]
    axis.set_xticks(range(len(labels)), [f"{label}{size}" for label, size in zip(labels, sizes, strict=True)])
    axis.tick_params(axis="x", length=0, labelsize=7.5, rotation=90 if len(labels) > 17 else 0)
    axis.set_xlim(-0.6, len(labels) - 0.4)
    axis.grid(visible=False, axis="x")
    if any(label.endswith("*") for label in labels):
        axis.set_xlabel("Layer; * a shortcut's convolution", fontsize=8)


def _weights(data: pd.DataFrame) -> Sequence[float]:
    return list(data.drop_duplicates("parameter")["weights"])


def _count(weights: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if weights >= size:
            return f"{weights / size:.3g}{unit}"
    return f"{weights:g}"
