"""What training costs: seconds a step beside the dense cell of the same seed, machine and commit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from analysis.exhibit import Maker, Results, Written, with_figure, write_layout
from analysis.interpolation import geometric_mean
from analysis.layout import Layout
from analysis.panels import in_order, mark, name_rows, panels
from analysis.recipes import Recipe, in_symbols, lost_note, method_name, recipes
from analysis.render import limits
from analysis.resampling import bootstrap_interval
from analysis.settings import Setting

NAME = "training-cost"
CAPTION = "Seconds a training step beside dense training on the same machine (not in the paper)"
HEADS = (
    "Network", "Method", "Setting", "Machine", "Dense (ms a step)", "Sparse (ms a step)", "Ratio [95 %]", "Seeds",
)  # fmt: skip
LABELS = 4
NOTES = (
    "Training steps only, over all attempts, divided by their number; a cell is compared with the dense cell of the "
    "same seed, machine and commit alone. Ratio: geometric mean over seeds, 2,000 bootstrap draws of the log ratios.",
    "As the runs came: other work on the machine is in it, and a cell that records every step of an epoch pays for it. "
    "Masks are multiplied in; no sparse kernel is used.",
)


@dataclass(frozen=True)
class Cost:
    """A sparse setting and its dense twin on one machine at one commit. pairs: (dense, sparse) seconds, by seed."""

    recipe: Recipe
    setting: Setting
    machine: str
    commit: str
    steps: float
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


def makers(results: Results) -> dict[str, Maker]:
    return {NAME: lambda out: _write(results, out)}


def costs(results: Results) -> list[Cost]:
    """Every sparse setting with a dense cell of the same seed, machine and commit."""
    return [cost for r in recipes(results.settings) if r.dense for s in r.sparse for cost in _costs(r, r.dense, s)]


def steps_of(dense: Setting) -> float:
    """Training steps of a dense setting, from its FLOPs: 3 forward passes an example; nan where they are unknown."""
    flops = dense.done.iloc[0]
    optimizer = dense.spec["optimizer"]
    batch, epochs = optimizer.get("batch_size"), optimizer.get("epochs")
    if not (batch and epochs and flops["inference_flops"] > 0 and flops["train_flops"] > 0):
        return math.nan
    examples = round(flops["train_flops"] / (3 * flops["inference_flops"]) / epochs)
    return float(epochs * math.ceil(examples / batch))


def _costs(recipe: Recipe, dense: Setting, sparse: Setting) -> list[Cost]:
    keys = ["seed", "device", "commit"]
    wanted = [*keys, "train_seconds", "run_id"]
    both = dense.done[wanted].merge(sparse.done[wanted], on=keys, suffixes=("_dense", "_sparse"))
    both = both[(both["train_seconds_dense"] > 0) & (both["train_seconds_sparse"] > 0) & (both["device"] != "")]
    found = []
    for (device, commit), rows in both.sort_values("seed").groupby(["device", "commit"], sort=True):
        pairs = tuple(zip(rows["train_seconds_dense"], rows["train_seconds_sparse"], strict=True))
        run_ids = (*rows["run_id_dense"], *rows["run_id_sparse"])
        found.append(Cost(recipe, sparse, str(device), str(commit), steps_of(dense), pairs, run_ids))
    return found


def _write(results: Results, out: Path) -> Written:
    found = costs(results)
    apart = _apart(results, found)
    shown = Layout(
        name=NAME,
        caption=CAPTION,
        heads=HEADS,
        body=tuple(map(_row, found)),
        notes=(*NOTES, *apart, *lost_note(results.settings)),
        labels=LABELS,
    )
    run_ids = [run_id for cost in found for run_id in cost.run_ids]
    remark = "" if found else "no dense and sparse cells of one seed, machine and commit"
    data = list(map(_numbers, found))
    written = write_layout(shown, data, out, run_ids=run_ids, finding=_finding(found), remark=remark)
    return with_figure(written, _draw(found), out) if found else written


def _apart(results: Results, found: Sequence[Cost]) -> list[str]:
    have = {run_id for cost in found for run_id in cost.run_ids}
    sparse = [run_id for r in recipes(results.settings) for s in r.sparse for run_id in s.done["run_id"]]
    lonely = sum(1 for run_id in sparse if run_id not in have)
    return (
        [f"Left out: {lonely} sparse cells without a dense cell of their seed, machine and commit."] if lonely else []
    )


def _row(cost: Cost) -> tuple[str, ...]:
    return (
        cost.recipe.title, method_name(cost.setting.method), in_symbols(cost.setting),
        machine_name(cost), *(_milliseconds(cost.milliseconds(side)) for side in (0, 1)),
        f"{cost.ratio:.2f}{limits(*cost.interval)}", f"n={len(cost.pairs)}",
    )  # fmt: skip


def machine_name(cost: Cost) -> str:
    return f"{cost.machine}, commit {cost.commit[:7]}{'-dirty' if cost.commit.endswith('-dirty') else ''}"


def _milliseconds(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _numbers(cost: Cost) -> dict[str, Any]:
    return {
        "dataset": cost.recipe.dataset, "model": cost.recipe.model, "recipe": cost.recipe.label,
        "method": cost.setting.method, "alpha": cost.setting.alpha, "density_target": cost.setting.density,
        "machine": cost.machine, "commit": cost.commit, "steps": cost.steps,
        "dense_ms_a_step": cost.milliseconds(0), "sparse_ms_a_step": cost.milliseconds(1), "ratio": cost.ratio,
        "ratio_low": cost.interval[0], "ratio_high": cost.interval[1], "n": len(cost.pairs),
        "run_ids": ";".join(cost.run_ids),
    }  # fmt: skip


def _finding(found: Sequence[Cost]) -> str:
    parts = []
    for method in in_order(cost.setting.method for cost in found):
        of = [cost.ratio for cost in found if cost.setting.method == method]
        spread = f"{min(of):.2f}" if len(of) == 1 else f"{min(of):.2f} to {max(of):.2f}"
        parts.append(f"{method_name(method)} {spread}")
    return f"A training step takes, in times of the dense one on the same machine: {', '.join(parts)}." if parts else ""


def _draw(found: Sequence[Cost]) -> Any:
    groups: dict[tuple[str, str], list[Cost]] = {}
    for cost in found:
        groups.setdefault((cost.recipe.title, machine_name(cost)), []).append(cost)
    tallest = max(len(in_order(c.setting.method for c in members)) for members in groups.values())
    note = "a mark is a setting (an alpha or a density): geometric mean of the paired ratios with 95 % interval"
    figure, axes = panels(len(groups), columns=3, size=(4.3, 1.0 + 0.42 * tallest), title=f"{CAPTION}\n{note}")
    for axis, ((title, machine), members) in zip(axes, groups.items(), strict=True):
        _panel(axis, members, tallest)
        axis.set_title(title, pad=17)
        axis.text(0, 1.04, machine, transform=axis.transAxes, fontsize=7.5, color="#444444")
    return figure


def _panel(axis: Any, members: Sequence[Cost], rows: int) -> None:
    axis.axvline(1, color="#444444", linewidth=0.9)
    methods = in_order(cost.setting.method for cost in members)
    for place, method in enumerate(methods):
        of = [cost for cost in members if cost.setting.method == method]
        for i, cost in enumerate(of):
            y = place + 0.6 * ((i + 0.5) / len(of) - 0.5)
            low, high = cost.interval
            if not math.isnan(low):
                axis.plot([low, high], [y, y], color=mark(method).colour, linewidth=1.3)
            axis.plot([cost.ratio], [y], mark(method).marker, color=mark(method).colour, markersize=5)
    name_rows(axis, list(map(method_name, methods)), most=rows)
    axis.set_xlabel("Seconds a step, times dense")
    axis.set_xlim(left=min(0.9, axis.get_xlim()[0]))
