"""What explains the density that Table 1 prints for LeNet-300-100: docs/gap.md has the decision rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from analysis.data.comparable import FACTOR
from analysis.data.conditions import Condition, Results, Summary, summarize
from analysis.data.differences import differences
from analysis.data.epochs import ACCURACY, DENSITY
from analysis.data.equal_counts import SETTING
from analysis.data.layers_and_curves import by_epoch, layer_ratios, of_common_seeds
from analysis.output.exhibit import TableWithFigure
from analysis.output.numbers import (
    CUT,
    WIDE,
    WIDE_BARS,
    centre_and_ends,
    on_log_axis,
    percentage,
    percentage_and_interval,
    t_interval,
)
from analysis.output.plotting import LAYERS, MODEL, SPARSE, marker_legend, plain_log, small_multiples
from analysis.paper import printed
from analysis.paper.printed import Target

DATASET, NETWORK = "mnist", "lenet-300-100"
EXAMPLES = 60_000  # of MNIST's training set
CAPTION = "Which set-up of LeNet-300-100 gives the density that Table 1 prints (docs/gap.md)"
HEADS = (
    "Set-up", "α", "τ", "Largest t", "Remaining (%)", "Accuracy (%)", "Dense accuracy (%)", "Figure 4 (seeds)",
    "Targets met", "Best epoch: remaining, accuracy (%)", "Sparsest epoch: remaining, accuracy (%)",
    "Without last layer (%)", "Mean of layers (%)",
)  # fmt: skip
NOTES = (
    "Ranked by targets met, then by the ratio of the density as shown to the printed one. Set-up: what differs "
    "from the stated one. τ = α · lr · T / (1 − m) after T steps with momentum m: a threshold that only the penalty "
    "moves ends at ln(1 + τ).",
    "Largest t: the largest threshold of any layer after the last step, mean over seeds. A reset sets a layer's "
    "thresholds back to 0, so resets lower it below ln(1 + τ).",
    f"Last epoch, mean ± standard deviation over n seeds [95 % t interval]. {WIDE} {CUT}",
    f"Targets: remaining within {1 / FACTOR:g} to {FACTOR:g} times the printed number, accuracy and the dense twin's "
    "accuracy within 0.2 points of it, and Figure 4 in at least 4 of 5 seeds: layer 3 keeps 99 %, layer 1 is the "
    "sparsest and below 10 % within a quarter of the epochs, layers 1 and 2 never gain more than 0.5 points in an "
    "epoch. All but Figure 4 are judged by the mean, also where the median is shown.",
    "(?): the 95 % t interval over the seeds crosses the target's limit, or fewer than 5 seeds are done.",
)
ACCURACY_MARGIN, SEEDS, SHARE_OF_SEEDS = 0.2, 5, 0.8
GAIN, FULL, SPARSE_LAYER, QUICK = 0.005, 0.99, 0.1, 0.25


@dataclass(frozen=True)
class Verdict:
    """Whether a target is met by the mean, and whether the seeds settle it. met is None where it is not run."""

    name: str
    met: bool | None
    settled: bool = True


@dataclass(frozen=True)
class SetUp:
    """DST on LeNet-300-100 in one set-up, its dense twin, and what Table 1 prints."""

    condition: Condition
    stated: Condition
    twin: Condition | None
    target: Target
    results: Results

    @cached_property
    def label(self) -> str:
        """What differs from the stated set-up; the alpha has a column of its own."""
        nothing_else = "as stated" if self.condition.alpha == self.stated.alpha else "only the alpha"
        return ", ".join(differences(self.condition.spec, self.stated.spec, without=("alpha",))) or nothing_else

    @cached_property
    def tau(self) -> float:
        """alpha * lr * T / (1 - m); nan for Adam, whose steps are not proportional to the gradient."""
        optimizer = self.condition.spec["optimizer"]
        if optimizer["name"] != "sgd":
            return math.nan
        steps = optimizer["epochs"] * math.ceil(EXAMPLES / optimizer["batch_size"])
        return float((self.condition.alpha or 0.0) * optimizer["lr"] * steps / (1 - optimizer["momentum"]))

    def density(self, reading: str = "last") -> Summary:
        return self.condition.summary(DENSITY[reading], scale=100)

    def accuracy(self, reading: str = "last") -> Summary:
        return self.condition.summary(ACCURACY["top1", reading])

    @cached_property
    def dense_accuracy(self) -> Summary | None:
        return None if self.twin is None else self.twin.summary("test_accuracy")

    @cached_property
    def figure4(self) -> dict[int, bool]:
        """seed -> whether its layers go as Figure 4 shows."""
        names = [f"density/{name}" for name in self.layer_names]
        if len(names) != 3:
            return {}
        layers = of_common_seeds([by_epoch(self.results.tables, self.condition, name) for name in names])
        return {int(seed): goes_as_figure4(*(layer[seed] for layer in layers)) for seed in layers[0]}

    @cached_property
    def layer_names(self) -> tuple[str, ...]:
        ratios = layer_ratios(self.results.tables, self.condition)
        return () if ratios is None else ratios.names

    @cached_property
    def other_counts(self) -> tuple[Summary, Summary]:
        """The density without the last layer, and the mean of the layers' densities; percentages."""
        ratios = layer_ratios(self.results.tables, self.condition)
        expected = len(self.condition.rows)
        if ratios is None:
            return summarize((), expected=expected), summarize((), expected=expected)
        layers = ratios.by_layer()
        without = 100 * layers.kept[:, :-1].sum(axis=1) / layers.weights[:-1].sum()
        means = 100 * layers.remaining.mean(axis=1)
        return summarize(without.tolist(), expected=expected), summarize(means.tolist(), expected=expected)

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        printed_density, accuracy, dense = self.target.density_percent, self.target.sparse, self.target.dense
        assert printed_density is not None
        assert accuracy is not None
        assert dense is not None
        return (
            within("density", self.density(), printed_density / FACTOR, printed_density * FACTOR),
            within("accuracy", self.accuracy(), accuracy - ACCURACY_MARGIN, accuracy + ACCURACY_MARGIN),
            within("dense accuracy", self.dense_accuracy, dense - ACCURACY_MARGIN, dense + ACCURACY_MARGIN),
            self._figure4_verdict(),
        )

    def _figure4_verdict(self) -> Verdict:
        found = list(self.figure4.values())
        if not found:
            return Verdict("Figure 4", None)
        return Verdict("Figure 4", sum(found) >= SHARE_OF_SEEDS * len(found), len(found) >= SEEDS)

    @property
    def met(self) -> int:
        return sum(verdict.met is True for verdict in self.verdicts)

    @property
    def distance(self) -> float:
        """|log| of the ratio of the density as shown, mean or median, to the printed one; inf at 0 %."""
        shown = centre_and_ends(self.density())[0]
        return abs(math.log(shown / (self.target.density_percent or math.nan))) if shown > 0 else math.inf

    @property
    def settled(self) -> bool:
        return all(verdict.settled for verdict in self.verdicts)


