"""VGG-16 of an eighth of the width: Figures 3 and 5 to 7 in their layout, and the claims of 5.2 and 5.3.

The network is ours (suite cifar10_narrow): these exhibits test what the paper says about training,
not its numbers.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.data.conditions import Condition, Results
from analysis.data.layers_and_curves import history, wide
from analysis.data.selection import count, incomplete, left_out_counts
from analysis.exhibits import figure3, figure4_to_6, figure7
from analysis.exhibits.claims import table as claims
from analysis.output.exhibit import Makers, Written, write_figure
from analysis.output.plotting import ALPHAS, mosaic_figure

NAME = "vgg16-narrow"
WHOLE, WIDTHS = "vgg16", (8, 8, 16, 16, 32, 32, 32, 64, 64, 64, 64, 64, 64, 64)  # those of the suite
MODEL = f"{WHOLE} {'-'.join(map(str, WIDTHS))}"
SCALED_DOWN = "VGG-16 scaled down (1/8 width)"
# their tests hold a network to accuracies or densities that the paper prints
OF_PRINTED_LEVELS = ("fc2-low-until-80", "accuracy-85-92", "fc2-at-40", "accuracy-90-92", "final-remaining")
SCHEDULES = {None: "weights and thresholds", "weights": "weights only", "thresholds": "thresholds only"}
OUTPUT = "density/fc2.weight"


def makers(results: Results) -> Makers:
    return {
        f"{NAME}-figure3": partial(_figure3, results),
        **{f"{NAME}-{figure}": partial(_curves, results, figure) for figure in ("figure5", "figure6")},
        f"{NAME}-figure7": partial(_figure7, results),
        f"{NAME}-schedules": partial(_schedules, results),
        f"{NAME}-claims": partial(_claims, results),
    }


def _figure3(results: Results, out: Path) -> Written:
    title = f"{SCALED_DOWN}, layout of Figure 3: DST for different alpha"
    return figure3.of_models(results, f"{NAME}-figure3", [MODEL], title, out)


def _curves(results: Results, figure: str, out: Path) -> Written:
    dataset, _, alpha, rate = figure4_to_6.FIGURES[figure]
    number = figure.removeprefix("figure")
    title = f"{SCALED_DOWN}, layout of Figure {number}: learning rate {rate:g}, alpha = {alpha:g}"
    return figure4_to_6.of_cell(results, f"{NAME}-{figure}", (dataset, MODEL, alpha, rate), title, out)


def _figure7(results: Results, out: Path) -> Written:
    title = f"{SCALED_DOWN}, layout of Figure 7: the sparse pattern for different alpha"
    return figure7.of_model(results, f"{NAME}-figure7", MODEL, title, out)


def _schedules(results: Results, out: Path) -> Written:
    """Figure 5's cell with its learning rate decaying for all parameters, for the weights only, for thresholds only."""
    title = f"{SCALED_DOWN}: whose learning rate decays"
    dataset, _, alpha, rate = figure4_to_6.FIGURES["figure5"]
    found: dict[str | None, Condition] = {}
    for c in results.conditions:
        same = (c.dataset, c.model, c.method, c.alpha, c.learning_rate) == (dataset, MODEL, "dst", alpha, rate)
        if same and c.whole_data and c.as_published and len(c.done):
            found.setdefault(c.spec["optimizer"].get("schedule_of"), c)
    chosen = {of: found[of] for of in SCHEDULES if of in found}
    if set(chosen) <= {None}:
        return Written(name=f"{NAME}-schedules", title=title, remark="not run")
    common = set.intersection(*(set(c.done["seed"]) for c in chosen.values()))
    if not common:
        return Written(name=f"{NAME}-schedules", title=title, remark="not run with a seed in common")
    chosen = {of: replace(c, rows=c.rows[c.rows["seed"].isin(common)]) for of, c in chosen.items()}
    curves = [history(results.tables, c, None).assign(decays=SCHEDULES[of]) for of, c in chosen.items()]
    data = pd.concat(curves, ignore_index=True)
    data = data[data["step"].isna()]
    if not (data["name"] == OUTPUT).any():
        return Written(name=f"{NAME}-schedules", title=title, remark="no traces.csv beside the results of its runs")
    milestones = next(iter(chosen.values())).spec["optimizer"]["milestones"]
    legend = f"{count(list(chosen.values()))}; {figure4_to_6.SEEDS}; {figure4_to_6.DECAY}"
    names = data[["run_id", "decays"]].drop_duplicates()
    return write_figure(
        f"{NAME}-schedules", wide(data).merge(names, on="run_id"), _draw(data, f"{title}\n{legend}", milestones), out,
        title=title, run_ids=data["run_id"].unique(), finding=_finding(data, milestones[0]),
        remarks=[*incomplete(chosen.values()), *left_out_counts(results, list(chosen.values()))],
    )  # fmt: skip


