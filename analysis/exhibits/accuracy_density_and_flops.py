"""Accuracy against density and against FLOPs, all methods in one picture, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.data.comparable import Group, groups, of_protocols
from analysis.data.conditions import PROTOCOLS, Condition, Results, Summary
from analysis.output.exhibit import Makers, Written, write_figure
from analysis.output.numbers import LEAST, WIDE_BARS, centre_and_ends
from analysis.output.picture import Mark, Panel, after, other_epochs
from analysis.output.plotting import (
    main_range,
    method_legend,
    methods_in_order,
    plain_log,
    small_multiples,
    style_of,
    unnamed,
)
from analysis.paper import printed

ACCURACY = "Test accuracy, last epoch (%)"
FRONT = {"color": "#222222", "linewidth": 1.0, "linestyle": (0, (4, 2))}
REMARK = (
    f"mean over seeds, error bars: one standard deviation; {WIDE_BARS}; dashes: Pareto front of what is drawn; "
    "arrow: below the scale"
)
NOTE = (
    "only set-ups that a protocol states, of a network that has one; methods with phases of their own may train for "
    "more epochs (column epochs of the data); alphas with more than two resets an epoch are in exhibit reset-rules"
)
QUIET = {"marker": "o", "linestyle": "none", "color": "#999999", "markersize": 3.0, "zorder": 2}
PRINTED = {"marker": "*", "markersize": 13, "markerfacecolor": "white", "markeredgewidth": 1.2, "linewidth": 0}
COSTS = {"train_flops": "Training FLOPs (% of dense)", "inference_flops": "Inference FLOPs (% of dense)"}


@dataclass(frozen=True)
class Point:
    """A condition's cost, in percent, and accuracy. front: whether it is on the Pareto front."""

    condition: Condition
    cost: Summary
    accuracy: Summary
    front: bool

    @property
    def epochs(self) -> int:
        return self.condition.epochs

    @property
    def place(self) -> tuple[float, float]:
        """(cost, accuracy): means, medians where seeds differ widely."""
        return centre_and_ends(self.cost)[0], centre_and_ends(self.accuracy)[0]

    @property
    def drawn(self) -> tuple[float, float]:
        """`place` on a logarithmic axis, which shows a cost of 0 at LEAST."""
        return max(LEAST, self.place[0]), self.place[1]


def makers(results: Results) -> Makers:
    """One figure of each kind for each data set with sparse results."""
    found = _compared(groups(results.conditions))
    if not found:
        return {name: partial(_not_run, name) for name in TITLES}
    return {
        f"{dataset}-{name}": partial(write, [g for g in found if g.dataset == dataset])
        for name, write in (("accuracy-density", _density), ("accuracy-flops", _flops))
        for dataset in dict.fromkeys(g.dataset for g in found)
    }


def _compared(found: Sequence[Group]) -> list[Group]:
    """The groups with a dense network or DST, or all if there is none; `of_protocols` of these."""
    compared = [g for g in found if g.dense is not None or any(c.method == "dst" for c in g.sparse)] or list(found)
    return of_protocols(compared)


TITLES = {
    "accuracy-density": "Test accuracy against the share of weights kept, all methods (not in the paper)",
    "accuracy-flops": "Test accuracy against training and inference FLOPs, all methods (not in the paper)",
}


