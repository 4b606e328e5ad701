"""How consistent the sparse pattern is (section 5.3): rankings of layers over alphas, seeds and methods."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from analysis.agreement import (
    Floats,
    chance,
    interval_over_raters,
    interval_over_runs,
    kendalls_w,
    p_value,
    pairwise,
    ranks,
)
from analysis.density_matching import matches
from analysis.exhibit import Maker, Results, Written, with_figure, write_layout
from analysis.layer_ratios import Layers, Ratios, layers_by_run, ratios
from analysis.layout import Layout
from analysis.panels import name_rows, panels
from analysis.recipes import Recipe, in_symbols, lost_note, method_name, recipes
from analysis.render import limits, p_text
from analysis.settings import Setting

NAME = "pattern-consistency"
CAPTION = "How consistent the sparse pattern is: agreement of layers ranked by remaining ratio (not in the paper)"
HEADS = (
    "Network", "Over", "At", "Rankings", "Layers", "Kendall's W [95 %]", "By chance, 95th percentile", "p",
    "Spearman's ρ, mean (lowest)", "Kendall's τ, mean", "ρ with layer size",
)  # fmt: skip
LABELS = 3
NOTES = (
    "Layers are ranked by the share of their weights that remains at the last epoch; W is 1 where all rankings are the "
    "same and about 1 / rankings by chance. Over alphas and methods a ranking is that of the mean over seeds.",
    "Interval: 2,000 bootstrap draws of the seeds, percentiles. Over alphas and methods the seeds behind each ranking "
    "are drawn; over seeds the rankings are, each pair of different seeds counted. Few seeds make it too narrow.",
    "Chance: layers shuffled within each ranking, 2,000 draws; p is the share of them that agrees as well. With few "
    "layers and rankings no p can be small: three layers have six orders.",
    "Methods are those within a factor of 1.25 of the density, DST at its nearest alpha. ρ with layer size: Spearman's "
    "between the mean ranks and the layers' numbers of weights; -1 where larger layers keep the smaller shares.",
)
COLOURS = {"alphas": "#0072B2", "seeds": "#D55E00", "methods": "#009E73"}


@dataclass(frozen=True)
class Agreement:
    """Rankings of the same layers. groups: of each ranking its runs' ratios, [runs, layers]."""

    recipe: Recipe
    over: str
    at: str
    raters: tuple[str, ...]
    groups: tuple[Ratios, ...]

    @cached_property
    def ratings(self) -> Floats:
        if self.over == "seeds":
            return self.groups[0].remaining
        return np.stack([group.remaining.mean(axis=0) for group in self.groups])

    @cached_property
    def w(self) -> float:
        return kendalls_w(self.ratings)

    @cached_property
    def interval(self) -> tuple[float, float]:
        if self.over == "seeds":
            return interval_over_raters(self.ratings)
        return interval_over_runs([group.remaining for group in self.groups])

    @cached_property
    def by_chance(self) -> Floats:
        return chance(self.ratings)

    @property
    def p(self) -> float:
        return p_value(self.w, self.by_chance)

    @property
    def chance_high(self) -> float:
        return float(np.quantile(self.by_chance, 0.95))

    @cached_property
    def correlations(self) -> list[tuple[int, int, float, float]]:
        return pairwise(self.ratings)

    @property
    def with_size(self) -> float:
        """Spearman's rho of the mean ranks and the layers' sizes."""
        mean = ranks(self.ratings).mean(axis=0)
        return pairwise(np.stack([mean, self.groups[0].weights]))[0][2]

    @property
    def run_ids(self) -> list[str]:
        return [run_id for group in self.groups for run_id in group.run_ids]


def makers(results: Results) -> dict[str, Maker]:
    return {NAME: lambda out: _write(results, out)}


def agreements(results: Results) -> list[Agreement]:
    """Every set of at least two rankings: of DST over alphas and over seeds, and of methods at one density."""
    layers = layers_by_run(results.tables)
    found = [
        a for r in recipes(results.settings) for a in (*_alphas(r, layers), *_seeds(r, layers), *_methods(r, layers))
    ]
    return [a for a in found if not math.isnan(a.w)]


def _alphas(recipe: Recipe, layers: Mapping[str, Layers]) -> Iterator[Agreement]:
    yield from _agreement(recipe, "alphas", "DST", recipe.of("dst"), layers)


def _methods(recipe: Recipe, layers: Mapping[str, Layers]) -> Iterator[Agreement]:
    for match in matches(recipe):
        yield from _agreement(recipe, "methods", f"{100 * match.density:g} % kept", match.settings, layers)


def _seeds(recipe: Recipe, layers: Mapping[str, Layers]) -> Iterator[Agreement]:
    for setting in recipe.of("dst"):
        found = ratios(setting, layers)
        if found is not None and len(found.run_ids) > 1:
            seeds = setting.done.set_index("run_id")["seed"]
            raters = tuple(f"seed {int(seeds[run_id])}" for run_id in found.run_ids)
            yield Agreement(recipe, "seeds", f"DST, {in_symbols(setting)}", raters, (found,))


