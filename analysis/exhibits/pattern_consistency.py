"""How consistent the sparse pattern is (section 5.3): how far rankings of the layers agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analysis.data.comparable import Group, density_matches, groups, of_protocols
from analysis.data.conditions import Condition, Results
from analysis.data.layers_and_curves import LayerRatios, settled_ratios
from analysis.data.read import Tables
from analysis.output.exhibit import TableWithFigure
from analysis.output.numbers import limits, p_text
from analysis.output.plotting import name_rows, panels_of_rows
from analysis.paper import printed
from analysis.statistics.rankings import (
    chance,
    interval_over_raters,
    interval_over_runs,
    kendalls_w,
    p_value,
    pairwise,
    ranks,
)
from analysis.statistics.resampling import Floats

CAPTION = "How consistent the sparse pattern is: how far rankings of layers by remaining ratio agree (not in the paper)"
HEADS = (
    "Network", "Over", "At", "Rankings", "Layers", "Kendall's W [95 %]", "By chance, 95th percentile", "p",
    "Spearman's ρ, mean (lowest)", "Kendall's τ, mean", "ρ with layer size",
)  # fmt: skip
MEASURED = ("Kendall's W [95 %]", "p", *HEADS[8:])
NOTES = (
    "Layers are ranked by the share of their weights that remains at the last epoch; of a run whose thresholds were "
    "reset, at its epoch of lowest density, as a layer keeps nearly everything soon after a reset. W is 1 where all "
    "rankings are the same, and about 1 / rankings by chance. Over alphas and methods, a ranking is that of the mean "
    "over seeds.",
    "Interval: percentiles of 2,000 bootstrap draws. Over alphas and methods, the seeds behind each ranking are drawn; "
    "over seeds, the rankings are, and each pair of different seeds counts. Few seeds make it too narrow.",
    "Chance: layers shuffled within each ranking, 2,000 draws; p is the share of draws that agree as well. With few "
    "layers and rankings no p can be small: three layers have six orders.",
    "Methods: those within a factor of 1.25 of the density, DST at its nearest alpha. A method is left out if all its "
    "runs keep the same number of weights in each layer, or if it has one run: its ranking is that of a fixed budget, "
    "and such methods agree by construction. ρ with layer size: Spearman's correlation of the mean ranks and the "
    "layers' numbers of weights; -1 where larger layers keep smaller shares.",
)
COLOURS = {"alphas": "#0072B2", "seeds": "#D55E00", "methods": "#009E73"}


@dataclass(frozen=True)
class Rankings:
    """Rankings of the same layers by remaining ratio.

    raters: what each ranking is of; ratios: those of its runs, [runs, layers].
    """

    group: Group
    over: str
    at: str
    raters: tuple[str, ...]
    ratios: tuple[LayerRatios, ...]

    @cached_property
    def ratings(self) -> Floats:
        if self.over == "seeds":
            return self.ratios[0].remaining
        return np.stack([part.remaining.mean(axis=0) for part in self.ratios])

    @cached_property
    def w(self) -> float:
        return kendalls_w(self.ratings)

    @cached_property
    def interval(self) -> tuple[float, float]:
        if self.over == "seeds":
            return interval_over_raters(self.ratings)
        return interval_over_runs([part.remaining for part in self.ratios])

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
        return pairwise(np.stack([mean, self.ratios[0].weights]))[0][2]

    @property
    def run_ids(self) -> list[str]:
        return [run_id for part in self.ratios for run_id in part.run_ids]


def rankings(results: Results) -> list[Rankings]:
    """Every set of two rankings or more: of DST over alphas or seeds, of methods at one density."""
    tables, every = results.tables, of_protocols(groups(results.conditions))
    found = [r for g in every for r in (*_alphas(g, tables), *_seeds(g, tables), *_methods(g, tables))]
    return [r for r in found if not math.isnan(r.w)]


def _alphas(group: Group, tables: Tables) -> Iterator[Rankings]:
    yield from _over(group, "alphas", "DST", group.of("dst"), tables)


def _methods(group: Group, tables: Tables) -> Iterator[Rankings]:
    for match in density_matches(group):
        free = [c for c in match.conditions if chooses_its_layers(tables, c)]
        yield from _over(group, "methods", f"density {match.density:.3g}", free, tables)


def chooses_its_layers(tables: Tables, condition: Condition) -> bool:
    """Whether the method itself settles how many weights each layer keeps.

    Such a method finds its own density, or its seeds differ in some layer.
    """
    found = settled_ratios(tables, condition)
    return condition.density is None or (found is not None and bool((found.kept != found.kept[0]).any()))


def _seeds(group: Group, tables: Tables) -> Iterator[Rankings]:
    for condition in group.of("dst"):
        found = settled_ratios(tables, condition)
        if found is not None and len(found.run_ids) > 1:
            seeds = condition.done.set_index("run_id")["seed"]
            raters = tuple(f"seed {int(seeds[run_id])}" for run_id in found.run_ids)
            yield Rankings(group, "seeds", f"DST, {condition.label}", raters, (found,))


def _over(group: Group, over: str, at: str, conditions: Sequence[Condition], tables: Tables) -> Iterator[Rankings]:
    named = [(c, found) for c in conditions if (found := settled_ratios(tables, c)) is not None]
    alike = [(c, found) for c, found in named if found.names == named[0][1].names]
    if len(alike) > 1:
        raters = tuple(c.label if over == "alphas" else printed.method_name(c.method) for c, _ in alike)
        yield Rankings(group, over, at, raters, tuple(found for _, found in alike))


def _cells(a: Rankings) -> tuple[str, ...]:
    rho, tau = ([pair[k] for pair in a.correlations if not math.isnan(pair[k])] for k in (2, 3))
    return (
        a.group.title, a.over, a.at, str(len(a.raters)), str(a.ratings.shape[1]),
        f"{a.w:.2f}{limits(*a.interval)}", f"{a.chance_high:.2f}", p_text(a.p),
        f"{np.mean(rho):.2f} ({min(rho):.2f})" if rho else "", f"{np.mean(tau):.2f}" if tau else "",
        "" if math.isnan(a.with_size) else f"{a.with_size:.2f}",
    )  # fmt: skip


def _records(a: Rankings) -> Iterator[dict[str, Any]]:
    """One record per pair of rankings, with what holds for their whole set."""
    whole = {
        "dataset": a.group.dataset, "model": a.group.model, "recipe": a.group.label, "over": a.over, "at": a.at,
        "rankings": len(a.raters), "layers": a.ratings.shape[1], "kendalls_w": a.w, "w_low": a.interval[0],
        "w_high": a.interval[1], "chance_mean": float(a.by_chance.mean()), "chance_95": a.chance_high, "p": a.p,
        "rho_with_layer_size": a.with_size,
    }  # fmt: skip
    for i, j, rho, tau in a.correlations:
        yield {**whole, "first": a.raters[i], "second": a.raters[j], "spearman_rho": rho, "kendall_tau_b": tau}


def _finding(found: Sequence[Rankings]) -> str:
    parts = []
    for over in COLOURS:
        values = [a.w for a in found if a.over == over]
        beyond = sum(1 for a in found if a.over == over and a.p < 0.05)
        if values:
            spread = f"{min(values):.2f} to {max(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"
            parts.append(f"over {over} {spread} ({beyond} of {len(values)} beyond chance at p < 0.05)")
    return f"Kendall's W of the layers' ranking by remaining ratio is {'; '.join(parts)}." if parts else ""


def _draw(found: Sequence[Rankings]) -> Any:
    rows = list(dict.fromkeys((a.group.title, a.over) for a in found))
    figure, (axis,) = panels_of_rows([len(rows)], columns=1, width=8.2, height=(0.7, 0.34), title=CAPTION)
    for place, row in enumerate(rows):
        members = [a for a in found if (a.group.title, a.over) == row]
        for i, a in enumerate(members):
            _mark(axis, a, place + 0.62 * ((i + 0.5) / len(members) - 0.5), narrow=len(members) > 1)
    name_rows(axis, [f"{title}: over {over}" for title, over in rows])
    for tick, (_, over) in zip(axis.get_yticklabels(), rows, strict=True):
        tick.set_color(COLOURS[over])
    axis.set(xlim=(-0.02, 1.02), xlabel="Kendall's W (1: all rankings the same)")
    axis.set_title(
        "dots: W with 95 % interval; grey: what shuffled layers give, up to the 95th percentile",
        fontweight="normal",
        fontsize=8.5,
    )
    return figure


def _mark(axis: Any, a: Rankings, y: float, *, narrow: bool) -> None:
    low, high = a.interval
    axis.plot(
        [0, a.chance_high], [y, y], color="#D9D9D9", linewidth=3 if narrow else 7, solid_capstyle="butt", zorder=1
    )
    if not math.isnan(low):
        axis.plot([low, high], [y, y], color=COLOURS[a.over], linewidth=1.3, zorder=2)
    axis.plot([a.w], [y], "o", color=COLOURS[a.over], markersize=4 if narrow else 6, zorder=3, clip_on=False)


EXHIBIT = TableWithFigure(
    name="pattern-consistency",
    caption=CAPTION,
    heads=HEADS,
    labels=3,
    notes=NOTES,
    measured=MEASURED,
    lines=rankings,
    cells=_cells,
    records=_records,
    run_ids=lambda a: a.run_ids,
    finding=_finding,
    figure=_draw,
    nothing="no two runs with layers.csv",
)
