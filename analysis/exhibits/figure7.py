"""Figures 7, 11 and 12, and their like for other data sets: how much of each layer remains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from analysis.data.conditions import PROTOCOLS, Condition, Results, summarize
from analysis.data.layers_and_curves import SHORTCUT, kept_weights, layer_names
from analysis.data.selection import (
    count,
    dst_conditions,
    dst_of,
    incomplete,
    left_out_counts,
    lowest_middle_highest,
    one_each_alpha,
    protocol_note,
    without_results,
)
from analysis.output.exhibit import Makers, Written, write_figure
from analysis.output.numbers import centre_and_ends
from analysis.output.plotting import ALPHAS, DENSE, greek, mosaic_figure
from analysis.paper import printed

MODELS = {"figure7": "vgg16", "figure11": "wrn-16-8", "figure12": "wrn-16-10"}
SHOWN_ALPHAS = (1e-6, 5e-6, 1e-5)  # our choice: the paper's text does not name the three
LEARNING_RATE = 0.1
BARS = "last epoch; dots: seeds; bars: mean, median where the deviation exceeds a third of it"
REMAINING = "Parameters\nremaining (%)"
Counts = Mapping[tuple[str, float], str]


def makers(results: Results) -> Makers:
    """The paper's three, and their like for MNIST and data sets that the paper lacks."""
    others = sorted({c.dataset for c in results.conditions} - set(printed.DATASETS))
    return {
        **{name: partial(_figure, results, name) for name in MODELS},
        **{f"{dataset}-figure7": partial(_of_dataset, results, dataset) for dataset in ("mnist", *others)},
    }


def one_model(data: pd.DataFrame, title: str, counts: Counts) -> Any:
    """A bar for each alpha, dots for its seeds; below them each layer's number of parameters.

    counts: (model, alpha) -> how many seeds, for the legend; also for wanted alphas without
    finished seeds.
    """
    figure, axes = mosaic_figure([["kept"], ["weights"]], (9.6, 4.9), title, height_ratios=(2.4, 1))
    _bars(axes["kept"], data, counts)
    axes["kept"].set(ylabel=REMAINING)
    axes["kept"].tick_params(labelbottom=False)
    weights = _weights(data)
    axis = axes["weights"]
    axis.bar(range(len(weights)), list(weights), 0.8, color=DENSE)
    for place, value in enumerate(weights):
        axis.annotate(_thousands(value), (place, value), (0, 2), textcoords="offset points", ha="center", fontsize=7.5)
    _name_layers(axis, data, weights=False)
    axis.set(ylabel="Parameters", ylim=(0, 1.25 * max(weights)))
    axis.yaxis.set_major_formatter(lambda value, _: _thousands(value))
    return figure


def several_models(data: pd.DataFrame, title: str, counts: Counts) -> Any:
    """The same for models with few layers, one panel each, with the parameters under the layers."""
    models = list(data["model"].unique())
    columns = 1 if len(models) == 1 else 2
    names = [f"panel{i}" for i in range(len(models))] + ["."] * (-len(models) % columns)
    mosaic = [names[i : i + columns] for i in range(0, len(names), columns)]
    figure, axes = mosaic_figure(mosaic, (9.6, 0.4 + 3.1 * len(mosaic)), title)
    for model, name in zip(models, names, strict=False):
        part = data[data["model"] == model]
        _bars(axes[name], part, counts)
        _name_layers(axes[name], part, weights=True)
        axes[name].set(xlabel="Layer, and its number of parameters", ylabel=REMAINING.replace("\n", " "))
        axes[name].set_title(printed.architecture(model), pad=18)
    return figure


def _bars(axis: Any, data: pd.DataFrame, counts: Counts) -> None:
    layers = list(data["parameter"].unique())
    model = data["model"].iloc[0]
    alphas = sorted(alpha for name, alpha in counts if name == model)
    width = 0.8 / len(alphas)
    colours = ALPHAS if len(alphas) > 1 else ALPHAS[1:]
    for i, alpha in enumerate(alphas):
        seeds = data[data["alpha"] == alpha]
        heights = seeds.groupby("parameter")["remaining_percent"].agg(_centre).reindex(layers).astype(float)
        places = [place + (i - (len(alphas) - 1) / 2) * width for place in range(len(layers))]
        label = greek(f"α = {alpha:g} ({counts[model, alpha]})")
        axis.bar(places, heights, width * 0.92, color=colours[i % len(colours)], label=label)
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


def _centre(seeds: pd.Series) -> float:
    """The mean over seeds; the median where they spread widely, as after a reset."""
    return centre_and_ends(summarize(list(seeds), expected=len(seeds)))[0]


def _name_layers(axis: Any, data: pd.DataFrame, *, weights: bool) -> None:
    """Under each group of bars the layer's name; upright where there are many."""
    labels = [name.replace(f" {SHORTCUT}", "*") for name in layer_names(list(data["parameter"])).values()]
    sizes = [f"\n{_thousands(value)}" if weights else "" for value in _weights(data)]
    axis.set_xticks(range(len(labels)), [f"{label}{size}" for label, size in zip(labels, sizes, strict=True)])
    axis.tick_params(axis="x", length=0, labelsize=7.5, rotation=90 if len(labels) > 17 else 0)
    axis.set_xlim(-0.6, len(labels) - 0.4)
    axis.grid(visible=False, axis="x")
    if any(label.endswith("*") for label in labels):
        axis.set_xlabel("Layer; * a shortcut's convolution", fontsize=8)


