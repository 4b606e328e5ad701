"""The paper's curves over steps and epochs: thin lines or bands are seeds, bold lines their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis.canvas import canvas, say
from analysis.histories import layer_names
from analysis.palette import DENSE, MODEL, SPARSE, layer_colours

RATIO = "Remaining ratio"
ACCURACY = "Test accuracy (%)"
THREAD = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
MANY_SEEDS = 12  # more than these are a band of ± a standard deviation
FIRST_STEPS = 100  # of which section 5.1 says that the ratios fluctuate


@dataclass(frozen=True)
class Marks:
    """What is drawn beside the curves. milestones: epochs of learning rate decay. printed: the paper's
    final values: "density" as a fraction, "sparse" and "dense" accuracy as percentages."""

    milestones: tuple[int, ...] = ()
    printed: Mapping[str, float] = field(default_factory=dict)


def by_step_and_epoch(data: pd.DataFrame, title: str, marks: Marks = Marks()) -> Any:
    """Figure 4: layer remaining ratio (a) by step of epoch 1, where recorded, and (b) by epoch, with test accuracy."""
    stepped = bool(data["step"].notna().any())
    mosaic = [["steps", "layers"], ["steps", "accuracy"]] if stepped else [["layers"], ["accuracy"]]
    figure, axes = canvas(mosaic, (9.6 if stepped else 5.6, 4.4), title)
    if stepped:
        _steps(axes["steps"], data[data["step"].notna()])
    _ratios(axes["layers"], data[data["step"].isna()], "epoch", layers=True, marks=marks)
    axes["layers"].set(title="(b) each epoch" if stepped else "(b) each epoch; no steps were recorded", ylabel=RATIO)
    _accuracies(axes["accuracy"], data, marks)
    _share_epochs(axes["layers"], axes["accuracy"])
    return figure


def by_epoch(data: pd.DataFrame, title: str, marks: Marks = Marks()) -> Any:
    """Figure 5: (a) layer remaining ratios by epoch, (b) the model's, with sparse and dense test accuracy."""
    figure, axes = canvas([["layers", "model"], ["layers", "accuracy"]], (9.6, 4.6), title)
    epochs = data[data["step"].isna()]
    _ratios(axes["layers"], epochs, "epoch", layers=True, marks=Marks(marks.milestones))
    axes["layers"].set(title="(a) layers", xlabel="Epoch", ylabel=RATIO)
    _ratios(axes["model"], epochs, "epoch", layers=False, marks=marks)
    axes["model"].set(title="(b) model", ylabel=RATIO)
    _accuracies(axes["accuracy"], data, marks)
    _share_epochs(axes["model"], axes["accuracy"])
    return figure


def _steps(axis: Any, data: pd.DataFrame) -> None:
    """Every step of epoch 1; its first hundred again in the empty corner, where the epoch is long enough."""
    _ratios(axis, data, "step", layers=True, marks=Marks())
    axis.set(title="(a) each step of the first epoch", xlabel="Training step", ylabel=RATIO)
    first = data[data["step"] <= FIRST_STEPS]
    if data["step"].max() < 5 * FIRST_STEPS or data["value"].min() < 0.55:
        return
    inset = axis.inset_axes((0.13, 0.09, 0.6, 0.38))
    names = _layers_of(data)
    colours = layer_colours(list(names.values()))
    for parameter, label in names.items():
        _lines(inset, first[first["name"] == f"density/{parameter}"], "step", colours[label], width=1.2)
    _lines(inset, first[first["name"] == "density"], "step", MODEL, style="--", width=1.2)
    inset.set(xlim=(0, FIRST_STEPS))
    inset.set_title(f"the first {FIRST_STEPS} steps", fontsize=8, fontweight="normal")
    inset.tick_params(labelsize=7)


def _layers_of(data: pd.DataFrame) -> dict[str, str]:
    return layer_names([name.removeprefix("density/") for name in data["name"].unique() if name.startswith("density/")])


def _ratios(axis: Any, data: pd.DataFrame, clock: str, *, layers: bool, marks: Marks) -> None:
    names = _layers_of(data) if layers else {}
    colours = layer_colours(list(names.values()))
    ends = []
    for parameter, label in names.items():
        part = data[data["name"] == f"density/{parameter}"]
        _lines(axis, part, clock, colours[label], width=1.7 if len(names) < 8 else 1.2)
        ends.append((_end(part, clock), label, colours[label]))
    whole = data[data["name"] == "density"]
    _lines(axis, whole, clock, MODEL, style="--" if layers else "-")
    ends.append((_end(whole, clock), "Model", MODEL))
    axis.set_ylim(-0.02, 1.03)
    axis.set_xlim(data[clock].min() if clock == "epoch" else 0, data[clock].max())
    _mark(axis, data[clock].max(), [(marks.printed.get("density"), MODEL)], marks.milestones)
    _label_ends(axis, ends)


def _accuracies(axis: Any, data: pd.DataFrame, marks: Marks) -> None:
    accuracy = data[(data["name"] == "test_accuracy") & data["step"].isna()]
    if accuracy.empty:
        say(axis, "no test accuracy recorded")
        return
    ends = []
    for label, part, colour in (
        ("Dense", accuracy[accuracy["method"] == "dense"], DENSE),
        ("Sparse", accuracy[accuracy["method"] != "dense"], SPARSE),
    ):
        if len(part):
            _lines(axis, part, "epoch", colour)
            ends.append((_end(part, "epoch"), label, colour))
    axis.set(xlabel="Epoch", ylabel=ACCURACY, xlim=(accuracy["epoch"].min(), accuracy["epoch"].max()))
    if not (accuracy["method"] == "dense").any():
        axis.set_title("dense: not run", fontsize=8, fontweight="normal", color="#555555", loc="right")
    printed = [(marks.printed.get("dense"), DENSE), (marks.printed.get("sparse"), SPARSE)]
    _mark(axis, accuracy["epoch"].max(), printed, marks.milestones)
    _label_ends(axis, ends)


def _mark(axis: Any, last: float, printed: Sequence[tuple[float | None, Any]], milestones: Sequence[int]) -> None:
    """Dotted lines where the learning rate decays, diamonds where the paper ends."""
    for epoch in milestones:
        axis.axvline(epoch, color="#888888", linewidth=0.9, linestyle=":", zorder=1)
    for value, colour in printed:
        if value is not None:
            axis.plot(
                [last], [value], "D", markersize=5, color="white", markeredgecolor=colour, markeredgewidth=1.2,
                clip_on=False, zorder=5,
            )  # fmt: skip


def _lines(axis: Any, data: pd.DataFrame, clock: str, colour: Any, *, style: str = "-", width: float = 1.7) -> None:
    seeds = data.pivot(index=clock, columns="run_id", values="value").astype(float)
    mean = seeds.mean(axis=1)
    if seeds.shape[1] > MANY_SEEDS:
        sd = seeds.std(axis=1)
        axis.fill_between(seeds.index, mean - sd, mean + sd, color=colour, alpha=0.25, linewidth=0)
    elif seeds.shape[1] > 1:
        axis.plot(seeds.index, seeds.to_numpy(), color=colour, linewidth=0.6, alpha=0.35)
    axis.plot(seeds.index, mean, color=colour, linewidth=width, linestyle=style, clip_on=False)


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
