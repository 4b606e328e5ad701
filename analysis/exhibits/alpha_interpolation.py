"""What the stated hyperparameters give, and which alpha would give the printed density instead."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis.data.comparable import Group, groups
from analysis.data.conditions import PROTOCOLS, Condition, Results, Summary
from analysis.data.epochs import ACCURACY, COUNTED, DENSITY, EPOCHS
from analysis.data.selection import dst_of, without_results
from analysis.output.exhibit import TableWithFigure
from analysis.output.numbers import centre_and_ends, printed_number, with_seeds
from analysis.output.plotting import plain_log, small_multiples, style_of, write_in_middle
from analysis.paper import printed
from analysis.paper.printed import Target
from analysis.statistics.interpolation import at, crossing_interval, crossings, geometric_mean

CAPTION = (
    "What the stated alpha gives, and the alpha that would give the printed density, interpolated (not in the paper)"
)
HEADS = (
    "Printed in", "Network", "Epoch", "Printed remaining (%)", "Stated α", "Remaining at it (%)",
    "α for the printed remaining [95 %]", "Times the stated", "Accuracy there (%)", "Printed accuracy (%)",
)  # fmt: skip
MEASURED = (HEADS[5], *HEADS[6:9])
NOTES = (
    "The line through (log α, log remaining) of the alphas run here, each the geometric mean over its seeds, is read "
    "at the printed percentage. Accuracy is read at that α, on a line through (log α, mean accuracy). Nothing is "
    "extrapolated.",
    "Interval: percentiles of 2,000 bootstrap draws of each alpha's seeds. It includes no uncertainty of the printed "
    "number or of the line between two alphas. Where some draws do not reach the printed percentage, their share is "
    "given. No interval is given where an alpha next to the interpolated one has a single seed, which cannot vary.",
    "Epoch: the last, that of best test accuracy (selected on the test set) and that of lowest density. The sentences "
    "and the figure are of the last. A curve that crosses more than once is read at the lowest α, and the table says "
    "so. Alphas whose layers are reset more than twice an epoch are left out; the exhibit reset-rules has them.",
)
EXHIBITS = ("table1", "table2", "table3", "figure6")


@dataclass(frozen=True)
class Reading:
    """A printed density beside the alphas of one group, at one epoch."""

    target: Target
    group: Group
    epoch: str

    @property
    def density_column(self) -> str:
        return DENSITY[self.epoch]

    @property
    def wanted(self) -> float:
        assert self.target.density_percent is not None
        return self.target.density_percent

    @property
    def conditions(self) -> list[Condition]:
        """DST's conditions by alpha that have a point on the line."""
        return [c for c in self._every if not self._lacks(c)]

    @property
    def others(self) -> list[tuple[Condition, str]]:
        """Those that have none, and why."""
        return [(c, why) for c in self._every if (why := self._lacks(c))]

    def _lacks(self, condition: Condition) -> str:
        densities = condition.done[self.density_column]
        if not condition.alpha:
            return "0 has no logarithm"
        if densities.isna().any():
            return "the density of a seed is not recorded"
        return "" if (densities > 0).all() else "a seed keeps no weights"

    @property
    def _every(self) -> list[Condition]:
        return sorted(self.group.of("dst"), key=lambda c: c.alpha or 0)

    @property
    def alphas(self) -> list[float]:
        return [float(c.alpha or 0) for c in self.conditions]

    @property
    def runs(self) -> list[list[float]]:
        """Remaining percentages of each alpha's seeds."""
        return [[100 * float(value) for value in c.done[self.density_column]] for c in self.conditions]

    @cached_property
    def found(self) -> list[float]:
        return crossings(self.alphas, [geometric_mean(values) for values in self.runs], self.wanted)

    @cached_property
    def interval(self) -> tuple[float, float, float]:
        return crossing_interval(self.alphas, self.runs, self.wanted) if self.found else (math.nan,) * 3

    @property
    def accuracy(self) -> float:
        means = [c.summary(ACCURACY["top1", self.epoch]).mean for c in self.conditions]
        return at(self.alphas, means, self.found[0]) if self.found else math.nan

    @property
    def stated(self) -> float | None:
        """The alpha that the paper states."""
        return self.target.alpha

    @property
    def at_stated(self) -> Condition | None:
        """The condition at the stated alpha, on the line or not."""
        same = (c for c in self._every if self.stated and math.isclose(c.alpha or 0, self.stated, rel_tol=1e-6))
        return next(same, None)

    @property
    def remaining(self) -> Summary | None:
        """The percentage that the stated alpha leaves; None where it was not run."""
        return None if self.at_stated is None else self.at_stated.summary(self.density_column, scale=100)

    @property
    def run_ids(self) -> list[str]:
        shown = [*self.conditions, *([] if self.at_stated is None else [self.at_stated])]
        return list(dict.fromkeys(run_id for c in shown for run_id in c.run_ids))