def _weights(data: pd.DataFrame) -> Sequence[float]:
    return list(data.drop_duplicates("parameter")["weights"])


def _thousands(weights: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if weights >= size:
            return f"{weights / size:.3g}{unit}"
    return f"{weights:g}"


def _figure(results: Results, name: str, out: Path) -> Written:
    return of_model(results, name, MODELS[name], printed.CAPTIONS[name], out)


def of_model(results: Results, name: str, model: str, title: str, out: Path) -> Written:
    """The pattern of one of the paper's networks on CIFAR-10 at the three alphas."""
    found = dst_conditions(results, "cifar10", model, learning_rate=LEARNING_RATE, done=False)
    every = one_each_alpha(c for c in found if len(c.done))
    chosen = [c for c in every if c.alpha in SHOWN_ALPHAS]
    wanted = {(model, alpha): without_results(c for c in found if c.alpha == alpha) for alpha in SHOWN_ALPHAS}
    shown = chosen or lowest_middle_highest(every)
    if not shown:
        return Written(name=name, title=title, remark=without_results(found))
    legend = f"{protocol_note(shown[0])}the three α are our choice, the paper's text names none; {BARS}"
    return _write(results, name, shown, title, legend, out, draw=one_model, wanted=wanted if chosen else {})


def _of_dataset(results: Results, dataset: str, out: Path) -> Written:
    """A panel for each network, in the paper's protocol where it has finished runs."""
    every = [c for c in dst_of(results, dataset) if len(c.done)]
    title = f"{printed.dataset(dataset)}, layout of Figure 7: the sparse pattern of DST"
    chosen: list[Condition] = []
    for model in sorted({c.model for c in every}, key=printed.rank):
        own = [c for c in every if c.model == model]
        protocol = next((name for name in PROTOCOLS if any(c.protocol == name for c in own)), "")
        alike = [c for c in own if c.protocol == protocol]
        chosen += lowest_middle_highest(one_each_alpha(c for c in alike if c.rarely_reset))
    if not chosen:
        return Written(name=f"{dataset}-figure7", title=title, remark=without_results(dst_of(results, dataset)))
    official = dict.fromkeys(printed.architecture(c.model) for c in chosen if protocol_note(c))
    named = f"{', '.join(official)}: official protocol; " if official else ""
    legend = f"{named}{BARS}\nalphas with more than two resets an epoch are in exhibit reset-rules"
    return _write(results, f"{dataset}-figure7", chosen, title, legend, out, draw=several_models)


def _write(
    results: Results,
    name: str,
    chosen: Sequence[Condition],
    title: str,
    legend: str,
    out: Path,
    *,
    draw: Callable[[pd.DataFrame, str, Counts], Any],
    wanted: Counts = MappingProxyType({}),
) -> Written:
    """wanted: what the legend says of models and alphas without finished seeds."""
    data = kept_weights(results.tables, chosen)
    if data.empty:
        return Written(name=name, title=title, remark="no layers.csv beside the results of its runs")
    recorded = [c.only(results.tables.layer_places) for c in chosen]
    chosen = [c for c in recorded if len(c.done)]
    have = {(c.model, c.alpha or 0.0): count([c]) for c in chosen}
    without = {(c.model, c.alpha or 0.0): "no layers.csv" for c in recorded if not len(c.done)}
    wanted = {**wanted, **without}
    missing = [f"alpha {alpha:g}: {why}" for (model, alpha), why in wanted.items() if (model, alpha) not in have]
    return write_figure(
        name, data, draw(data, f"{title}\n{legend}", {**wanted, **have}), out, title=title,
        run_ids=data["run_id"].unique(), finding=finding(data),
        remarks=[*missing, *reset_note(chosen), *incomplete(chosen), *left_out_counts(results, chosen)],
    )  # fmt: skip


def reset_note(chosen: Sequence[Condition]) -> list[str]:
    """What to know of conditions in which a layer was reset."""
    reset = [c.name for c in chosen if (c.done["threshold_resets"] > 0).any()]
    if not reset:
        return []
    return [
        f"resets at {', '.join(reset)}: what a layer keeps at the last epoch depends there on how long ago its last "
        "reset was, so these ranks are partly chance; pattern-consistency ranks such layers at the epoch of lowest "
        "density"
    ]


def finding(data: pd.DataFrame) -> str:
    """Which layers keep most and least at each alpha, and how far the alphas agree."""
    return " ".join(_finding(own, printed.architecture(str(model))) for model, own in data.groupby("model", sort=False))


def _finding(data: pd.DataFrame, model: str) -> str:
    names = layer_names(list(data["parameter"]))
    shares = data.groupby(["alpha", "parameter"])["remaining_percent"].agg(_centre).unstack("alpha")
    shares = shares.reindex(list(names))
    parts = []
    for alpha in shares:
        order = shares[alpha].sort_values(kind="stable")
        least, most = (f"{names[str(order.index[at])]} ({order.iloc[at]:.3g} %)" for at in (0, -1))
        parts.append(f"at alpha {alpha:g} {least} is the sparsest layer and {most} the densest")
    if shares.shape[1] > 1 and len(shares) > 2:
        lowest = shares.corr(method="spearman").to_numpy().min()
        parts.append(f"rank correlation of the layers between alphas: at least {lowest:.2f}")
    return f"{model}: {'; '.join(parts)}."