def within(name: str, value: Summary | None, low: float, high: float) -> Verdict:
    """Whether a mean lies in [low, high], and whether its interval lies on one side of each limit."""
    if value is None or not value.n:
        return Verdict(name, None)
    left, right = t_interval(value)
    crosses = any(left < limit < right for limit in (low, high))
    return Verdict(name, low <= value.mean <= high, value.n >= SEEDS and not crosses)


def goes_as_figure4(first: pd.Series[float], second: pd.Series[float], third: pd.Series[float]) -> bool:
    """Whether one run's layer densities, one value per epoch, go as the paper's Figure 4 shows."""
    quick = math.ceil(QUICK * len(first))
    falls = all(layer.diff().max() <= GAIN for layer in (first, second))
    lowest = bool(((first <= second) & (first <= third)).all())
    return bool((third >= FULL).all() and lowest and (first.iloc[:quick] < SPARSE_LAYER).any() and falls)


def set_ups(results: Results) -> list[SetUp]:
    """Every set-up that was trained at the two alphas of the question, best first."""
    target = next(t for t in printed.targets("table1") if t.model == NETWORK and t.origin == "measured")
    alphas = (target.alpha, 2 * (target.alpha or 0))
    tried = [c for c in results.conditions if _is_tried(c) and c.alpha in alphas and len(c.done)]
    stated = [c for c in tried if c.alpha == target.alpha and c.follows_protocol]
    if not stated or len(tried) < 3:  # the stated set-up at the two alphas: nothing was tried
        return []
    best = [SetUp(c, stated[0], twin_of(c, results), target, results) for c in tried]
    return sorted(best, key=lambda one: (-one.met, one.distance))


def _is_tried(condition: Condition) -> bool:
    same = (condition.dataset, condition.model, condition.method) == (DATASET, NETWORK, "dst")
    return same and condition.whole_data


def twin_of(condition: Condition, results: Results) -> Condition | None:
    """The dense network of the same data, model, optimizer and precision, whatever the protocols."""
    dense = (c for c in results.conditions if c.method == "dense" and len(c.done))
    return next((c for c in dense if all(c.spec.get(name) == condition.spec.get(name) for name in SETTING)), None)


def _cells(one: SetUp) -> tuple[str, ...]:
    names = [f"{v.name}{'' if v.settled else ' (?)'}" for v in one.verdicts if v.met]
    missing = [f"{v.name} not run" for v in one.verdicts if v.met is None]
    unsettled = [f"not {v.name} (?)" for v in one.verdicts if v.met is False and not v.settled]
    largest = one.condition.summary("threshold_max")
    return (
        one.label, f"{one.condition.alpha:g}", "" if math.isnan(one.tau) else f"{one.tau:.2f}",
        f"{largest.mean:.2f}" if largest.n else "",
        percentage_and_interval(one.density()), percentage(one.accuracy()),
        "not run" if one.dense_accuracy is None else percentage(one.dense_accuracy),
        f"{sum(one.figure4.values())} of {len(one.figure4)}" if one.figure4 else "not run",
        f"{one.met} of 4: {', '.join([*names, *unsettled, *missing])}".removesuffix(": "),
        *(f"{percentage(one.density(at))}, {percentage(one.accuracy(at))}" for at in ("best", "lowest")),
        *(percentage(count) if count.n else "" for count in one.other_counts),
    )  # fmt: skip


