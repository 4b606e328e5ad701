"""All methods in one setting, beside static at the same density: accuracy, cost, paired differences."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Any

from analysis.data.comparable import FACTOR, without_official_start
from analysis.data.conditions import Condition, Results
from analysis.data.differences import short
from analysis.output.exhibit import TableWithFigure
from analysis.output.numbers import percent, percentage, points, with_seeds
from analysis.output.picture import after
from analysis.output.plotting import draw_far_off, main_range, name_rows, panels_of_rows, style_of
from analysis.paper import printed
from analysis.statistics.small_samples import Comparison, against_fixed, paired

CAPTION = "All methods in one setting, beside a static random mask of the same density (not in the paper)"
HEADS = (
    "Network", "Density asked (%)", "Method", "Epochs", "Test accuracy (%)", "Density reached (%)",
    "Training FLOPs (% of dense)", "Executed FLOPs (% of dense)", "Minus static, same seed (points) [95 %]",
)  # fmt: skip
NOTES = (
    "Mean ± standard deviation over seeds, last epoch; methods of one seed start from the same weights and see the "
    "same batches. A setting is a data set, a network and an optimizer. Settings without a static mask are left out.",
    "A method that finds its own density is shown wherever it comes within a factor of 1.25 of the density asked.",
    "Epochs: all that were trained, also in the method's own phases. The difference is to static with as many epochs "
    "where there is one, otherwise to static with the fewest.",
    "Training FLOPs: what the sparse network needs, dense gradients included, relative to the dense network at the "
    "epochs of static. Executed: what the hardware computes, because masked products are computed as dense ones; "
    "empty for cells that were trained before the column existed.",
    "Student's t interval of the paired differences, without a correction for their number.",
)
COSTS = ("train_flops", "executed_flops")


@dataclass(frozen=True)
class Line:
    """A condition of one setting.

    density: the density asked for; None for the dense network. static, dense: the conditions that it
    is compared with. label: the method, with what distinguishes the condition from others of it.
    """

    title: str
    density: float | None
    condition: Condition
    static: Condition | None
    dense: Condition | None
    label: str

    @property
    def accuracy(self) -> float:
        return self.condition.summary("test_accuracy").mean

    @cached_property
    def difference(self) -> Comparison:
        """Accuracy minus static's in points, paired by seed; not testable for static and dense."""
        if self.static is None or self.static is self.condition:
            return against_fixed([], 0.0)
        return against_fixed(paired(*(c.by_seed("test_accuracy") for c in (self.condition, self.static))), 0.0)

    def cost(self, column: str) -> float:
        """FLOPs in percent of those that the dense network trains with; nan where they are not known."""
        if self.dense is None:
            return math.nan
        whole = self.dense.summary("train_flops").mean
        return 100 * self.condition.summary(column).mean / whole if whole > 0 else math.nan


def lines(results: Results) -> list[Line]:
    """Every setting with a static mask, its densities from high to low, methods by accuracy."""
    settings: dict[str, list[Condition]] = {}
    for condition in results.conditions:
        if len(condition.done) and condition.whole_data and condition.widths is None:
            settings.setdefault(_setting(condition.spec), []).append(condition)
    return [line for members in settings.values() for line in _of_setting(members)]


def _setting(spec: Mapping[str, Any]) -> str:
    """What the conditions of one setting share: all but the method, its density and its epochs."""
    tree = {name: value for name, value in spec.items() if name not in ("method", "density")}
    tree["optimizer"] = {name: value for name, value in spec["optimizer"].items() if name != "epochs"}
    tree["model"] = without_official_start(spec["model"])
    return json.dumps(tree, sort_keys=True)


def _epochs(condition: Condition) -> int:
    return int(condition.spec["optimizer"]["epochs"])


