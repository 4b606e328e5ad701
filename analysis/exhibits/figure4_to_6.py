"""Figures 4 to 6 and 8 to 10, and Figure 4's like for other data sets: curves over training.

Thin lines or bands are seeds, bold lines their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.data.conditions import Condition, Results, dense_twin
from analysis.data.epochs import measured
from analysis.data.layers_and_curves import history, wide
from analysis.data.selection import (
    count,
    dst_conditions,
    dst_of,
    incomplete,
    left_out_counts,
    protocol_note,
    without_results,
)
from analysis.exhibits.curves_in_words import FIRST_STEPS, NOT_RUN, density_names, finding, layers_of
from analysis.exhibits.verdict_tables import FIGURES as FIGURES_WITH_VERDICTS
from analysis.exhibits.verdicts import deciding, table_verdicts
from analysis.output.exhibit import Makers, Written, write_figure
from analysis.output.plotting import DENSE, MODEL, SPARSE, layer_colours, mosaic_figure, write_in_middle
from analysis.paper import printed

Cell = tuple[str, str, float, float | None]  # data set, model, alpha, initial learning rate
FIGURES: Mapping[str, Cell] = {
    "figure4": ("mnist", "lenet-300-100", 5e-4, None),
    "figure5": ("cifar10", "vgg16", 5e-6, 0.1),
    "figure6": ("cifar10", "vgg16", 5e-6, 0.01),
    "figure8": ("cifar10", "wrn-16-8", 1e-5, 0.1),
    "figure9": ("cifar10", "wrn-16-10", 1e-5, 0.1),
    "figure10": ("cifar10", "wrn-28-8", 1e-5, 0.1),
}
# Appendix A.1 states another alpha for these, so they are drawn at both.
AT_DEFAULT_ALPHA = ("figure8", "figure9", "figure10")
DEFAULT_ALPHA = 5e-6
FIRST_CONVOLUTIONS = 5  # of a WRN are drawn, and the output layer: appendix A.4
SEEDS = "thin lines: seeds, bold lines: their mean"
BANDS = "lines: mean over seeds, bands: ± standard deviation"
DECAY = "dotted: the learning rate decays"
PRINTED_IN = {"figure4": "Table 1", "figure5": "section 5.2", "figure6": "section 5.2"}
RATIO = "Remaining ratio"
ACCURACY = "Test accuracy (%)"
THREAD = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
MANY_SEEDS = 12  # more than these are a band of ± a standard deviation


@dataclass(frozen=True)
class Marks:
    """What is drawn beside the curves.

    milestones: epochs of learning rate decay. printed: the paper's final values: "density" as a
    fraction, "sparse" and "dense" accuracy as percentages. no_dense: why there is no dense curve.
    """

    milestones: tuple[int, ...] = ()
    printed: Mapping[str, float] = field(default_factory=dict)
    no_dense: str = NOT_RUN


def makers(results: Results) -> Makers:
    """The paper's; some of them again at A.1's alpha; and Figure 4's like for other data sets."""
    others = sorted({c.dataset for c in results.conditions} - set(printed.DATASETS))
    return {
        **{name: partial(_figure, results, name) for name in FIGURES},
        **{f"{name}-default-alpha": partial(_at_default_alpha, results, name) for name in AT_DEFAULT_ALPHA},
        **{f"{dataset}-figure4": partial(_of_dataset, results, dataset) for dataset in others},
    }


def by_step_and_epoch(data: pd.DataFrame, title: str, marks: Marks = Marks()) -> Any:
    """Like Figure 4: layers (a) by step of epoch 1, where recorded, (b) by epoch, with accuracy."""
    stepped = bool(data["step"].notna().any())
    mosaic = [["steps", "layers"], ["steps", "accuracy"]] if stepped else [["layers"], ["accuracy"]]
    figure, axes = mosaic_figure(mosaic, (9.6 if stepped else 5.6, 4.4), title)
    if stepped:
        _steps(axes["steps"], data[data["step"].notna()])
    _ratios(axes["layers"], data[data["step"].isna()], "epoch", layers=True, marks=marks)
    axes["layers"].set(title="(b) each epoch" if stepped else "(b) each epoch; no steps were recorded", ylabel=RATIO)
    _accuracies(axes["accuracy"], data, marks)
    _share_epochs(axes["layers"], axes["accuracy"])
    return figure


