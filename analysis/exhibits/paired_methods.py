"""Methods compared two by two at matched density, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

from analysis.data.comparable import DensityMatch, density_matches, groups
from analysis.data.conditions import Condition, Results
from analysis.output.exhibit import TableWithFigure
from analysis.output.numbers import limits, percent
from analysis.output.plotting import draw_far_off, main_range, methods_in_order, name_rows, panels_of_rows, style_of
from analysis.paper import printed
from analysis.statistics.resampling import bootstrap_interval, improvement_interval, probability_of_improvement
from analysis.statistics.small_samples import mean_interval, paired

CAPTION = "Methods compared at matched density, paired by seed (not in the paper)"
HEADS = (
    "Network", "Density asked", "First", "Second", "Seeds", "First minus second (points)", "95 % bootstrap",
    "95 % Student t", "P(first > second) [95 %]",
)  # fmt: skip
NOTES = (
    "Test accuracy of the last epoch, in percentage points, over the seeds that both have: methods of one seed start "
    "from the same weights and see the same batches.",
    "A method that finds its own density (DST) is shown at the alpha with the nearest mean density, if that is within "
    "a factor of 1.25. Alphas whose layers are reset more than twice an epoch are in the exhibit reset-rules only.",
    "Bootstrap: percentiles of 2,000 draws of the paired differences. It is never wider than the range of the seeds, "
    "so read it beside Student's t. No correction for the number of comparisons.",
    "P(first > second): over all pairs of runs, ties count half; its interval resamples each side separately.",
)


@dataclass(frozen=True)
class Pair:
    match: DensityMatch
    first: Condition
    second: Condition

    @cached_property
    def differences(self) -> list[float]:
        """First minus second over the seeds that are done in both, in the order of the seeds."""
        return paired(self.first.by_seed("test_accuracy"), self.second.by_seed("test_accuracy"))

    @property
    def mean(self) -> float:
        return sum(self.differences) / len(self.differences)

    @cached_property
    def interval(self) -> tuple[float, float]:
        return bootstrap_interval(self.differences)

    @cached_property
    def student(self) -> tuple[float, float]:
        mean, half = mean_interval(self.differences)
        return mean - half, mean + half

    @cached_property
    def improvement(self) -> tuple[float, float, float]:
        """The probability that a run of the first has the higher accuracy, and its interval."""
        sides = [list(s.done["test_accuracy"]) for s in (self.first, self.second)]
        return probability_of_improvement(*sides), *improvement_interval(*sides)


def pairs(results: Results) -> list[Pair]:
    """Every two methods at one density with a seed in common and equally many epochs."""
    found = []
    for group in groups(results.conditions):
        for match in density_matches(group):
            by_method = {c.method: c for c in match.conditions}
            for first, second in combinations(methods_in_order(by_method), 2):
                pair = Pair(match, by_method[first], by_method[second])
                found += [pair] if pair.differences and _alike(pair) else []
    return found


def _alike(pair: Pair) -> bool:
    return pair.first.epochs == pair.second.epochs


def _not_compared(results: Results, found: Sequence[Pair]) -> list[str]:
    texts = {
        f"{printed.method_name(method)} of {group.label} ({group.dataset}) has no alpha near {percent(match.density)} %"
        for group in groups(results.conditions)
        for match in density_matches(group)
        for method in match.too_far
    }
    longer = {
        f"{printed.method_name(c.method)} of {group.label} ({group.dataset}) trains for {c.epochs} epochs in all, not "
        f"{group.epochs}: compared only with methods that do too"
        for group in groups(results.conditions)
        for match in density_matches(group)
        for c in match.conditions
        if c.epochs != group.epochs
    }
    return [f"Not compared: {text}." for text in sorted(texts)] + [f"{text}." for text in sorted(longer)]


def _method(condition: Condition) -> str:
    """The method, with its alpha where it has one."""
    alpha = "" if condition.alpha is None else f", {condition.label}"
    return f"{printed.method_name(condition.method)}{alpha}"


def _cells(pair: Pair) -> tuple[str, ...]:
    chance, low, high = pair.improvement
    return (
        pair.match.group.title, f"{percent(pair.match.density)} %", _method(pair.first), _method(pair.second),
        str(len(pair.differences)), f"{pair.mean:+.2f}",
        *(limits(*interval, signed=True).strip() for interval in (pair.interval, pair.student)),
        f"{chance:.2f}{limits(low, high)}",
    )  # fmt: skip


def _records(pair: Pair) -> Iterator[dict[str, Any]]:
    chance, low, high = pair.improvement
    group = pair.match.group
    sides = (("first", pair.first), ("second", pair.second))
    yield {
        "dataset": group.dataset, "model": group.model, "recipe": group.label, "density_target": pair.match.density,
        **{f"{side}_{key}": value for side, s in sides for key, value in (
            ("method", s.method), ("alpha", s.alpha), ("density", s.summary("density").mean))},
        "n": len(pair.differences), "difference_mean": pair.mean,
        "bootstrap_low": pair.interval[0], "bootstrap_high": pair.interval[1],
        "student_low": pair.student[0], "student_high": pair.student[1],
        "probability_of_improvement": chance, "probability_low": low, "probability_high": high,
        "differences": ";".join(repr(round(value, 6)) for value in pair.differences),
    }  # fmt: skip


def _finding(found: Sequence[Pair]) -> str:
    apart = [p for p in found if not math.isnan(p.student[0]) and p.student[0] * p.student[1] > 0]
    if not found:
        return ""
    head = (
        f"Of {len(found)} comparisons at matched density, {len(apart)} have a 95 % Student interval that leaves out 0"
    )
    dst = [p for p in found if p.first.method == "dst"]
    if not dst:
        return f"{head}; DST is in none of them."
    ahead = sum(1 for p in dst if p.mean > 0)
    return (
        f"{head}; DST's mean is above the other method's in {ahead} of {len(dst)}, "
        f"by {min(p.mean for p in dst):+.2f} to {max(p.mean for p in dst):+.2f} points."
    )


def _draw(found: Sequence[Pair]) -> Any:
    groups: dict[tuple[str, float], list[Pair]] = {}
    for pair in found:
        groups.setdefault((pair.match.group.title, pair.match.density), []).append(pair)
    shown = {key: _against_first(members) for key, members in groups.items()}
    note = (
        "dots: seeds; bar: mean with 95 % bootstrap interval; right: probability that a run of the first is better; "
        "arrow: a mean outside of the scale"
    )
    rows = [len(members) for members in shown.values()]
    figure, axes = panels_of_rows(rows, columns=2, width=5.2, height=(0.95, 0.33), title=f"{CAPTION}\n{note}")
    for axis, ((title, density), members) in zip(axes, shown.items(), strict=True):
        _panel(axis, members)
        axis.set_title(f"{title}: {_method(members[0].first)} at {percent(density)} %", fontsize=9)
    return figure


def _against_first(members: Sequence[Pair]) -> list[Pair]:
    """The comparisons of one method with the others, DST where it is there; the table has all."""
    first = methods_in_order(p.first.method for p in members)[0]
    return [p for p in members if p.first.method == first]


def _panel(axis: Any, members: Sequence[Pair]) -> None:
    axis.axvline(0, color="#444444", linewidth=0.9)
    limits = main_range([pair.mean for pair in members])
    for place, pair in enumerate(members):
        axis.annotate(
            f"P = {pair.improvement[0]:.2f}, n={len(pair.differences)}", (1.01, place),
            xycoords=("axes fraction", "data"), va="center", fontsize=7.5, annotation_clip=False,
        )  # fmt: skip
        colour = style_of(pair.second.method).colour
        if draw_far_off(axis, pair.mean, place, limits, colour=colour, digits="+.1f"):
            continue
        low, high = pair.interval
        if not math.isnan(low):
            axis.plot([low, high], [place, place], color=colour, linewidth=4, alpha=0.45, solid_capstyle="butt")
        axis.plot(pair.differences, [place] * len(pair.differences), "o", color=colour, markersize=3.5, alpha=0.9)
        axis.plot([pair.mean], [place], "|", color="#111111", markersize=13, markeredgewidth=1.8)
    name_rows(axis, [f"minus {printed.method_name(p.second.method)}" for p in members])
    axis.set_xlabel("Difference of test accuracy (points)")


EXHIBIT = TableWithFigure(
    name="paired-methods",
    caption=CAPTION,
    heads=HEADS,
    labels=4,
    notes=NOTES,
    lines=pairs,
    cells=_cells,
    records=_records,
    run_ids=lambda pair: (*pair.first.run_ids, *pair.second.run_ids),
    finding=_finding,
    figure=_draw,
    more_notes=_not_compared,
    nothing="no two methods at one density with a seed in common",
)
