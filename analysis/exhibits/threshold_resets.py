"""The saw-tooth: what a network keeps at the end of each epoch where DST resets thresholds.

Appendix A.1: a layer that keeps less than 1 % of its weights gets all its thresholds back to 0. The
thresholds then rise again, and the layer is pruned and reset once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.data.comparable import Group, groups, of_protocols
from analysis.data.conditions import Condition, Results
from analysis.data.layers_and_curves import by_epoch, of_common_seeds
from analysis.data.read import Tables
from analysis.exhibits.accuracy_density_and_flops import printed_for
from analysis.output.exhibit import Makers, Written, write_figure
from analysis.output.plotting import LAYERS, MODEL, SPARSE, greek, mosaic_figure, plain_log
from analysis.paper import printed

NAME = "threshold-resets"
TITLE = "Weights kept at the end of each epoch, and the resets of thresholds (not in the paper)"
KEPT, ACCURACY = "density_percent", "test_accuracy"
NOTHING = "no cell with a reset of thresholds and traces.csv"
ALIASED = (
    "Resets follow each other in less than an epoch, so the epochs end at different places between two resets. This is "
    "why the density seems to {drift} over several epochs: from one epoch's end to the next it falls {falls} times and "
    "rises {rises} times."
)
PER_ROW = 5  # panels
SHADE = 0.16  # of an epoch with one reset; twice as dark with two


@dataclass(frozen=True)
class Saw:
    """A condition in which layers were reset, and its epochs.

    epochs: one row per seed and epoch: run_id, seed, epoch, density_percent, resets (in the epoch),
    test_accuracy.
    """

    group: Group
    condition: Condition
    epochs: pd.DataFrame

    @property
    def seeds(self) -> list[int]:
        return sorted(int(seed) for seed in self.epochs["seed"].unique())

    @property
    def reset_below_percent(self) -> float:
        return 100 * float(self.condition.spec["method"]["reset_density"])

    def of(self, seed: int) -> pd.DataFrame:
        return self.epochs[self.epochs["seed"] == seed]


def makers(results: Results) -> Makers:
    """One figure for each network of a data set in which a layer was reset."""
    found = [saw for group in of_protocols(groups(results.conditions)) for saw in saws(results.tables, group)]
    if not found:
        return {NAME: lambda out: Written(name=NAME, title=TITLE, remark=NOTHING)}
    networks = dict.fromkeys((saw.group.dataset, saw.group.model) for saw in found)
    return {
        f"{dataset}-{model}-resets": partial(
            _write, [s for s in found if (s.group.dataset, s.group.model) == (dataset, model)], results
        )
        for dataset, model in networks
    }


def saws(tables: Tables, group: Group) -> list[Saw]:
    """The DST conditions of a group with a reset in some seed, by alpha."""
    found = []
    for condition in group.of("dst"):
        if (condition.done["threshold_resets"] > 0).any():
            epochs = _epochs(tables, condition)
            found += [Saw(group, condition, epochs)] if len(epochs) else []
    return found


def _epochs(tables: Tables, condition: Condition) -> pd.DataFrame:
    names = {"density": KEPT, "threshold_resets": "resets", "test_accuracy": ACCURACY}
    curves = of_common_seeds([by_epoch(tables, condition, name) for name in names])
    recorded = dict(zip(names.values(), curves, strict=True))
    if recorded[KEPT].empty:
        return pd.DataFrame()
    recorded[KEPT] = 100 * recorded[KEPT]
    counted = recorded["resets"]
    recorded["resets"] = counted.diff().fillna(counted.iloc[:1])
    columns = {name: table.melt(ignore_index=False)["value"] for name, table in recorded.items()}
    place = recorded[KEPT].melt(ignore_index=False)["seed"]
    rows = pd.DataFrame({"seed": place, **columns}).reset_index().rename_axis(columns=None)
    run_of = dict(zip(condition.done["seed"].astype(int), condition.done["run_id"], strict=True))
    return rows.assign(run_id=rows["seed"].map(run_of)).dropna()


def draw(found: Sequence[Saw], title: str) -> Any:
    """A panel for each seed; each alpha begins a row."""
    rows = [(saw, saw.seeds[k : k + PER_ROW]) for saw in found for k in range(0, len(saw.seeds), PER_ROW)]
    columns = max(len(seeds) for _, seeds in rows)
    mosaic = [[f"{i} {seed}" for seed in seeds] + ["."] * (columns - len(seeds)) for i, (_, seeds) in enumerate(rows)]
    size = (max(6.4, 2.35 * columns + 0.5), 1.0 + 1.95 * len(rows))
    figure, axes = mosaic_figure(mosaic, size, title)
    lowest = min(saw.epochs[KEPT].min() for saw in found)
    for i, (saw, seeds) in enumerate(rows):
        for seed in seeds:
            axis = axes[f"{i} {seed}"]
            _panel(axis, saw, seed)
            axis.set(yscale="log", ylim=(0.6 * lowest, 130))
            plain_log(axis, "y", most=5)
            first = seed == seeds[0]
            axis.set(ylabel="Weights kept (%)" if first else "", xlabel="Epoch" if i == len(rows) - 1 else "")
            axis.set_title(greek(f"α = {saw.condition.alpha:g}, seed {seed}"), fontsize=8.5)
    return figure


def _panel(axis: Any, saw: Saw, seed: int) -> None:
    own = saw.of(seed)
    for epoch, resets in zip(own["epoch"], own["resets"], strict=True):
        if resets:
            axis.axvspan(epoch - 1, epoch, color=SPARSE, alpha=min(0.6, SHADE * resets), linewidth=0, zorder=0)
    for target in printed_for(saw.group):
        axis.axhline(target.density_percent, color=LAYERS[0], linestyle="--", linewidth=1.0, zorder=1)
    axis.plot(own["epoch"], own[KEPT], color=MODEL, marker="o", markersize=2.5, linewidth=1.1, zorder=3)
    lowest, last = own.loc[own[KEPT].idxmin()], own.iloc[-1]
    axis.plot([last["epoch"]], [last[KEPT]], "o", color=MODEL, markersize=5, zorder=4)
    if last["epoch"] != lowest["epoch"]:
        _name(axis, lowest, (0, -9), ha="center")
    _name(axis, last, (4, 0), va="center", fontweight="bold")
    axis.set_xlim(0, 1.24 * own["epoch"].max())  # room for the last epoch's number


def _name(axis: Any, row: pd.Series, offset: tuple[float, float], **look: Any) -> None:
    text, place = f"{row[KEPT]:.2g} %", (row["epoch"], row[KEPT])
    plain = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.4}
    axis.annotate(text, place, offset, textcoords="offset points", fontsize=7, bbox=plain, **look)


def finding(found: Sequence[Saw]) -> str:
    return " ".join(_finding(saw) for saw in found)


def _finding(saw: Saw) -> str:
    by_seed = saw.epochs.groupby("seed")
    resets, last, lowest = by_seed["resets"].sum(), by_seed[KEPT].last(), by_seed[KEPT].min()
    apart = epochs_between_resets(saw)
    text = (
        f"{saw.group.label} at {saw.condition.label}: {_span(resets, 'g')} resets per seed, from the first on, one in "
        f"{apart:.2g} epochs. At the end of an epoch it keeps anything from {saw.epochs[KEPT].min():.2g} to "
        f"{saw.epochs[KEPT].max():.2g} % of its weights; after the last epoch {_span(last, '.2g')} %, in the epoch of "
        f"lowest density {_span(lowest, '.2g')} %."
    )
    falls, rises = falls_and_rises(saw)
    if apart >= 1 or falls == rises:
        return text
    return f"{text} {ALIASED.format(drift='fall' if falls > rises else 'rise', falls=falls, rises=rises)}"


def falls_and_rises(saw: Saw) -> tuple[int, int]:
    """How often the density falls and rises from one epoch's end to the next, in the epochs after each first reset."""
    changes = [
        own[KEPT][own["resets"].cumsum() > 0].diff() for _, own in saw.epochs.sort_values("epoch").groupby("seed")
    ]
    return sum(int((c < 0).sum()) for c in changes), sum(int((c > 0).sum()) for c in changes)


