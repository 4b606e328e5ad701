"""What training costs: CPU seconds per step beside the dense cell of the same seed and machine.

Wall-clock seconds are not compared: other work on a machine lengthens them several times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from analysis.data.comparable import Group, groups, of_protocols
from analysis.data.conditions import Condition, Results
from analysis.output.exhibit import TableWithFigure
from analysis.output.numbers import limits
from analysis.output.plotting import methods_in_order, name_rows, panels_of_rows, style_of
from analysis.paper import printed
from analysis.statistics.interpolation import geometric_mean
from analysis.statistics.resampling import bootstrap_interval

CAPTION = "CPU seconds per training step beside dense training on the same machine (not in the paper)"
HEADS = (
    "Network", "Method", "Condition", "Machine", "Dense (ms a step)", "Sparse (ms a step)", "Ratio [95 %]", "Seeds",
)  # fmt: skip
NOTES = (
    "CPU seconds of the training steps only, over all attempts, divided by the number of steps. A cell is compared "
    "only with the dense cell of the same seed, machine and commit. Ratio: geometric mean over seeds, 2,000 bootstrap "
    "draws of the log ratios.",
    "Recording every step of an epoch slows a cell. Masks are multiplied in; no sparse kernel is used. "
    "docs/performance.md has the cost of a step, measured in pairs of one process.",
)
SECONDS = "train_cpu_seconds"


@dataclass(frozen=True)
class Cost:
    """A sparse condition and its dense twin on one machine at one commit.

    steps: of the dense cell. times: how many times as many the sparse one takes; a method with phases
    of its own takes more. pairs: (dense, sparse) CPU seconds, by seed.
    """

    group: Group
    condition: Condition
    machine: str
    commit: str
    steps: float
    times: float
    pairs: tuple[tuple[float, float], ...]
    run_ids: tuple[str, ...]

    @property
    def ratios(self) -> list[float]:
        """Sparse over dense seconds per step, one for each seed."""
        return [sparse / self.times / dense for dense, sparse in self.pairs]

    @property
    def ratio(self) -> float:
        return geometric_mean(self.ratios)

    @cached_property
    def interval(self) -> tuple[float, float]:
        low, high = bootstrap_interval([math.log(ratio) for ratio in self.ratios])
        return math.exp(low), math.exp(high)

    def milliseconds(self, side: int) -> float:
        steps = self.steps * (self.times if side else 1)
        return 1000 * float(np.mean([pair[side] for pair in self.pairs])) / steps


def costs(results: Results) -> list[Cost]:
    """Every sparse condition with a dense cell of the same seed, machine and commit."""
    return [
        cost
        for g in of_protocols(groups(results.conditions))
        if g.dense
        for c in g.sparse
        for cost in _costs(g, g.dense, c)
    ]


def steps_of(dense: Condition) -> float:
    """Training steps of a dense condition, from its FLOPs; nan where they are unknown.

    An example costs three forward passes.
    """
    flops = dense.done.iloc[0]
    optimizer = dense.spec["optimizer"]
    batch, epochs = optimizer.get("batch_size"), optimizer.get("epochs")
    if not (batch and epochs and flops["inference_flops"] > 0 and flops["train_flops"] > 0):
        return math.nan
    examples = round(flops["train_flops"] / (3 * flops["inference_flops"]) / epochs)
    return float(epochs * math.ceil(examples / batch))


def _costs(group: Group, dense: Condition, sparse: Condition) -> list[Cost]:
    keys = ["seed", "device", "commit"]
    timed = [c.done.loc[(c.done[SECONDS] > 0) & _named(c.done), [*keys, SECONDS, "run_id"]] for c in (dense, sparse)]
    both = timed[0].merge(timed[1], on=keys, suffixes=("_dense", "_sparse"))
    found = []
    for (device, commit), rows in both.sort_values("seed").groupby(["device", "commit"], sort=True):
        pairs = tuple(zip(rows[f"{SECONDS}_dense"], rows[f"{SECONDS}_sparse"], strict=True))
        run_ids = (*rows["run_id_dense"], *rows["run_id_sparse"])
        times = _times(dense, sparse)
        found.append(Cost(group, sparse, str(device), str(commit), steps_of(dense), times, pairs, run_ids))
    return found


def _named(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which rows name their machine and their commit; two that do not may be of different ones."""
    return (rows["device"] != "") & ~rows["commit"].str.removesuffix("-dirty").isin(["", "unknown"])


def _times(dense: Condition, sparse: Condition) -> float:
    """How many times the dense cell's steps a sparse cell takes.

    The ratio of their epochs; where the last epoch ends early, the smaller ratio of their executed
    FLOPs, which also count the examples that a method scores.
    """
    epochs = sparse.epochs / dense.epochs
    ours, theirs = (c.done.iloc[0]["executed_flops"] for c in (sparse, dense))
    return epochs if math.isnan(ours) or math.isnan(theirs) else min(epochs, ours / theirs)


