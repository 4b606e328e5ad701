"""What the stated hyperparameters give, and which alpha would give the printed density instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis import paper
from analysis.epochs import ACCURACY, DENSITY, headline
from analysis.exhibit import Maker, Results, Written, with_figure, write_layout
from analysis.interpolation import at, crossing_interval, crossings, geometric_mean
from analysis.layout import Layout
from analysis.panels import mark, panels, plain_log
from analysis.paper import Target
from analysis.recipes import Recipe, lost_note, model_name, recipes
from analysis.render import reading
from analysis.settings import Setting, Summary

NAME = "alpha-interpolation"
CAPTION = (
    "What the stated alpha gives, and the alpha that would give the printed density, interpolated (not in the paper)"
)
HEADS = (
    "Printed in", "Network", "Epoch", "Printed remaining (%)", "Stated α", "Remaining at it (%)",
    "α for the printed remaining [95 %]", "Times the stated", "Accuracy there (%)", "Printed accuracy (%)",
)  # fmt: skip
LABELS = 3
NOTES = (
    "The line through (log α, log remaining) of the alphas run here, each the geometric mean over its seeds, read at "
    "the printed percentage; accuracy is read at that α on a line through (log α, mean accuracy). Nothing is "
    "extrapolated.",
    "Interval: 2,000 bootstrap draws of each alpha's seeds, percentiles; it has no uncertainty of the printed number, "
    "nor of the line between two alphas. A share of draws is given where some do not bracket.",
    "Epoch: best test accuracy as the authors' code selects (LSTM: last), and the last. A curve that crosses more than "
    "once is read at the lowest α, and says so.",
)
EXHIBITS = ("table1", "table2", "table3", "figure6")


@dataclass(frozen=True)
class Reading:
    """A printed density beside the alphas of one recipe, at one epoch."""

    target: Target
    recipe: Recipe
    epoch: str

    @property
    def density_column(self) -> str:
        return DENSITY[self.epoch]

    @property
    def wanted(self) -> float:
        assert self.target.density_percent is not None
        return self.target.density_percent

    @property
    def ladder(self) -> list[Setting]:
        """DST's settings by alpha, those that kept something."""
        found = [s for s in self.recipe.of("dst") if (s.done[self.density_column] > 0).all()]
        return sorted(found, key=lambda s: s.alpha or 0)

    @property
    def alphas(self) -> list[float]:
        return [float(s.alpha or 0) for s in self.ladder]

    @property
    def runs(self) -> list[list[float]]:
        """Remaining percentages of each alpha's seeds."""
        return [[100 * float(value) for value in s.done[self.density_column]] for s in self.ladder]

    @cached_property
    def found(self) -> list[float]:
        return crossings(self.alphas, [geometric_mean(values) for values in self.runs], self.wanted)

    @cached_property
    def interval(self) -> tuple[float, float, float]:
        return crossing_interval(self.alphas, self.runs, self.wanted) if self.found else (math.nan,) * 3

    @property
    def accuracy(self) -> float:
        means = [s.summary(ACCURACY["top1", self.epoch]).mean for s in self.ladder]
        return at(self.alphas, means, self.found[0]) if self.found else math.nan

    @property
    def stated(self) -> float | None:
        """The alpha that the paper states; where the official protocol has its own, that is in the ladder too."""
        return self.target.alpha

    @property
    def at_stated(self) -> Summary | None:
        same = [s for s in self.ladder if self.stated and math.isclose(s.alpha or 0, self.stated, rel_tol=1e-6)]
        return same[0].summary(self.density_column, scale=100) if same else None


def makers(results: Results) -> dict[str, Maker]:
    return {NAME: lambda out: _write(results, out)}


def readings(results: Results) -> list[Reading]:
    """Each density that the paper measured and printed, beside every recipe of its network that has DST runs."""
    found = []
    every = recipes(results.settings)
    for exhibit in EXHIBITS:
        for target in paper.targets(exhibit):
            if target.origin != "measured" or target.metric != "top1" or target.density_percent is None:
                continue
            for recipe in every:
                if _is_of(recipe, target):
                    epochs = dict.fromkeys([headline(recipe.model), "last"])
                    found += [Reading(target, recipe, epoch) for epoch in epochs]
    return found


def _is_of(recipe: Recipe, target: Target) -> bool:
    rate = paper.RATES.get(target.exhibit)
    lr = recipe.settings[0].spec["optimizer"]["lr"]
    same = (recipe.dataset, recipe.model) == (target.dataset, target.model) and (rate is None or lr == rate)
    return same and any(set(s.protocols) & {"paper", "official"} for s in recipe.of("dst"))


def _write(results: Results, out: Path) -> Written:
    found = readings(results)
    shown = Layout(
        name=NAME,
        caption=CAPTION,
        heads=HEADS,
        body=tuple(map(_row, found)),
        notes=(*NOTES, *_unread(found), *lost_note(results.settings)),
        labels=LABELS,
    )
    run_ids = [run_id for r in found for s in r.ladder for run_id in s.done["run_id"]]
    written = write_layout(shown, list(map(_numbers, found)), out, run_ids=run_ids, finding=_finding(found))
    return with_figure(written, _draw(found), out) if found else written


