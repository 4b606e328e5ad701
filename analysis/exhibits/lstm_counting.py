"""The density of LSTMs as the authors' code counts it, beside the true one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.data.comparable import Group, groups
from analysis.data.conditions import Condition, Results, Summary
from analysis.output.exhibit import TableWithFigure
from analysis.output.numbers import WIDE, centre_and_ends, with_seeds
from analysis.output.plotting import name_rows, panels_of_rows, plain_log, style_of
from analysis.paper import printed

CAPTION = "Remaining weights of the LSTMs: true, and as the authors' code counts them (not in the paper)"
HEADS = (
    "Network", "Method", "Condition", "Remaining, true (%)", "As the authors' code counts (%)",
    "Counted minus true (points)", "Counted / true", "Printed (%)",
)  # fmt: skip
MEASURED = HEADS[3:7]
NOTES = (
    "For the output gate, the authors' LSTM cell adds up the kept weights with their signs instead of the mask. A "
    "quarter of the weights enters by value, so the count can be too low by a quarter, or by more where they sum below "
    "0.",
    f"Last epoch, mean ± standard deviation over n seeds. {WIDE} Neither count includes the classifier. Printed: "
    "Table 1.",
)


@dataclass(frozen=True)
class Count:
    group: Group
    condition: Condition

    @property
    def true(self) -> Summary:
        return self.condition.summary("density", scale=100)

    @property
    def counted(self) -> Summary:
        return self.condition.summary("density_as_authors_count", scale=100)

    @property
    def printed(self) -> float | None:
        """What Table 1 prints of this model, for DST at any alpha."""
        if (self.group.dataset, self.condition.method) != ("mnist", "dst"):
            return None
        return next((t.density_percent for t in printed.targets("table1") if t.model == self.group.model), None)


def counts(results: Results) -> list[Count]:
    """The sparse conditions of the LSTMs that record both counts."""
    return [
        Count(group, condition)
        for group in groups(results.conditions)
        if group.model.startswith("lstm")
        for condition in group.sparse
        if condition.done["density_as_authors_count"].notna().all()
    ]


def _cells(count: Count) -> tuple[str, ...]:
    return (
        count.group.title, printed.method_name(count.condition.method), count.condition.label,
        with_seeds(count.true), with_seeds(count.counted), f"{count.counted.mean - count.true.mean:+.2f}",
        f"{count.counted.mean / count.true.mean:.2f}" if count.true.mean > 0 else "",
        "" if count.printed is None else f"{count.printed:g}",
    )  # fmt: skip


def _records(count: Count) -> Iterator[dict[str, Any]]:
    yield {
        "dataset": count.group.dataset, "model": count.group.model, "recipe": count.group.label,
        "method": count.condition.method, "alpha": count.condition.alpha, "density_target": count.condition.density,
        "true_percent_mean": count.true.mean, "true_percent_sd": count.true.sd,
        "counted_percent_mean": count.counted.mean, "counted_percent_sd": count.counted.sd, "n": count.true.n,
        "expected": count.true.expected, "printed_percent": count.printed,
    }  # fmt: skip


def _finding(found: Sequence[Count]) -> str:
    shares = [count.counted.mean / count.true.mean for count in found if count.true.mean > 0]
    if not shares:
        return ""
    times = " to ".join(dict.fromkeys(f"{share:.2f}" for share in (min(shares), max(shares))))
    over = "one condition" if len(shares) == 1 else f"{len(shares)} conditions"
    counted = "Counted as the authors' code does, the LSTMs' remaining weights are"
    return f"{counted} {times} times the true ones, over {over}."


def _draw(found: Sequence[Count]) -> Any:
    rows = Counter(c.group.title for c in found)
    note = "filled: true; hollow: as the authors' code counts; dashed: what Table 1 prints for DST"
    figure, axes = panels_of_rows(
        list(rows.values()), columns=2, width=5.0, height=(0.9, 0.24), title=f"{CAPTION}\n{note}"
    )
    for axis, title in zip(axes, rows, strict=True):
        _panel(axis, [c for c in found if c.group.title == title])
        axis.set_title(title)
    return figure


def _panel(axis: Any, members: Sequence[Count]) -> None:
    for place, count in enumerate(members):
        colour, true, counted = style_of(count.condition.method).colour, count.true, count.counted
        drawn = [(*centre_and_ends(true), colour), (*centre_and_ends(counted), "white")]
        axis.plot([centre for centre, *_ in drawn], [place] * 2, color=colour, linewidth=1.2, zorder=2)
        for centre, low, high, fill in drawn:
            axis.errorbar(
                [centre], [place], xerr=[[centre - low], [high - centre]], marker="o", markersize=5.5, color=colour,
                markerfacecolor=fill, elinewidth=0.8, capsize=2, linestyle="none", zorder=3,
            )  # fmt: skip
    for percent in {c.printed for c in members if c.printed is not None}:
        axis.axvline(percent, color="#444444", linestyle="--", linewidth=1.1, zorder=1)
    name_rows(axis, [f"{printed.method_name(c.condition.method)}, {c.condition.label}" for c in members])
    axis.set_xlabel("Remaining weights (%)")
    if all(centre_and_ends(number)[1] > 0 for c in members for number in (c.true, c.counted)):
        plain_log(axis, "x")


EXHIBIT = TableWithFigure(
    name="lstm-counting",
    caption=CAPTION,
    heads=HEADS,
    labels=3,
    notes=NOTES,
    measured=MEASURED,
    lines=counts,
    cells=_cells,
    records=_records,
    run_ids=lambda count: count.condition.run_ids,
    finding=_finding,
    figure=_draw,
)