def _agreement(
    recipe: Recipe, over: str, at: str, settings: Sequence[Setting], layers: Mapping[str, Layers]
) -> Iterator[Agreement]:
    named = [(s, found) for s in settings if (found := ratios(s, layers)) is not None]
    alike = [(s, found) for s, found in named if found.names == named[0][1].names]
    if len(alike) > 1:
        raters = tuple(in_symbols(s) if over == "alphas" else method_name(s.method) for s, _ in alike)
        yield Agreement(recipe, over, at, raters, tuple(found for _, found in alike))


def _write(results: Results, out: Path) -> Written:
    found = agreements(results)
    shown = Layout(
        name=NAME,
        caption=CAPTION,
        heads=HEADS,
        body=tuple(map(_row, found)),
        notes=(*NOTES, *lost_note(results.settings)),
        labels=LABELS,
    )
    run_ids = [run_id for agreement in found for run_id in agreement.run_ids]
    remark = "" if found else "no two runs with layers.csv"
    written = write_layout(shown, _data(found), out, run_ids=run_ids, finding=_finding(found), remark=remark)
    return with_figure(written, _draw(found), out) if found else written


def _row(a: Agreement) -> tuple[str, ...]:
    rho, tau = ([pair[k] for pair in a.correlations if not math.isnan(pair[k])] for k in (2, 3))
    return (
        a.recipe.title, a.over, a.at, str(len(a.raters)), str(a.ratings.shape[1]),
        f"{a.w:.2f}{limits(*a.interval)}", f"{a.chance_high:.2f}", p_text(a.p),
        f"{np.mean(rho):.2f} ({min(rho):.2f})" if rho else "", f"{np.mean(tau):.2f}" if tau else "",
        "" if math.isnan(a.with_size) else f"{a.with_size:.2f}",
    )  # fmt: skip


def _data(found: Sequence[Agreement]) -> list[dict[str, Any]]:
    """A row a pair of rankings, with what holds for their whole set."""
    lines = []
    for a in found:
        whole = {
            "dataset": a.recipe.dataset, "model": a.recipe.model, "recipe": a.recipe.label, "over": a.over, "at": a.at,
            "rankings": len(a.raters), "layers": a.ratings.shape[1], "kendalls_w": a.w, "w_low": a.interval[0],
            "w_high": a.interval[1], "chance_mean": float(a.by_chance.mean()), "chance_95": a.chance_high, "p": a.p,
            "rho_with_layer_size": a.with_size,
        }  # fmt: skip
        for i, j, rho, tau in a.correlations:
            pair = {"first": a.raters[i], "second": a.raters[j], "spearman_rho": rho, "kendall_tau_b": tau}
            lines.append({**whole, **pair, "run_ids": ";".join(a.run_ids)})
    return lines


def _finding(found: Sequence[Agreement]) -> str:
    parts = []
    for over in COLOURS:
        values = [a.w for a in found if a.over == over]
        beyond = sum(1 for a in found if a.over == over and a.p < 0.05)
        if values:
            spread = f"{min(values):.2f} to {max(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"
            parts.append(f"over {over} {spread} ({beyond} of {len(values)} beyond chance at p < 0.05)")
    return f"Kendall's W of the layers' ranking by remaining ratio is {'; '.join(parts)}." if parts else ""


def _draw(found: Sequence[Agreement]) -> Any:
    rows = list(dict.fromkeys((a.recipe.title, a.over) for a in found))
    figure, (axis,) = panels(1, columns=1, size=(8.2, 0.7 + 0.34 * len(rows)), title=f"{CAPTION}")
    for place, row in enumerate(rows):
        members = [a for a in found if (a.recipe.title, a.over) == row]
        for i, a in enumerate(members):
            _mark(axis, a, place + 0.62 * ((i + 0.5) / len(members) - 0.5), narrow=len(members) > 1)
    name_rows(axis, [f"{title}: over {over}" for title, over in rows], most=len(rows))
    for tick, (_, over) in zip(axis.get_yticklabels(), rows, strict=True):
        tick.set_color(COLOURS[over])
    axis.set(xlim=(-0.02, 1.02), xlabel="Kendall's W (1: all rankings the same)")
    axis.set_title(
        "dots: W with 95 % interval; grey: what shuffled layers give, up to the 95th percentile",
        fontweight="normal",
        fontsize=8.5,
    )
    return figure


def _mark(axis: Any, a: Agreement, y: float, *, narrow: bool) -> None:
    low, high = a.interval
    axis.plot(
        [0, a.chance_high], [y, y], color="#D9D9D9", linewidth=3 if narrow else 7, solid_capstyle="butt", zorder=1
    )
    if not math.isnan(low):
        axis.plot([low, high], [y, y], color=COLOURS[a.over], linewidth=1.3, zorder=2)
    axis.plot([a.w], [y], "o", color=COLOURS[a.over], markersize=4 if narrow else 6, zorder=3, clip_on=False)
