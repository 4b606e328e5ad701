"""The paper's curves and sparse patterns: thin lines are seeds, bold ones their mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.histories import layer_names
from analysis.palette import ALPHAS, DENSE, MODEL, SPARSE, STYLE, layer_colours

RATIO = "Remaining ratio"
ACCURACY = "Test accuracy (%)"
THREAD = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}


def by_step_and_epoch(data: pd.DataFrame, title: str) -> Any:
    """Figure 4: layer remaining ratio (a) by step of epoch 1, where recorded, and (b) by epoch, with test accuracy."""
    stepped = bool(data["step"].notna().any())
    mosaic = [["steps", "layers"], ["steps", "accuracy"]] if stepped else [["layers"], ["accuracy"]]
    figure, axes = _canvas(mosaic, (9.6 if stepped else 5.6, 4.4), title)
    if stepped:
        _ratios(axes["steps"], data[data["step"].notna()], "step", layers=True)
        axes["steps"].set(title="(a) each step of the first epoch", xlabel="Training step", ylabel=RATIO)
    _ratios(axes["layers"], data[data["step"].isna()], "epoch", layers=True)
    axes["layers"].set(title="(b) each epoch" if stepped else "(b) each epoch; no steps were recorded", ylabel=RATIO)
    _accuracies(axes["accuracy"], data)
    _share_epochs(axes["layers"], axes["accuracy"])
    return figure


def by_epoch(data: pd.DataFrame, title: str) -> Any:
    """Figure 5: (a) layer remaining ratios by epoch, (b) the model's, with sparse and dense test accuracy."""
    figure, axes = _canvas([["layers", "model"], ["layers", "accuracy"]], (9.6, 4.4), title)
    epochs = data[data["step"].isna()]
    _ratios(axes["layers"], epochs, "epoch", layers=True)
    axes["layers"].set(title="(a) layers", xlabel="Epoch", ylabel=RATIO)
    _ratios(axes["model"], epochs, "epoch", layers=False)
    axes["model"].set(title="(b) model", ylabel=RATIO)
    _accuracies(axes["accuracy"], data)
    _share_epochs(axes["model"], axes["accuracy"])
    return figure


def sparse_pattern(data: pd.DataFrame, title: str) -> Any:
    """Figure 7: percentage of each layer's weights that remain, for every alpha; dots are seeds."""
    models = list(dict.fromkeys(data["model"]))
    columns = 1 if len(models) == 1 else 2
    names = [f"panel{i}" for i in range(len(models))] + ["."] * (-len(models) % columns)
    mosaic = [names[i : i + columns] for i in range(0, len(names), columns)]
    figure, axes = _canvas(mosaic, (9.6, 0.4 + 3.1 * len(mosaic)), title)
    for model, name in zip(models, names, strict=False):
        _bars(axes[name], data[data["model"] == model])
        if len(models) > 1:
            axes[name].set_title(model)
    return figure


def _canvas(mosaic: Sequence[Sequence[str]], size: tuple[float, float], title: str) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(style="ticks", rc=STYLE)
    figure, axes = plt.subplot_mosaic([list(row) for row in mosaic], figsize=size, layout="constrained")
    figure.suptitle(re.sub(r"\balpha\b", "α", title), fontsize=10, x=0.01, ha="left")
    for axis in axes.values():
        sns.despine(ax=axis)
    return figure, axes


def _ratios(axis: Any, data: pd.DataFrame, clock: str, *, layers: bool) -> None:
    parameters = [name.removeprefix("density/") for name in dict.fromkeys(data["name"]) if name.startswith("density/")]
    names = layer_names(parameters) if layers else {}
    colours = layer_colours(list(names.values()))
    ends = []
    for parameter, label in names.items():
        _lines(axis, data[data["name"] == f"density/{parameter}"], clock, colours[label])
        ends.append((_end(data[data["name"] == f"density/{parameter}"], clock), label, colours[label]))
    whole = data[data["name"] == "density"]
    _lines(axis, whole, clock, MODEL, style="--" if layers else "-")
    ends.append((_end(whole, clock), "Model", MODEL))
    axis.set_ylim(-0.02, 1.03)
    axis.set_xlim(data[clock].min() if clock == "epoch" else 0, data[clock].max())
    _label_ends(axis, ends)