def by_epoch(data: pd.DataFrame, title: str, marks: Marks = Marks()) -> Any:
    """Like Figure 5: (a) layers by epoch, (b) the model, with sparse and dense test accuracy."""
    figure, axes = mosaic_figure([["layers", "model"], ["layers", "accuracy"]], (9.6, 4.6), title)
    epochs = data[data["step"].isna()]
    _ratios(axes["layers"], epochs, "epoch", layers=True, marks=Marks(marks.milestones))
    axes["layers"].set(title="(a) layers", xlabel="Epoch", ylabel=RATIO)
    _ratios(axes["model"], epochs, "epoch", layers=False, marks=marks)
    axes["model"].set(title="(b) model", ylabel=RATIO)
    _accuracies(axes["accuracy"], data, marks)
    _share_epochs(axes["model"], axes["accuracy"])
    return figure


def _steps(axis: Any, data: pd.DataFrame) -> None:
    """Every step of epoch 1; in the empty corner of a long epoch, the first hundred steps again."""
    _ratios(axis, data, "step", layers=True, marks=Marks())
    axis.set(title="(a) each step of the first epoch", xlabel="Training step", ylabel=RATIO)
    first = data[data["step"] <= FIRST_STEPS]
    if data["step"].max() < 5 * FIRST_STEPS or data["value"].min() < 0.55:
        return
    inset = axis.inset_axes((0.13, 0.09, 0.6, 0.38))
    names = layers_of(data)
    colours = layer_colours(list(names.values()))
    for parameter, label in names.items():
        lines(inset, first[first["name"] == f"density/{parameter}"], "step", colours[label], width=1.2)
    lines(inset, first[first["name"] == "density"], "step", MODEL, style="--", width=1.2)
    inset.set(xlim=(0, FIRST_STEPS))
    inset.set_title(f"the first {FIRST_STEPS} steps", fontsize=8, fontweight="normal")
    inset.tick_params(labelsize=7)


def _ratios(axis: Any, data: pd.DataFrame, clock: str, *, layers: bool, marks: Marks) -> None:
    names = layers_of(data) if layers else {}
    colours = layer_colours(list(names.values()))
    labels = []
    for parameter, label in names.items():
        part = data[data["name"] == f"density/{parameter}"]
        lines(axis, part, clock, colours[label], width=1.7 if len(names) < 8 else 1.2)
        labels.append((end(part, clock), label, colours[label]))
    whole = data[data["name"] == "density"]
    lines(axis, whole, clock, MODEL, style="--" if layers else "-")
    labels.append((end(whole, clock), "Model", MODEL))
    axis.set_ylim(-0.02, 1.03)
    axis.set_xlim(_range(data[clock].min() if clock == "epoch" else 0, data[clock].max()))
    _mark(axis, data[clock].max(), [(marks.printed.get("density"), MODEL)], marks.milestones)
    label_lines(axis, labels)


def _accuracies(axis: Any, data: pd.DataFrame, marks: Marks) -> None:
    accuracy = data[(data["name"] == "test_accuracy") & data["step"].isna()]
    if accuracy.empty:
        write_in_middle(axis, "no test accuracy recorded")
        return
    labels = []
    for label, part, colour in (
        ("Dense", accuracy[accuracy["method"] == "dense"], DENSE),
        ("Sparse", accuracy[accuracy["method"] != "dense"], SPARSE),
    ):
        if len(part):
            lines(axis, part, "epoch", colour)
            labels.append((end(part, "epoch"), label, colour))
    axis.set(xlabel="Epoch", ylabel=ACCURACY, xlim=_range(accuracy["epoch"].min(), accuracy["epoch"].max()))
    if not (accuracy["method"] == "dense").any():
        axis.set_title(f"dense: {marks.no_dense}", fontsize=8, fontweight="normal", color="#555555", loc="right")
    printed = [(marks.printed.get("dense"), DENSE), (marks.printed.get("sparse"), SPARSE)]
    _mark(axis, accuracy["epoch"].max(), printed, marks.milestones)
    label_lines(axis, labels)


