"""The density of LSTMs as the authors' code counts it, beside the true one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis import paper
from analysis.exhibit import Maker, Results, Written, with_figure, write_layout
from analysis.layout import Layout
from analysis.panels import mark, name_rows, panels, plain_log
from analysis.recipes import Recipe, in_symbols, lost_note, method_name, recipes
from analysis.render import reading
from analysis.settings import Setting, Summary

NAME = "lstm-counting"
CAPTION = "Remaining weights of the LSTMs: true, and as the authors' code counts them (not in the paper)"
HEADS = (
    "Network", "Method", "Setting", "Remaining, true (%)", "As the authors' code counts (%)",
    "Counted minus true (points)", "Counted / true", "Printed (%)",
)  # fmt: skip
LABELS = 3
NOTES = (
    "The authors' LSTM cell adds up the output gate's kept weights, signed, in place of its mask: a quarter of the "
    "weights enters with their values, so that the count can be too low by a quarter, and more where they sum below 0.",
    "Last epoch, mean ± standard deviation over n seeds. The classifier is not counted, in either. Printed: table 1.",
)


@dataclass(frozen=True)
class Count:
    recipe: Recipe
    setting: Setting

    @property
    def true(self) -> Summary:
        return self.setting.summary("density", scale=100)

    @property
    def counted(self) -> Summary:
        return self.setting.summary("density_as_authors_count", scale=100)

    @property
    def printed(self) -> float | None:
        """What table 1 prints of this model, for DST at any alpha."""
        if (self.recipe.dataset, self.setting.method) != ("mnist", "dst"):
            return None
        return next((t.density_percent for t in paper.targets("table1") if t.model == self.recipe.model), None)


def makers(results: Results) -> dict[str, Maker]:
    return {NAME: lambda out: _write(results, out)}


def counts(results: Results) -> list[Count]:
    """The sparse settings of the LSTMs that record both counts."""
    return [
        Count(recipe, setting)
        for recipe in recipes(results.settings)
        if recipe.model.startswith("lstm")
        for setting in recipe.sparse
        if setting.done["density_as_authors_count"].notna().all()
    ]


def _write(results: Results, out: Path) -> Written:
    found = counts(results)
    notes = (*NOTES, *lost_note(results.settings))
    shown = Layout(NAME, CAPTION, HEADS, tuple(map(_row, found)), notes, labels=LABELS)
    run_ids = [run_id for count in found for run_id in count.setting.done["run_id"]]
    written = write_layout(shown, list(map(_numbers, found)), out, run_ids=run_ids, finding=_finding(found))
    return with_figure(written, _draw(found), out) if found else written


def _row(count: Count) -> tuple[str, ...]:
    return (
        count.recipe.title, method_name(count.setting.method), in_symbols(count.setting),
        reading(count.true), reading(count.counted), f"{count.counted.mean - count.true.mean:+.2f}",
        f"{count.counted.mean / count.true.mean:.2f}", "" if count.printed is None else f"{count.printed:g}",
    )  # fmt: skip


def _numbers(count: Count) -> dict[str, Any]:
    return {
        "dataset": count.recipe.dataset, "model": count.recipe.model, "recipe": count.recipe.label,
        "method": count.setting.method, "alpha": count.setting.alpha, "density_target": count.setting.density,
        "true_percent_mean": count.true.mean, "true_percent_sd": count.true.sd,
        "counted_percent_mean": count.counted.mean, "counted_percent_sd": count.counted.sd, "n": count.true.n,
        "expected": count.true.expected, "printed_percent": count.printed,
        "run_ids": ";".join(count.setting.done["run_id"]),
    }  # fmt: skip


def _finding(found: Sequence[Count]) -> str:
    shares = [count.counted.mean / count.true.mean for count in found if count.true.mean > 0]
    if not shares:
        return ""
    return (
        f"Counted as the authors' code does, the LSTMs' remaining weights are {min(shares):.2f} to {max(shares):.2f} "
        f"times the true ones, over {len(shares)} settings."
    )


def _draw(found: Sequence[Count]) -> Any:
    titles = list(dict.fromkeys(c.recipe.title for c in found))
    most = max(Counter(c.recipe.title for c in found).values())
    note = "filled: true; hollow: as the authors' code counts; dashed: what table 1 prints for DST"
    figure, axes = panels(len(titles), columns=2, size=(5.0, 0.9 + 0.24 * most), title=f"{CAPTION}\n{note}")
    for axis, title in zip(axes, titles, strict=True):
        _panel(axis, [c for c in found if c.recipe.title == title], most)
        axis.set_title(title)
    return figure


def _panel(axis: Any, members: Sequence[Count], rows: int) -> None:
    for place, count in enumerate(members):
        colour, true, counted = mark(count.setting.method).colour, count.true, count.counted
        axis.plot([counted.mean, true.mean], [place] * 2, color=colour, linewidth=1.2, zorder=2)
        for value, fill in ((true, colour), (counted, "white")):
            axis.errorbar(
                [value.mean], [place], xerr=[0.0 if math.isnan(value.sd) else value.sd], marker="o", markersize=5.5,
                color=colour, markerfacecolor=fill, elinewidth=0.8, capsize=2, linestyle="none", zorder=3,
            )  # fmt: skip
    for printed in {c.printed for c in members if c.printed is not None}:
        axis.axvline(printed, color="#444444", linestyle="--", linewidth=1.1, zorder=1)
    name_rows(axis, [f"{method_name(c.setting.method)}, {in_symbols(c.setting)}" for c in members], most=rows)
    axis.set_xlabel("Remaining weights (%)")
    if all(c.counted.mean > 0 for c in members):
        plain_log(axis, "x")