def readings(results: Results) -> list[Reading]:
    """Each density that the paper measured, beside every group of its network with DST runs."""
    every = groups(results.conditions)
    found = [
        Reading(target, group, epoch)
        for target in _targets()
        for group in every
        if _is_of(group, target)
        for epoch in EPOCHS
    ]
    return [reading for reading in found if reading.epoch == COUNTED or reading.conditions]


def _targets() -> list[Target]:
    every = [target for exhibit in EXHIBITS for target in printed.targets(exhibit)]
    return [t for t in every if (t.origin, t.metric) == ("measured", "top1") and t.density_percent is not None]


def _is_of(group: Group, target: Target) -> bool:
    rate = printed.RATES.get(target.exhibit)
    same = (group.dataset, group.model) == (target.dataset, target.model)
    same = same and rate in (None, group.conditions[0].learning_rate)
    return same and any(set(c.protocols) & set(PROTOCOLS) for c in group.of("dst"))


def _cells(r: Reading) -> tuple[str, ...]:
    low, high, share = r.interval
    interval = "" if math.isnan(low) else f" [{low:.3g}, {high:.3g}]"
    partly = f" in {100 * share:.0f} % of the draws" if share < 1 else ""
    several = f", {len(r.found)} crossings" if len(r.found) > 1 else ""
    remaining = "not run" if r.remaining is None else with_seeds(r.remaining) if r.remaining.n else "not recorded"
    return (
        printed.number(r.target.exhibit),
        r.group.label,
        r.epoch,
        printed_number(r.wanted, r.target.density_std),
        "not printed" if r.stated is None else f"{r.stated:g}",
        "" if r.stated is None else remaining,
        f"{r.found[0]:.3g}{interval}{partly}{several}" if r.found else _outside(r),
        f"{r.found[0] / r.stated:.2f}" if r.found and r.stated else "",
        f"{r.accuracy:.2f}" if r.found else "",
        printed_number(r.target.sparse, r.target.sparse_std),
    )


def _outside(r: Reading) -> str:
    if len(r.alphas) < 2:
        return f"{len(r.alphas)} of {len(r.alphas) + len(r.others)} alphas usable" if r.others else "one alpha run"
    means = [geometric_mean(values) for values in r.runs]
    return f"outside: {min(means):.3g} to {max(means):.3g} % at α {r.alphas[0]:g} to {r.alphas[-1]:g}"


def _left_out(results: Results, found: Sequence[Reading]) -> list[str]:
    have = {(r.target.dataset, r.target.model) for r in found}
    missing = dict.fromkeys((t.dataset, t.model) for t in _targets() if (t.dataset, t.model) not in have)
    why = {
        model: without_results(c for c in dst_of(results, dataset) if c.model == model) for dataset, model in missing
    }
    texts = [printed.architecture(m) + ("" if text == "not run" else f" ({text})") for m, text in why.items()]
    others: dict[str, dict[str, None]] = {}
    for r in found:
        for c, lacks in r.others:
            others.setdefault(lacks, {})[f"{r.group.label} {c.label}, {r.epoch}"] = None
    return [
        *([f"No finished runs: {', '.join(texts)}."] if texts else []),
        *(f"Left out of the line, because {lacks}: {'; '.join(names)}." for lacks, names in others.items()),
    ]