def _range(first: float, last: float) -> tuple[float, float]:
    """The limits of an axis, around the one value where there is only one."""
    return (first, last) if last > first else (first - 0.5, last + 0.5)


def _mark(axis: Any, last: float, printed: Sequence[tuple[float | None, Any]], milestones: Sequence[int]) -> None:
    """Dotted lines where the learning rate decays, diamonds at the paper's final values."""
    for epoch in milestones:
        axis.axvline(epoch, color="#888888", linewidth=0.9, linestyle=":", zorder=1)
    for value, colour in printed:
        if value is not None:
            axis.plot(
                [last], [value], "D", markersize=5, color="white", markeredgecolor=colour, markeredgewidth=1.2,
                clip_on=False, zorder=5,
            )  # fmt: skip


def lines(axis: Any, data: pd.DataFrame, clock: str, colour: Any, *, style: str = "-", width: float = 1.7) -> None:
    """A recorded value over epochs or steps: seeds thin or as a band, their mean bold."""
    seeds = data.pivot(index=clock, columns="run_id", values="value").astype(float)
    mean = seeds.mean(axis=1)
    if seeds.shape[1] > MANY_SEEDS:
        sd = seeds.std(axis=1)
        axis.fill_between(seeds.index, mean - sd, mean + sd, color=colour, alpha=0.25, linewidth=0)
    elif seeds.shape[1] > 1:
        axis.plot(seeds.index, seeds.to_numpy(), color=colour, linewidth=0.6, alpha=0.35)
    dot = "o" if len(mean) == 1 else None  # a line of one point would not be seen
    drawn = {"color": colour, "linewidth": width, "linestyle": style, "marker": dot, "markersize": 4}
    axis.plot(seeds.index, mean, **drawn, clip_on=False)


def end(data: pd.DataFrame, clock: str) -> float:
    """The mean over seeds at the last epoch or step."""
    return float(data.loc[data[clock] == data[clock].max(), "value"].astype(float).mean())


def label_lines(axis: Any, labels: Sequence[tuple[float, str, Any]]) -> None:
    """Names at the right end of the lines, moved apart where they would overlap."""
    low, high = axis.get_ylim()
    inches = axis.get_figure().get_size_inches()[1] * axis.get_subplotspec().rowspan.__len__()
    rows = axis.get_subplotspec().get_gridspec().nrows
    gap = 0.165 / max(0.5, inches / rows - 0.55)
    order = sorted(labels, key=lambda label: label[0])
    places = spread([(value - low) / (high - low) for value, _, _ in order], gap=min(gap, 1 / max(1, len(order) - 1)))
    for (value, label, colour), place in zip(order, places, strict=True):
        axis.annotate(
            label, xy=(1, value), xycoords=("axes fraction", "data"), xytext=(1.045, place),
            textcoords="axes fraction", color=colour, fontsize=8, va="center", annotation_clip=False,
            arrowprops=THREAD | {"color": colour},
        )  # fmt: skip


def spread(places: Sequence[float], *, gap: float) -> list[float]:
    """Ascending places in [0, 1], moved as little as possible to stand `gap` apart.

    They stay within [0, 1] where they fit.
    """
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


def _figure(results: Results, name: str, out: Path) -> Written:
    return of_cell(results, name, FIGURES[name], printed.CAPTIONS[name], out)


def of_cell(results: Results, name: str, cell: Cell, title: str, out: Path) -> Written:
    """The curves of one of the paper's cells, as the exhibit `name`."""
    dataset, model, alpha, rate = cell
    found = dst_conditions(results, dataset, model, alpha=alpha, learning_rate=rate, done=False)
    return _write(results, name, found, title, out)