def _of_setting(members: Sequence[Condition]) -> Iterator[Line]:
    statics = sorted((c for c in members if c.method == "static" and c.as_published), key=_epochs)
    if not statics or not any(c.method not in ("static", "dense") for c in members):
        return
    dense = [c for c in members if c.method == "dense"]
    own = next((c for c in dense if _epochs(c) == _epochs(statics[0])), None)
    first = members[0]
    title = f"{printed.architecture(first.model)}, {printed.dataset(first.dataset)}"
    for condition in dense:
        yield Line(title, None, condition, None, own, printed.method_name("dense"))
    for density in sorted({c.density for c in statics if c.density is not None}, reverse=True):
        at = [c for c in statics if c.density == density]
        found = []
        for condition in (chosen := _at_density(members, density)):
            static = next((c for c in at if _epochs(c) == _epochs(condition)), at[0])
            found.append(Line(title, density, condition, static, own, _label(condition, chosen)))
        yield from sorted(found, key=lambda line: -line.accuracy)


def _at_density(members: Sequence[Condition], density: float) -> list[Condition]:
    """The conditions with this density; of a method that finds its own, the nearest for each number of epochs."""
    nearest: dict[tuple[str, int], Condition] = {}
    for condition in members:
        if condition.density is None and condition.method != "dense" and condition.as_published:
            key = (condition.method, _epochs(condition))
            if key not in nearest or _distance(condition, density) < _distance(nearest[key], density):
                nearest[key] = condition
    near = [c for c in nearest.values() if _distance(c, density) <= math.log(FACTOR) + 1e-9]
    return [*(c for c in members if c.density == density), *near]


def _distance(condition: Condition, density: float) -> float:
    mean = condition.summary("density").mean
    return abs(math.log(mean / density)) if mean > 0 else math.inf


def _label(condition: Condition, among: Sequence[Condition]) -> str:
    """The method, its alpha, and the hyperparameters in which others of the method differ."""
    alike = [c.spec["method"] for c in among if c.method == condition.method]
    own = condition.spec["method"]
    named = ("alpha", "allocation") if own.get("pattern") else ("alpha",)  # alpha is named, a pattern is an allocation
    differing = [name for name in own if name not in named and any(m.get(name) != own[name] for m in alike)]
    alpha = [] if condition.alpha is None else [f"alpha {condition.alpha:g}"]
    return ", ".join(
        [printed.method_name(condition.method), *alpha, *(f"{name} {short(own[name])}" for name in differing)]
    )


def _cells(line: Line) -> tuple[str, ...]:
    condition = line.condition
    asked = "" if line.density is None else percent(line.density)
    costs = (line.cost(column) for column in COSTS)
    return (
        line.title, asked, line.label, f"{condition.done['epochs'].max():g}",
        with_seeds(condition.summary("test_accuracy")), percentage(condition.summary("density", scale=100)),
        *("" if math.isnan(cost) else f"{cost:.1f}" for cost in costs), points(line.difference),
    )  # fmt: skip


def _records(line: Line) -> Iterator[dict[str, Any]]:
    condition, (low, high) = line.condition, line.difference.interval()
    accuracy, density = condition.summary("test_accuracy"), condition.summary("density")
    yield {
        "dataset": condition.dataset, "model": condition.model, "density_target": line.density,
        "method": condition.method, "setting": line.label, "epochs": float(condition.done["epochs"].max()),
        "test_accuracy_mean": accuracy.mean, "test_accuracy_sd": accuracy.sd, "n": accuracy.n,
        "expected": accuracy.expected, "density_mean": density.mean, "density_sd": density.sd,
        **{f"{column}_percent_of_dense": line.cost(column) for column in COSTS},
        "minus_static": line.difference.difference, "minus_static_low": low, "minus_static_high": high,
    }  # fmt: skip


def _patterns(results: Results, found: Sequence[Line]) -> Iterator[str]:
    """Whether another network's layer densities help a method, at equal count: a note for each."""
    for (title, density), block in _blocks(found).items():
        for line, own in permutations(block, 2):
            patterns = [one.condition.spec["method"].get("pattern") for one in (line, own)]
            alike = line.condition.method == own.condition.method and _epochs(line.condition) == _epochs(own.condition)
            if alike and patterns[0] and not patterns[1]:
                both = (one.condition.by_seed("test_accuracy") for one in (line, own))
                difference = points(against_fixed(paired(*both), 0.0))
                setting = f"{title} at {percent(density)} %"
                yield f"Equal count, other layers, {setting}: {line.label} minus {own.label}: {difference} points."