def _row(r: Reading) -> tuple[str, ...]:
    low, high, share = r.interval
    interval = "" if math.isnan(low) else f" [{low:.3g}, {high:.3g}]"
    partly = f" in {100 * share:.0f} % of the draws" if share < 1 else ""
    several = f", {len(r.found)} crossings" if len(r.found) > 1 else ""
    at_stated = r.at_stated
    return (
        paper.PRINTED[r.target.exhibit].partition(",")[0],
        r.recipe.label,
        r.epoch,
        _spread(r.wanted, r.target.density_std),
        "not printed" if r.stated is None else f"{r.stated:g}",
        "" if r.stated is None else "not run" if at_stated is None else reading(at_stated),
        f"{r.found[0]:.3g}{interval}{partly}{several}" if r.found else _outside(r),
        f"{r.found[0] / r.stated:.2f}" if r.found and r.stated else "",
        f"{r.accuracy:.2f}" if r.found else "",
        "" if r.target.sparse is None else _spread(r.target.sparse, r.target.sparse_std),
    )


def _spread(mean: float, sd: float | None) -> str:
    return f"{mean:.2f}" if sd is None else f"{mean:.2f} ± {sd:.2f}"


def _outside(r: Reading) -> str:
    if len(r.alphas) < 2:
        return "one alpha run"
    means = [geometric_mean(values) for values in r.runs]
    return f"outside: {min(means):.3g} to {max(means):.3g} % at α {r.alphas[0]:g} to {r.alphas[-1]:g}"


def _unread(found: Sequence[Reading]) -> list[str]:
    have = {(r.target.dataset, r.target.model) for r in found}
    missing = dict.fromkeys(
        model_name(t.model)
        for exhibit in EXHIBITS
        for t in paper.targets(exhibit)
        if t.origin == "measured" and (t.dataset, t.model) not in have
    )
    return [f"Not run: {', '.join(missing)}."] if missing else []


def _numbers(r: Reading) -> dict[str, Any]:
    low, high, share = r.interval
    stated = r.at_stated
    return {
        "exhibit": r.target.exhibit, "dataset": r.recipe.dataset, "model": r.recipe.model, "recipe": r.recipe.label,
        "epoch": r.epoch, "printed_remaining_percent": r.wanted, "stated_alpha": r.stated,
        "remaining_at_stated_mean": math.nan if stated is None else stated.mean,
        "remaining_at_stated_sd": math.nan if stated is None else stated.sd, "n": 0 if stated is None else stated.n,
        "alpha": r.found[0] if r.found else math.nan, "alpha_low": low, "alpha_high": high, "share_of_draws": share,
        "crossings": len(r.found), "accuracy": r.accuracy, "printed_accuracy": r.target.sparse,
        "run_ids": ";".join(run_id for s in r.ladder for run_id in s.done["run_id"]),
    }  # fmt: skip


def _finding(found: Sequence[Reading]) -> str:
    sentences = []
    for r in found:
        if r.epoch != headline(r.recipe.model) or not r.found:
            continue
        at_stated = r.at_stated
        gives = f"the stated alpha {r.stated:g} leaves {at_stated.mean:.2f} % and " if at_stated and r.stated else ""
        sentences.append(
            f"{r.recipe.label}: {gives}the printed {r.wanted:g} % would take alpha {r.found[0]:.3g}"
            + (f" ({r.found[0] / r.stated:.1f} times the stated)." if r.stated else ".")
        )
    return " ".join(sentences) or ("No printed density lies within the alphas that were run." if found else "")


def _draw(found: Sequence[Reading]) -> Any:
    heads = [r for r in found if r.epoch == headline(r.recipe.model)]
    groups: dict[str, list[Reading]] = {}
    for r in heads:
        groups.setdefault(r.recipe.title, []).append(r)
    note = (
        "dots: seeds at the headline epoch, line: geometric mean; dashed: printed remaining percentage (band: its ±); "
        "dotted: stated α; black: the interpolated α with its 95 % interval"
    )
    figure, axes = panels(len(groups), columns=3, size=(4.2, 3.1), title=f"{CAPTION}\n{note}")
    for axis, (title, members) in zip(axes, groups.items(), strict=True):
        _panel(axis, members)
        axis.set_title(title)
    return figure


def _panel(axis: Any, members: Sequence[Reading]) -> None:
    r, colour = members[0], mark("dst").colour
    for alpha, values in zip(r.alphas, r.runs, strict=True):
        axis.plot([alpha] * len(values), values, "o", color=colour, markersize=4, alpha=0.6, markeredgewidth=0)
    axis.plot(r.alphas, [geometric_mean(values) for values in r.runs], color=colour, linewidth=1.4)
    for member in members:
        axis.axhline(member.wanted, color="#0072B2", linestyle="--", linewidth=1.1)
        sd = member.target.density_std or 0
        axis.axhspan(member.wanted - sd, member.wanted + sd, color="#0072B2", alpha=0.15, linewidth=0)
        if member.stated:
            axis.axvline(member.stated, color="#444444", linestyle=":", linewidth=1.3)
        if member.found:
            low, high, _ = member.interval
            if not math.isnan(low):
                axis.plot([low, high], [member.wanted] * 2, color="#000000", linewidth=3, solid_capstyle="butt")
            axis.plot([member.found[0]], [member.wanted], "D", color="#000000", markersize=5)
            axis.annotate(
                f"α = {member.found[0]:.3g}", (member.found[0], member.wanted), xytext=(7, 6),
                textcoords="offset points", fontsize=8,
            )  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="α", ylabel="Remaining weights (%)")
    axis.margins(x=0.12)
    plain_log(axis, "x", most=4)
    plain_log(axis, "y")