def _left_out(results: Results, found: Sequence[Cost]) -> list[str]:
    """How many sparse cells are not compared, by the reason."""
    have = {run_id for cost in found for run_id in cost.run_ids}
    done = [c.done for g in of_protocols(groups(results.conditions)) for c in g.sparse]
    cells = [(rows[SECONDS] > 0, _named(rows), rows["run_id"].isin(have)) for rows in done]
    untimed = sum(int((~timed).sum()) for timed, _, _ in cells)
    unnamed = sum(int((timed & ~named).sum()) for timed, named, _ in cells)
    lonely = sum(int((timed & named & ~compared).sum()) for timed, named, compared in cells)
    counted = (
        (untimed, "without CPU seconds: trained before these were recorded, or on a GPU"),
        (unnamed, "without the name of their machine or commit"),
        (lonely, "without a dense cell of their seed, machine and commit"),
    )
    return [f"Left out: {count} sparse cells {why}." for count, why in counted if count]


def _cells(cost: Cost) -> tuple[str, ...]:
    return (
        cost.group.title, printed.method_name(cost.condition.method), cost.condition.label,
        machine_name(cost), *(_milliseconds(cost.milliseconds(side)) for side in (0, 1)),
        f"{cost.ratio:.2f}{limits(*cost.interval)}", f"n={len(cost.pairs)}",
    )  # fmt: skip


def machine_name(cost: Cost) -> str:
    return f"{cost.machine}, commit {cost.commit[:7]}{'-dirty' if cost.commit.endswith('-dirty') else ''}"


def _milliseconds(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _records(cost: Cost) -> Iterator[dict[str, Any]]:
    yield {
        "dataset": cost.group.dataset, "model": cost.group.model, "recipe": cost.group.label,
        "method": cost.condition.method, "alpha": cost.condition.alpha, "density_target": cost.condition.density,
        "machine": cost.machine, "commit": cost.commit, "steps": cost.steps,
        "dense_ms_a_step": cost.milliseconds(0), "sparse_ms_a_step": cost.milliseconds(1), "ratio": cost.ratio,
        "ratio_low": cost.interval[0], "ratio_high": cost.interval[1], "n": len(cost.pairs),
    }  # fmt: skip


def _finding(found: Sequence[Cost]) -> str:
    parts = []
    for method in methods_in_order(cost.condition.method for cost in found):
        of = [cost.ratio for cost in found if cost.condition.method == method]
        spread = f"{min(of):.2f}" if len(of) == 1 else f"{min(of):.2f} to {max(of):.2f}"
        parts.append(f"{printed.method_name(method)} {spread}")
    return (
        f"A training step takes, in CPU seconds and times the dense one on the same machine: {', '.join(parts)}."
        if parts
        else ""
    )


def _draw(found: Sequence[Cost]) -> Any:
    groups: dict[tuple[str, str], list[Cost]] = {}
    for cost in found:
        groups.setdefault((cost.group.title, machine_name(cost)), []).append(cost)
    rows = [len({c.condition.method for c in members}) for members in groups.values()]
    note = "each mark is one alpha or density: geometric mean of the paired ratios with 95 % interval"
    figure, axes = panels_of_rows(rows, columns=3, width=4.3, height=(1.0, 0.42), title=f"{CAPTION}\n{note}")
    for axis, ((title, machine), members) in zip(axes, groups.items(), strict=True):
        _panel(axis, members)
        axis.set_title(title, pad=17)
        axis.annotate(
            machine, (0, 1), xytext=(0, 5), xycoords="axes fraction", textcoords="offset points",
            fontsize=7.5, color="#444444",
        )  # fmt: skip
    return figure


def _panel(axis: Any, members: Sequence[Cost]) -> None:
    axis.axvline(1, color="#444444", linewidth=0.9)
    methods = methods_in_order(cost.condition.method for cost in members)
    for place, method in enumerate(methods):
        of = [cost for cost in members if cost.condition.method == method]
        for i, cost in enumerate(of):
            y = place + 0.6 * ((i + 0.5) / len(of) - 0.5)
            low, high = cost.interval
            if not math.isnan(low):
                axis.plot([low, high], [y, y], color=style_of(method).colour, linewidth=1.3)
            axis.plot([cost.ratio], [y], style_of(method).marker, color=style_of(method).colour, markersize=5)
    name_rows(axis, list(map(printed.method_name, methods)))
    axis.set_xlabel("CPU seconds per step, times dense")
    low, high = axis.get_xlim()
    left = min(0.9, low)
    axis.set_xlim(left, high + 0.03 * (high - left))


EXHIBIT = TableWithFigure(
    name="training-cost",
    caption=CAPTION,
    heads=HEADS,
    labels=4,
    notes=NOTES,
    lines=costs,
    cells=_cells,
    records=_records,
    run_ids=lambda cost: cost.run_ids,
    finding=_finding,
    figure=_draw,
    more_notes=_left_out,
    nothing="no dense and sparse cells of one seed, machine and commit with CPU seconds; see docs/performance.md",
)