def _accuracies(axis: Any, data: pd.DataFrame) -> None:
    accuracy = data[(data["name"] == "test_accuracy") & data["step"].isna()]
    ends = []
    for label, part, colour in (
        ("Dense", accuracy[accuracy["method"] == "dense"], DENSE),
        ("Sparse", accuracy[accuracy["method"] != "dense"], SPARSE),
    ):
        if len(part):
            _lines(axis, part, "epoch", colour)
            ends.append((_end(part, "epoch"), label, colour))
    axis.set(xlabel="Epoch", ylabel=ACCURACY, xlim=(accuracy["epoch"].min(), accuracy["epoch"].max()))
    _label_ends(axis, ends)


def _lines(axis: Any, data: pd.DataFrame, clock: str, colour: Any, *, style: str = "-") -> None:
    seeds = data.pivot(index=clock, columns="run_id", values="value").astype(float)
    if seeds.shape[1] > 1:
        axis.plot(seeds.index, seeds.to_numpy(), color=colour, linewidth=0.6, alpha=0.35)
    axis.plot(seeds.index, seeds.mean(axis=1), color=colour, linewidth=1.7, linestyle=style, clip_on=False)


def _end(data: pd.DataFrame, clock: str) -> float:
    return float(data.loc[data[clock] == data[clock].max(), "value"].astype(float).mean())


def _label_ends(axis: Any, ends: Sequence[tuple[float, str, Any]]) -> None:
    """Names at the right end of the lines, moved apart where they would overlap, with a thread to the line."""
    low, high = axis.get_ylim()
    inches = axis.get_figure().get_size_inches()[1] * axis.get_subplotspec().rowspan.__len__()
    rows = axis.get_subplotspec().get_gridspec().nrows
    gap = 0.165 / max(0.5, inches / rows - 0.55)
    order = sorted(ends, key=lambda end: end[0])
    places = spread([(value - low) / (high - low) for value, _, _ in order], gap=min(gap, 1 / max(1, len(order) - 1)))
    for (value, label, colour), place in zip(order, places, strict=True):
        axis.annotate(
            label, xy=(1, value), xycoords=("axes fraction", "data"), xytext=(1.045, place),
            textcoords="axes fraction", color=colour, fontsize=8, va="center", annotation_clip=False,
            arrowprops=THREAD | {"color": colour},
        )  # fmt: skip


def spread(places: Sequence[float], *, gap: float) -> list[float]:
    """Ascending places in [0, 1] moved as little as it takes to stand `gap` apart, within [0, 1] where they fit."""
    from scipy.optimize import isotonic_regression

    if not places:
        return []
    steps = [i * gap for i in range(len(places))]
    level = isotonic_regression([place - step for place, step in zip(places, steps, strict=True)]).x
    room = max(0.0, 1 - steps[-1])
    return [min(max(float(base), 0.0), room) + step for base, step in zip(level, steps, strict=True)]


def _share_epochs(upper: Any, lower: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    for axis in (upper, lower):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    upper.tick_params(labelbottom=False)
    lower.set_xlim(upper.get_xlim())


def _bars(axis: Any, data: pd.DataFrame) -> None:
    names = layer_names(list(data["parameter"]))
    alphas = sorted(set(data["alpha"]))
    width = 0.8 / len(alphas)
    colours = ALPHAS if len(alphas) > 1 else ALPHAS[1:]
    for i, alpha in enumerate(alphas):
        grouped = data[data["alpha"] == alpha].groupby("parameter")["remaining_percent"]
        mean = grouped.mean().reindex(names).astype(float)
        seeds = data[data["alpha"] == alpha]
        n = seeds["run_id"].nunique()
        places = [place + (i - (len(alphas) - 1) / 2) * width for place in range(len(names))]
        axis.bar(places, mean, width * 0.92, color=colours[i % len(colours)], label=f"α = {alpha:g} (n={n})")
        if n > 1:
            at = dict(zip(names, places, strict=True))
            axis.scatter(
                seeds["parameter"].map(at),
                seeds["remaining_percent"],
                s=9,
                color="#222222",
                edgecolors="white",
                linewidths=0.4,
                zorder=3,
            )
    weights = data.drop_duplicates("parameter").set_index("parameter")["weights"]
    axis.set_xticks(range(len(names)), [f"{name}\n{_count(weights[key])}" for key, name in names.items()])
    axis.set(ylim=(0, 105), ylabel="Parameters remaining (%)", xlabel="Layer, and its number of weights")
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.grid(visible=False, axis="x")
    axis.tick_params(axis="x", length=0, labelsize=7.5)
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2, handlelength=1.2)


def _count(weights: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if weights >= size:
            return f"{weights / size:.3g}{unit}"
    return f"{weights:g}"