def _at_default_alpha(results: Results, name: str, out: Path) -> Written:
    dataset, model, _, rate = FIGURES[name]
    title = f"As {printed.number(name)}, at appendix A.1's default alpha: {printed.architecture(model)}"
    return of_cell(results, f"{name}-default-alpha", (dataset, model, DEFAULT_ALPHA, rate), title, out)


def _of_dataset(results: Results, dataset: str, out: Path) -> Written:
    """The first condition, of lenet-300-100 where it is run."""
    found = dst_of(results, dataset)
    every = sorted((c for c in found if len(c.done)), key=lambda c: c.model != "lenet-300-100")
    name = f"{printed.architecture(every[0].model)}, DST, alpha = {every[0].alpha:g}" if every else ""
    return _write(
        results, f"{dataset}-figure4", every or found, f"{printed.dataset(dataset)}, layout of Figure 4: {name}", out
    )


def _write(
    results: Results,
    name: str,
    found: Sequence[Condition],
    title: str,
    out: Path,
) -> Written:
    """The first of the conditions that has finished runs."""
    chosen = [c for c in found if len(c.done)]
    if not chosen:
        return Written(name=name, title=title, remark=without_results(found))
    twin = dense_twin(chosen[0], results.conditions)
    recorded = results.tables.trace_places
    sparse, dense = chosen[0].only(recorded), None if twin is None else twin.only(recorded)
    data = history(results.tables, sparse, dense)
    if not (data["name"] == "density").any():
        return Written(name=name, title=title, remark="no traces.csv beside the results of its runs")
    if sparse.model.startswith("wrn"):
        data = _first_and_output(data)
    no_dense = NOT_RUN if twin is None else "no traces.csv" if len(twin.done) else without_results([twin])
    marks = Marks(tuple(sparse.spec["optimizer"].get("milestones") or ()), _printed(name), no_dense)
    explained = [
        SEEDS if len(sparse.done) <= MANY_SEEDS else BANDS,
        *([DECAY] if marks.milestones else []),
        *([f"◇ as printed in {PRINTED_IN[name]}"] if marks.printed else []),
    ]
    other_n = "" if dense is None or not len(dense.done) or dense.seeds == sparse.seeds else f", dense {dense.seeds}"
    legend = "; ".join([f"{protocol_note(sparse)}{count([sparse])}{other_n}", *explained])
    draw = by_step_and_epoch if name.endswith("figure4") else by_epoch
    both = [sparse, *([] if dense is None else [dense])]
    return write_figure(
        name, wide(data), draw(data, f"{title}\n{legend}", marks), out, title=title, run_ids=data["run_id"].unique(),
        finding=finding(data, marks.milestones, no_dense) + _verdicts(name, results),
        remarks=[*incomplete(both), *left_out_counts(results, both)],
    )  # fmt: skip


def _verdicts(name: str, results: Results) -> str:
    """The verdict on the final values that section 5.2 prints; empty for other figures."""
    if name not in FIGURES_WITH_VERDICTS:
        return ""
    found = [verdict.verdict for verdict in deciding(table_verdicts(name, measured(name, results)))]
    return f" Verdict on the printed final values: {', '.join(found)}." if found else ""


def _first_and_output(data: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first five convolutions and of the output layer of a WRN."""
    return data[~data["name"].isin(density_names(data)[FIRST_CONVOLUTIONS:-1])]


def _printed(name: str) -> dict[str, float]:
    """The final values that the paper prints of these cells, with the figure or in Table 1."""
    of = printed.targets("table1")[:1] if name == "figure4" else printed.targets(name)
    found: dict[str, float] = {}
    for target in of:
        percent = target.density_percent
        values = {"density": percent and percent / 100, "sparse": target.sparse, "dense": target.dense}
        found |= {key: value for key, value in values.items() if value is not None}
    return found