def _not_run(name: str, out: Path) -> Written:
    return Written(name=name, title=TITLES[name], remark="not run")


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each (cost, gain) is on the front: no other is as good in both and better in one."""
    return [not any((c <= cost and g >= gain) and (c < cost or g > gain) for c, g in points) for cost, gain in points]


def by_density(group: Group) -> list[Point]:
    """Every sparse condition by the percentage of weights it keeps."""
    return _points(group.sparse, "density", scale=100)


def by_flops(group: Group, column: str) -> list[Point]:
    """The sparse conditions and the dense one by FLOPs in percent of the dense mean.

    None where there is no dense run.
    """
    dense = group.dense
    whole = 0.0 if dense is None else float(dense.done[column].mean())
    return _points((*group.sparse, dense), column, scale=100 / whole) if dense is not None and whole > 0 else []


def _points(conditions: Sequence[Condition], column: str, *, scale: float) -> list[Point]:
    """One point per condition whose runs all have the column."""
    known = [c for c in conditions if c.done[column].notna().all()]
    costs = [(c, c.summary(column, scale=scale), c.summary("test_accuracy")) for c in known]
    found = [Point(c, cost, accuracy, False) for c, cost, accuracy in costs]
    front = pareto([point.place for point in found])
    return [replace(point, front=on) for point, on in zip(found, front, strict=True)]


def _density(found: Sequence[Group], out: Path) -> Written:
    dataset = found[0].dataset
    title = f"{TITLES['accuracy-density']}: {printed.dataset(dataset)}"
    figure, axes = small_multiples(
        len(found), columns=3, size=(4.2, 3.2), title=f"{title}\n{REMARK}; grey band: dense\n{NOTE}"
    )
    quiet = unnamed(_methods(found))
    for axis, group in zip(axes, found, strict=True):
        _dense_band(axis, group)
        _panel(axis, by_density(group), quiet)
        _printed_points(axis, group)
        axis.set(xlabel="Remaining weights (%)", ylabel=ACCURACY, title=group.label)
        plain_log(axis, "x")
    _legend(figure, found, paper=any(printed_for(group) for group in found))
    lines = [_line(r, "density", point) for r in found for point in by_density(r)]
    lines += [_printed_line(group, target) for group in found for target in printed_for(group)]
    findings = [_finding(r, by_density(r), "kept") for r in found]
    name = f"{dataset}-accuracy-density"
    written = _written(name, title, figure, lines, " ".join(findings), found, out)
    return replace(written, panels=tuple(map(_page_panel, found)))


def _page_panel(group: Group) -> Panel:
    """What the page draws of a group: the figure's points."""
    ours = [
        Mark(
            label=printed.method_name(p.condition.method) + (f", {p.condition.label}" if p.condition.alpha else ""),
            method=p.condition.method, density=p.cost, accuracy=p.accuracy, run_ids=p.condition.run_ids,
            seeds=tuple(map(int, p.condition.done["seed"])), front=p.front, epochs=p.epochs,
        )
        for p in by_density(group)
    ]  # fmt: skip
    theirs = [
        Mark(
            label=f"{printed.method_name(t.method)}" + (f", alpha {t.alpha:g}" if t.alpha is not None else ""),
            method=t.method, density=_as_printed(t.density_percent, t.density_std),
            accuracy=_as_printed(t.sparse, t.sparse_std), exhibit=t.exhibit,
        )
        for t in printed_for(group)
    ]  # fmt: skip
    architecture = printed.architecture(group.model)
    network, setup = architecture + group.title.removeprefix(group.label), group.label.removeprefix(architecture)
    dense = None if group.dense is None else group.dense.summary("test_accuracy")
    return Panel(network=network, setup=setup.strip(", "), marks=(*ours, *theirs), dense=dense, epochs=group.epochs)


def _as_printed(mean: float | None, sd: float | None) -> Summary:
    return Summary(math.nan if mean is None else mean, math.nan if sd is None else sd, 0, 0)


def _flops(every: Sequence[Group], out: Path) -> Written:
    dataset = every[0].dataset
    title = f"{TITLES['accuracy-flops']}: {printed.dataset(dataset)}"
    name = f"{dataset}-accuracy-flops"
    found = [r for r in every if any(by_flops(r, column) for column in COSTS)]
    if not found:
        return Written(name=name, title=title, remark="no dense run with FLOPs to compare with")
    note = f"{REMARK}; FLOPs counted from the masks, not what the hardware executes\n{NOTE}"
    figure, axes = small_multiples(
        2 * len(found), columns=4 if len(found) > 1 else 2, size=(3.6, 3.0), title=f"{title}\n{note}"
    )
    quiet = unnamed(_methods(found))
    for i, group in enumerate(found):
        for axis, (column, label) in zip(axes[2 * i : 2 * i + 2], COSTS.items(), strict=True):
            _panel(axis, by_flops(group, column), quiet)
            axis.set(xlabel=label, ylabel=ACCURACY, title=group.label)
            if column == "inference_flops":
                plain_log(axis, "x")
            else:
                axis.set_xlim(-4, max(105, axis.get_xlim()[1]))
    _legend(figure, found, dense=True)
    lines = [_line(r, column, point) for r in found for column in COSTS for point in by_flops(r, column)]
    findings = [_finding(r, by_flops(r, "train_flops"), "of the training FLOPs") for r in found]
    return _written(name, title, figure, lines, " ".join(filter(None, findings)), found, out)


def _written(
    name: str,
    title: str,
    figure: Any,
    lines: Sequence[dict[str, Any]],
    finding: str,
    found: Sequence[Group],
    out: Path,
) -> Written:
    shown = [c for g in found for c in (*g.sparse, *([g.dense] if g.dense else []))]
    run_ids = [run_id for c in shown for run_id in c.run_ids]
    whole = dict.fromkeys(("n", "expected", "epochs"), "Int64")  # a printed point has none of them
    data = pd.DataFrame(lines).astype(whole)
    return write_figure(name, data, figure, out, title=title, run_ids=run_ids, finding=finding)


def _panel(axis: Any, points: Sequence[Point], quiet: Sequence[str]) -> None:
    """quiet: methods that share one look, without lines and error bars."""
    lowest, _ = main_range([p.place[1] for p in points])
    inside = [p for p in points if p.place[1] >= lowest]
    for method in methods_in_order(p.condition.method for p in inside):
        of = sorted((p for p in inside if p.condition.method == method), key=lambda p: p.place)
        if method in quiet:
            axis.plot(*zip(*(p.drawn for p in of), strict=True), **QUIET)
            continue
        look = style_of(method)
        axis.errorbar(
            *zip(*(p.drawn for p in of), strict=True),
            xerr=_bars([p.cost for p in of]), yerr=_bars([p.accuracy for p in of]),
            color=look.colour, marker=look.marker, markersize=9 if method == "dense" else 5.5,
            linewidth=1.0 if len(of) > 1 else 0, elinewidth=0.9, capsize=1.5,
            markeredgecolor="white", markeredgewidth=0.5, zorder=3,
        )  # fmt: skip
    for p in points:
        if p not in inside:
            axis.plot([p.drawn[0]], [lowest], "v", color=style_of(p.condition.method).colour, markersize=6)
    front = sorted(p.drawn for p in points if p.front)
    if len(front) > 1:
        axis.step(*zip(*front, strict=True), where="post", zorder=2, **FRONT)