def epochs_between_resets(saw: Saw) -> float:
    """Epochs from the first with a reset to the last, over the resets in them; mean over seeds."""
    since = saw.epochs.groupby("seed")["resets"].agg(lambda resets: (resets.cumsum() > 0).sum())
    return float(since.sum() / saw.epochs["resets"].sum())


def _span(values: pd.Series, form: str) -> str:
    low, high = f"{values.min():{form}}", f"{values.max():{form}}"
    return low if low == high else f"{low} to {high}"


def _write(found: Sequence[Saw], results: Results, out: Path) -> Written:
    dataset, model = found[0].group.dataset, found[0].group.model
    title = f"{printed.architecture(model)}, {printed.dataset(dataset)}: DST. {TITLE}"
    target = next(iter(printed_for(found[0].group)), None)
    dashed = "" if target is None else f" Dashed: the {target.density_percent:g} % that the paper prints."
    legend = (
        f"When a layer keeps less than {found[0].reset_below_percent:g} % of its weights, its thresholds return to 0: "
        "it keeps nearly all of them again, and is pruned again.\n"
        f"Orange: epochs with a reset, the darker the more.{dashed}\n"
        "Large dot, bold number: the last epoch; other number: the sparsest epoch, where it is another."
    )
    lines = [
        saw.epochs.assign(recipe=saw.group.label, alpha=saw.condition.alpha).sort_values(["seed", "epoch"])
        for saw in found
    ]
    order = ["recipe", "alpha", "run_id", "seed", "epoch", KEPT, "resets", ACCURACY]
    data = pd.concat(lines, ignore_index=True)[order].astype({"epoch": int, "resets": int})
    shown = [g for g in of_protocols(groups(results.conditions)) if (g.dataset, g.model) == (dataset, model)]
    without = [c for g in shown for c in g.of("dst") if c not in [saw.condition for saw in found]]
    quiet = ", ".join(dict.fromkeys(c.label for c in without if not c.done["threshold_resets"].any()))
    unseen = ", ".join(dict.fromkeys(c.label for c in without if c.done["threshold_resets"].any()))
    remarks = [f"no reset at {quiet}"] * bool(quiet) + [f"resets, but no traces.csv, at {unseen}"] * bool(unseen)
    return write_figure(
        f"{dataset}-{model}-resets", data, draw(found, f"{title}\n{legend}"), out, title=title,
        run_ids=data["run_id"].unique(), finding=finding(found), remarks=remarks,
    )  # fmt: skip