def _draw(data: pd.DataFrame, title: str, milestones: list[int]) -> Any:
    """The output layer's and the model's remaining ratio and the accuracy, a line for each schedule."""
    figure, axes = mosaic_figure([["output"], ["model"], ["accuracy"]], (8.4, 7.2), title)
    panels = {
        "output": (OUTPUT, "FC 2, the output layer", figure4_to_6.RATIO),
        "model": ("density", "Model", figure4_to_6.RATIO),
        "accuracy": ("test_accuracy", "Accuracy", figure4_to_6.ACCURACY),
    }
    for panel, (name, heading, unit) in panels.items():
        axis, ends = axes[panel], []
        for of, colour in zip(SCHEDULES.values(), ALPHAS[1:4], strict=True):
            curve = data[(data["name"] == name) & (data["decays"] == of)]
            if len(curve):
                figure4_to_6.lines(axis, curve, "epoch", colour)
                ends.append((figure4_to_6.end(curve, "epoch"), of, colour))
        for epoch in milestones:
            axis.axvline(epoch, color="#888888", linewidth=0.9, linestyle=":", zorder=1)
        if unit == figure4_to_6.RATIO:
            axis.set_ylim(-0.02, 1.03)
        axis.set(title=heading, ylabel=unit, xlim=(data["epoch"].min(), data["epoch"].max()))
        figure4_to_6.label_lines(axis, ends)
    axes["accuracy"].set_xlabel("Epoch")
    return figure


def _finding(data: pd.DataFrame, decay: int) -> str:
    """What the output layer keeps before the first decay, ten epochs after it and at the end."""
    said = []
    ratios = data[data["name"] == OUTPUT].groupby(["decays", "epoch"], sort=False)["value"].mean()
    for of in dict.fromkeys(data["decays"]):
        curve = ratios[of]
        epochs = [epoch for epoch in (decay, decay + 10, curve.index.max()) if epoch in curve.index]
        kept = ", ".join(f"{100 * curve[epoch]:.3g} % at epoch {epoch:.0f}" for epoch in dict.fromkeys(epochs))
        said.append(f"{of}: {kept}")
    return f"What FC 2 keeps where the learning rate decays for {'; for '.join(said)}."


def as_vgg16(results: Results) -> Results:
    """Only this network's rows, without their widths, so that the claims about VGG-16 read them."""
    rows = results.tables.results
    trees = [json.loads(spec) for spec in rows["spec"]]
    own = [(t["model"]["name"], tuple(t["model"].get("widths") or ())) == (WHOLE, WIDTHS) for t in trees]
    for tree in trees:
        tree["model"].pop("widths", None)
    whole = rows.assign(spec=[json.dumps(tree) for tree in trees])
    return Results(replace(results.tables, results=whole[np.array(own, dtype=bool)]))


def _claims(results: Results, out: Path) -> Written:
    title = f"{SCALED_DOWN}: the claims of sections 5.2 and 5.3"
    narrow = as_vgg16(results)
    if not any(len(c.done) for c in narrow.conditions if c.method == "dst"):
        return Written(name=f"{NAME}-claims", title=title, remark="not run")
    tested = [c for c in claims.claims() if c.section in ("5.2", "5.3")]
    left_out = [c.claim for c in tested if c.id in OF_PRINTED_LEVELS]
    chosen = [c for c in tested if c.id not in OF_PRINTED_LEVELS]
    notes = (
        "VGG-16 stands for the network of an eighth of the width, which is ours. A result describes its training and "
        "is no verdict on the paper's numbers.",
        f"Left out, because their tests ask for levels that the paper prints: {'; '.join(left_out)}.",
    )
    return claims.write(narrow, out, name=f"{NAME}-claims", title=title, chosen=chosen, notes=(*notes, *claims.NOTES))