def _blocks(found: Sequence[Line]) -> dict[tuple[str, float], list[Line]]:
    """The sparse lines of each setting and density."""
    blocks: dict[tuple[str, float], list[Line]] = {}
    for line in found:
        if line.density is not None:
            blocks.setdefault((line.title, line.density), []).append(line)
    return blocks


def _finding(found: Sequence[Line]) -> str:
    texts = []
    for (title, density), block in _blocks(found).items():
        others = [line for line in block if not math.isnan(line.difference.difference)]
        if not others:
            continue
        below = [_after(line) for line in others if line.difference.difference < 0]
        best = block[0]
        than = "" if best not in others else f", {points(best.difference)} points against static"
        own = next((line for line in block if _epochs_trained(line) == _setup_epochs(line)), best)
        also = "" if own is best else f"; of those trained as long as static {own.label}, {own.accuracy:.2f} %"
        texts.append(
            f"{title} at {percent(density)} %: {_after(best)} is best, {best.accuracy:.2f} %{than}{also}; "
            f"below static: {', '.join(below) or 'none'}."
        )
    return " ".join(texts)


def _epochs_trained(line: Line) -> int:
    return int(line.condition.done["epochs"].max())


def _setup_epochs(line: Line) -> int | None:
    return None if line.static is None else int(line.static.done["epochs"].max())


def _after(line: Line) -> str:
    """The label, with the epochs where static trains for another number."""
    return f"{line.label}{after(_epochs_trained(line), _setup_epochs(line))}"


def _draw(found: Sequence[Line]) -> Any:
    blocks = _blocks(found)
    note = (
        "dots: seeds; bar: mean; dashes: static; grey line: dense; right: training FLOPs in % of dense; "
        "arrow: a mean outside of the scale"
    )
    figure, axes = panels_of_rows(
        [len(block) for block in blocks.values()], columns=2, width=5.6, height=(0.9, 0.27), title=f"{CAPTION}\n{note}"
    )
    for axis, ((title, density), block) in zip(axes, blocks.items(), strict=True):
        _panel(axis, block)
        axis.set_title(f"{title}: {percent(density)} %", fontsize=9)
    return figure


def _panel(axis: Any, block: Sequence[Line]) -> None:
    static = next((line.static for line in block if line.static is not None), None)
    for reference, look in ((static, "--"), (block[0].dense, "-")):
        if reference is not None:
            axis.axvline(reference.summary("test_accuracy").mean, color="#777777", linewidth=1.0, linestyle=look)
    limits = main_range([line.accuracy for line in block])
    for place, line in enumerate(block):
        style = style_of(line.condition.method)
        values = list(line.condition.by_seed("test_accuracy").values())
        if not draw_far_off(axis, line.accuracy, place, limits, colour=style.colour, digits=".2f"):
            axis.plot(values, [place] * len(values), style.marker, color=style.colour, markersize=4, alpha=0.9)
            axis.plot([line.accuracy], [place], "|", color="#111111", markersize=12, markeredgewidth=1.6)
        cost = line.cost("train_flops")
        spent = "" if math.isnan(cost) else f"{cost:.0f} %, "
        axis.annotate(
            f"{spent}{line.condition.done['epochs'].max():g} epochs", (1.01, place),
            xycoords=("axes fraction", "data"), va="center", fontsize=7.5, annotation_clip=False,
        )  # fmt: skip
    name_rows(axis, [line.label for line in block])
    axis.set_xlabel("Test accuracy, last epoch (%)")


EXHIBIT = TableWithFigure(
    name="field",
    caption=CAPTION,
    heads=HEADS,
    labels=3,
    notes=NOTES,
    lines=lines,
    cells=_cells,
    records=_records,
    run_ids=lambda line: line.condition.run_ids,
    finding=_finding,
    figure=_draw,
    more_notes=_patterns,
    nothing="no setting with a static mask and another sparse method",
)