def _records(r: Reading) -> Iterator[dict[str, Any]]:
    low, high, share = r.interval
    stated = r.remaining
    yield {
        "exhibit": r.target.exhibit, "dataset": r.group.dataset, "model": r.group.model, "recipe": r.group.label,
        "epoch": r.epoch, "printed_remaining_percent": r.wanted, "stated_alpha": r.stated,
        "remaining_at_stated_mean": math.nan if stated is None else stated.mean,
        "remaining_at_stated_sd": math.nan if stated is None else stated.sd, "n": 0 if stated is None else stated.n,
        "alpha": r.found[0] if r.found else math.nan, "alpha_low": low, "alpha_high": high, "share_of_draws": share,
        "crossings": len(r.found), "accuracy": r.accuracy, "printed_accuracy": r.target.sparse,
    }  # fmt: skip


def _finding(found: Sequence[Reading]) -> str:
    sentences = []
    for r in found:
        if r.epoch != COUNTED or not r.found:
            continue
        gives = ""
        if r.remaining is not None and r.remaining.n:
            gives = f"the stated alpha {r.stated:g} leaves {centre_and_ends(r.remaining)[0]:.2f} % and "
        sentences.append(
            f"{r.group.label}: {gives}the printed {r.wanted:g} % would take alpha {r.found[0]:.3g}"
            + (f" ({r.found[0] / r.stated:.1f} times the stated)." if r.stated else ".")
        )
    return " ".join(sentences) or ("No printed density lies within the alphas that were run." if found else "")


def _draw(found: Sequence[Reading]) -> Any:
    heads = [r for r in found if r.epoch == COUNTED]
    groups: dict[str, list[Reading]] = {}
    for r in heads:
        groups.setdefault(r.group.title, []).append(r)
    note = (
        "dots: seeds at the last epoch, line: geometric mean; hollow, grey: epoch of lowest density, for networks "
        "with a reset; dashed: printed remaining percentage (band: its ±); dotted: stated α; black: the interpolated α "
        "with its 95 % interval"
    )
    figure, axes = small_multiples(len(groups), columns=3, size=(4.2, 3.1), title=f"{CAPTION}\n{note}")
    for axis, (title, members) in zip(axes, groups.items(), strict=True):
        _lowest(axis, [r for r in found if r.epoch == "lowest" and r.group is members[0].group])
        _panel(axis, members)
        axis.set_title(title)
    return figure


def _panel(axis: Any, members: Sequence[Reading]) -> None:
    r, colour = members[0], style_of("dst").colour
    if not r.alphas:
        write_in_middle(axis, _outside(r))
        axis.set(xticks=[], yticks=[])
        return
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


def _lowest(axis: Any, members: Sequence[Reading]) -> None:
    """The epoch of lowest density, of networks with a reset: there the last epoch's density is chance."""
    r = next(iter(members), None)
    if r is None or not any((c.done["threshold_resets"] > 0).any() for c in r.conditions):
        return
    for alpha, values in zip(r.alphas, r.runs, strict=True):
        look = {"markerfacecolor": "white", "markeredgecolor": "#777777", "markersize": 4, "linestyle": "none"}
        axis.plot([alpha] * len(values), values, "o", zorder=1.5, **look)
    axis.plot(r.alphas, [geometric_mean(values) for values in r.runs], color="#777777", linewidth=1.2, zorder=1.4)


EXHIBIT = TableWithFigure(
    name="alpha-interpolation",
    caption=CAPTION,
    heads=HEADS,
    labels=3,
    notes=NOTES,
    measured=MEASURED,
    lines=readings,
    cells=_cells,
    records=_records,
    run_ids=lambda r: r.run_ids,
    finding=_finding,
    figure=_draw,
    more_notes=_left_out,
)
