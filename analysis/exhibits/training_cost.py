"""What training costs: seconds per step beside the dense cell of the same seed and machine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from analysis.data.comparable import Group, groups
from analysis.data.conditions import Condition, Results
from analysis.output.exhibit import TableWithFigure
from analysis.output.numbers import limits
from analysis.output.plotting import methods_in_order, name_rows, small_multiples, style_of
from analysis.paper import printed
from analysis.statistics.interpolation import geometric_mean
from analysis.statistics.resampling import bootstrap_interval
from benchmark.results import TIMES

CAPTION = "Seconds a training step beside dense training on the same machine (not in the paper)"
HEADS = (
    "Network", "Method", "Condition", "Machine", "Dense (ms a step)", "Sparse (ms a step)", "Ratio [95 %]", "Seeds",
)  # fmt: skip
NOTES = (
    "Training steps only, over all attempts, divided by their number. A cell is compared only with the dense cell of "
    "the same seed, machine and commit. Ratio: geometric mean over seeds, 2,000 bootstrap draws of the log ratios.",
    "Seconds are CPU seconds where every cell of a line recorded them. Elsewhere they are wall-clock seconds, which "
    "other work on the machine lengthens; those lines say so. Masks are multiplied in; no sparse kernel is used.",
)


@dataclass(frozen=True)
class Cost:
    """A sparse condition and its dense twin on one machine at one commit.

    pairs: (dense, sparse) seconds, by seed. clock: which seconds, `train_cpu_seconds` where all cells
    have them, else `train_seconds`.
    """

    group: Group
    condition: Condition
    machine: str
    commit: str
    steps: float
    clock: str
    pairs: tuple[tuple[float, float], ...]
    run_ids: tuple[str, ...]

    @property
    def ratios(self) -> list[float]:
        return [sparse / dense for dense, sparse in self.pairs]

    @property
    def ratio(self) -> float:
        return geometric_mean(self.ratios)

    @cached_property
    def interval(self) -> tuple[float, float]:
        low, high = bootstrap_interval([math.log(ratio) for ratio in self.ratios])
        return math.exp(low), math.exp(high)

    def milliseconds(self, side: int) -> float:
        return 1000 * float(np.mean([pair[side] for pair in self.pairs])) / self.steps


def costs(results: Results) -> list[Cost]:
    """Every sparse condition with a dense cell of the same seed, machine and commit."""
    return [cost for g in groups(results.conditions) if g.dense for c in g.sparse for cost in _costs(g, g.dense, c)]


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
    wanted = [*keys, *TIMES, "run_id"]
    both = dense.done[wanted].merge(sparse.done[wanted], on=keys, suffixes=("_dense", "_sparse"))
    both = both[(both["train_seconds_dense"] > 0) & (both["train_seconds_sparse"] > 0) & (both["device"] != "")]
    found = []
    for (device, commit), rows in both.sort_values("seed").groupby(["device", "commit"], sort=True):
        clock = "train_cpu_seconds" if _all_have(rows, "train_cpu_seconds") else "train_seconds"
        pairs = tuple(zip(rows[f"{clock}_dense"], rows[f"{clock}_sparse"], strict=True))
        run_ids = (*rows["run_id_dense"], *rows["run_id_sparse"])
        found.append(Cost(group, sparse, str(device), str(commit), steps_of(dense), clock, pairs, run_ids))
    return found


def _all_have(rows: pd.DataFrame, clock: str) -> bool:
    return bool((rows[[f"{clock}_dense", f"{clock}_sparse"]] > 0).all(axis=None))


def _without_dense(results: Results, found: Sequence[Cost]) -> list[str]:
    have = {run_id for cost in found for run_id in cost.run_ids}
    sparse = [run_id for g in groups(results.conditions) for c in g.sparse for run_id in c.run_ids]
    lonely = sum(1 for run_id in sparse if run_id not in have)
    return [f"Left out: {lonely} sparse cells without a dense cell of their seed, machine and commit."] * bool(lonely)


def _cells(cost: Cost) -> tuple[str, ...]:
    return (
        cost.group.title, printed.method_name(cost.condition.method), cost.condition.label,
        machine_name(cost), *(_milliseconds(cost.milliseconds(side)) for side in (0, 1)),
        f"{cost.ratio:.2f}{limits(*cost.interval)}", f"n={len(cost.pairs)}",
    )  # fmt: skip


def machine_name(cost: Cost) -> str:
    wall = "" if cost.clock == "train_cpu_seconds" else ", wall-clock"
    return f"{cost.machine}, commit {cost.commit[:7]}{'-dirty' if cost.commit.endswith('-dirty') else ''}{wall}"


def _milliseconds(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _records(cost: Cost) -> Iterator[dict[str, Any]]:
    yield {
        "dataset": cost.group.dataset, "model": cost.group.model, "recipe": cost.group.label,
        "method": cost.condition.method, "alpha": cost.condition.alpha, "density_target": cost.condition.density,
        "machine": cost.machine, "commit": cost.commit, "steps": cost.steps, "seconds": cost.clock,
        "dense_ms_a_step": cost.milliseconds(0), "sparse_ms_a_step": cost.milliseconds(1), "ratio": cost.ratio,
        "ratio_low": cost.interval[0], "ratio_high": cost.interval[1], "n": len(cost.pairs),
    }  # fmt: skip


def _finding(found: Sequence[Cost]) -> str:
    parts = []
    for method in methods_in_order(cost.condition.method for cost in found):
        of = [cost.ratio for cost in found if cost.condition.method == method]
        spread = f"{min(of):.2f}" if len(of) == 1 else f"{min(of):.2f} to {max(of):.2f}"
        parts.append(f"{printed.method_name(method)} {spread}")
    return f"A training step takes, in times of the dense one on the same machine: {', '.join(parts)}." if parts else ""


def _draw(found: Sequence[Cost]) -> Any:
    groups: dict[tuple[str, str], list[Cost]] = {}
    for cost in found:
        groups.setdefault((cost.group.title, machine_name(cost)), []).append(cost)
    tallest = max(len(methods_in_order(c.condition.method for c in members)) for members in groups.values())
    note = "each mark is one alpha or density: geometric mean of the paired ratios with 95 % interval"
    figure, axes = small_multiples(len(groups), columns=3, size=(4.3, 1.0 + 0.42 * tallest), title=f"{CAPTION}\n{note}")
    for axis, ((title, machine), members) in zip(axes, groups.items(), strict=True):
        _panel(axis, members, tallest)
        axis.set_title(title, pad=17)
        axis.text(0, 1.04, machine, transform=axis.transAxes, fontsize=7.5, color="#444444")
    return figure


def _panel(axis: Any, members: Sequence[Cost], rows: int) -> None:
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
    name_rows(axis, list(map(printed.method_name, methods)), most=rows)
    axis.set_xlabel("Seconds a step, times dense")
    axis.set_xlim(left=min(0.9, axis.get_xlim()[0]))


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
    more_notes=_without_dense,
    nothing="no dense and sparse cells of one seed, machine and commit",
)