def _bars(values: Sequence[Summary]) -> list[list[float]]:
    """How far the error bars reach down and up: [2, values]."""
    drawn = [centre_and_ends(value) for value in values]
    return [[centre - low for centre, low, _ in drawn], [high - centre for centre, _, high in drawn]]


def printed_for(group: Group) -> list[printed.Target]:
    """What the paper prints of its own DST runs in the group's protocol at its learning rate."""
    if not any(set(condition.protocols) & set(PROTOCOLS) for condition in group.conditions):
        return []
    rate = group.conditions[0].learning_rate
    found = printed.measured(group.dataset, group.model)
    return [target for target in found if printed.RATES.get(target.exhibit) in (None, rate)]


def _printed_points(axis: Any, group: Group) -> None:
    """The paper's points, hollow, with its ±."""
    for target in printed_for(group):
        axis.errorbar(
            [target.density_percent], [target.sparse],
            xerr=[target.density_std or 0.0], yerr=[target.sparse_std or 0.0],
            color=style_of("dst").colour, elinewidth=0.9, zorder=4, **PRINTED,
        )  # fmt: skip


def _printed_line(group: Group, target: printed.Target) -> dict[str, Any]:
    return {
        "recipe": group.label, "model": group.model, "method": "dst, as printed", "alpha": target.alpha,
        "cost": "density", "cost_percent_mean": target.density_percent, "cost_percent_sd": target.density_std,
        "cost_percent_drawn": target.density_percent,
        "test_accuracy_mean": target.sparse, "test_accuracy_sd": target.sparse_std, "run_ids": "",
    }  # fmt: skip


def _dense_band(axis: Any, group: Group) -> None:
    if group.dense is None:
        return
    middle, low, high = centre_and_ends(group.dense.summary("test_accuracy"))
    axis.axhline(middle, color=style_of("dense").colour, linewidth=1.0)
    axis.axhspan(low, high, color=style_of("dense").colour, alpha=0.2, linewidth=0)


def _legend(figure: Any, found: Sequence[Group], *, dense: bool = False, paper: bool = False) -> None:
    from matplotlib.lines import Line2D

    quiet = unnamed(_methods(found))
    methods = [method for method in _methods(found) if method not in quiet] + (["dense"] if dense else [])
    names = [printed.method_name(m) for m in methods]
    more = [(Line2D([], [], **FRONT), "Pareto front")]  # type: ignore[arg-type]
    if quiet:
        more.append((Line2D([], [], **QUIET), f"{len(quiet)} other methods, in exhibit field"))  # type: ignore[arg-type]
    if paper:
        more.append((Line2D([], [], color=style_of("dst").colour, **PRINTED), "DST, printed in the paper"))  # type: ignore[arg-type]
    method_legend(figure, methods, names, more=more)


def _methods(found: Sequence[Group]) -> list[str]:
    return methods_in_order(c.method for g in found for c in g.sparse)


def _line(group: Group, cost: str, point: Point) -> dict[str, Any]:
    condition = point.condition
    absolute = condition.summary(cost) if cost != "density" else point.cost
    return {
        "recipe": group.label, "model": group.model, "method": condition.method, "alpha": condition.alpha,
        "density_target": condition.density, "epochs": point.epochs, "cost": cost, "cost_percent_mean": point.cost.mean,
        "cost_percent_sd": point.cost.sd, "cost_percent_drawn": point.place[0],
        "cost_percent_low": centre_and_ends(point.cost)[1], "cost_percent_high": centre_and_ends(point.cost)[2],
        "cost_mean": absolute.mean if cost != "density" else point.cost.mean / 100,
        "test_accuracy_mean": point.accuracy.mean, "test_accuracy_sd": point.accuracy.sd, "n": point.accuracy.n,
        "expected": point.accuracy.expected, "pareto_front": point.front, "run_ids": ";".join(condition.run_ids),
    }  # fmt: skip


def _finding(group: Group, points: Sequence[Point], what: str) -> str:
    sparse = sorted((p for p in points if p.front and p.condition.method != "dense"), key=lambda p: p.place)
    if not sparse:
        return ""
    named = [
        f"{printed.method_name(p.condition.method)}{', ' + p.condition.label if p.condition.alpha else ''} "
        f"({p.place[1]:.2f} % at {p.place[0]:.3g} % {what}{after(p.epochs, group.epochs)})"
        for p in sparse
    ]
    others = other_epochs([(p.condition.method, p.epochs) for p in points], group.epochs)
    return " ".join(filter(None, [f"{group.label}: on the Pareto front are {', '.join(named)}.", others]))