def _records(one: SetUp) -> Iterator[dict[str, Any]]:
    density, accuracy = one.density(), one.accuracy()
    low, high = t_interval(density)
    record: dict[str, Any] = {
        "set_up": one.label, "alpha": one.condition.alpha, "tau": one.tau,
        "threshold_max_mean": one.condition.summary("threshold_max").mean,
        "remaining_percent_mean": density.mean, "remaining_percent_sd": density.sd, "remaining_percent_low": low,
        "remaining_percent_high": high, "test_accuracy_mean": accuracy.mean, "test_accuracy_sd": accuracy.sd,
        "dense_accuracy_mean": math.nan if one.dense_accuracy is None else one.dense_accuracy.mean,
        "figure4_seeds": sum(one.figure4.values()), "n": density.n, "expected": density.expected, "met": one.met,
    }  # fmt: skip
    for verdict in one.verdicts:
        key = verdict.name.lower().replace(" ", "_")
        record |= {f"{key}_met": verdict.met, f"{key}_settled": verdict.settled}
    for reading in ("best", "lowest"):
        record[f"remaining_percent_{reading}_mean"] = one.density(reading).mean
        record[f"test_accuracy_{reading}_mean"] = one.accuracy(reading).mean
    without, mean = one.other_counts
    yield record | {"without_last_layer_percent_mean": without.mean, "mean_of_layers_percent_mean": mean.mean}


def _finding(found: Sequence[SetUp]) -> str:
    if not found:
        return ""
    best, most = found[0], max(one.met for one in found)
    full = [one for one in found if one.met == 4]
    settled = sum(one.settled for one in full) or "none"
    rest = f", {settled} of them settled" if full else f"; the most is {most}"
    return (
        f"{len(full)} of {len(found)} set-ups meet all four targets{rest}. "
        f"Verdicts with fewer than {SEEDS} seeds are not settled. First: {best.label} at alpha "
        f"{best.condition.alpha:g}, {percentage(best.density())} % remaining at {percentage(best.accuracy())} %."
    )


def _draw(found: Sequence[SetUp]) -> Any:
    bars = f"last epoch, mean ± standard deviation over seeds, {WIDE_BARS}"
    title = f"{CAPTION}\n{bars}; star: printed; box: both targets"
    figure, axes = small_multiples(2, columns=2, size=(4.6, 3.6), title=title)
    target = found[0].target
    density, accuracy = target.density_percent or math.nan, target.sparse or math.nan
    colours = {0: LAYERS[3], 1: LAYERS[0], 2: LAYERS[4], 3: LAYERS[1], 4: SPARSE}
    for one in found:
        (x, left, right), (y, low, high) = on_log_axis(one.density()), centre_and_ends(one.accuracy())
        look = {"color": colours[one.met], "marker": "o", "markersize": 4.5, "linestyle": "none", "elinewidth": 0.8}
        if not math.isnan(one.tau):
            axes[0].errorbar([one.tau], [x], yerr=[[x - left], [right - x]], **look)
        axes[1].errorbar([x], [y], xerr=[[x - left], [right - x]], yerr=[[y - low], [high - y]], **look)
    axes[0].axhspan(density / FACTOR, density * FACTOR, color="#EEEEEE", zorder=0)
    axes[0].set(xlabel="τ = α · lr · T / (1 − m)", ylabel="Remaining weights (%)")
    box = [density / FACTOR, density * FACTOR, density * FACTOR, density / FACTOR, density / FACTOR]
    sides = [accuracy + sign * ACCURACY_MARGIN for sign in (-1, -1, 1, 1, -1)]
    axes[1].plot(box, sides, color="#777777", linewidth=0.9)
    axes[1].plot([density], [accuracy], marker="*", markersize=10, color=MODEL, linestyle="none")
    axes[1].set(xlabel="Remaining weights (%)", ylabel="Test accuracy (%)")
    for axis, name in ((axes[0], "x"), (axes[0], "y"), (axes[1], "x")):
        plain_log(axis, name)
    marker_legend(figure, {f"{met} of 4 targets": (colours[met], "o") for met in sorted({one.met for one in found})})
    return figure


EXHIBIT = TableWithFigure(
    name="gap",
    caption=CAPTION,
    heads=HEADS,
    labels=1,
    notes=NOTES,
    lines=set_ups,
    cells=_cells,
    records=_records,
    run_ids=lambda one: (*one.condition.run_ids, *(() if one.twin is None else one.twin.run_ids)),
    finding=_finding,
    figure=_draw,
    nothing="not run",
)
