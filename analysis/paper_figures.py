"""Figures 1 to 12, and their like for what the paper has no figure of: which cells, under which caption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import alpha_figures, figures, findings, masked_layer, paper, pattern_figures
from analysis.alpha_figures import Ladder
from analysis.exhibit import Maker, Results, Written, write_figure
from analysis.figures import Marks
from analysis.histories import history, pattern, wide
from analysis.selection import (
    count,
    dst_settings,
    incomplete,
    left_out_counts,
    models_of,
    of_dataset,
    one_each_alpha,
    protocol_note,
    three,
)
from analysis.settings import Setting, dense_twin

FIGURE_3 = ("vgg16", "wrn-16-8", "wrn-28-8")
CURVES = {  # name: model, alpha, initial learning rate
    "figure5": ("vgg16", 5e-6, 0.1),
    "figure6": ("vgg16", 5e-6, 0.01),
    "figure8": ("wrn-16-8", 1e-5, 0.1),
    "figure9": ("wrn-16-10", 1e-5, 0.1),
    "figure10": ("wrn-28-8", 1e-5, 0.1),
}
PATTERNS = {"figure7": "vgg16", "figure11": "wrn-16-8", "figure12": "wrn-16-10"}
PATTERN_ALPHAS = (1e-6, 5e-6, 1e-5)  # ours: the paper's text does not name the three
DEFAULT_ALPHA = 5e-6  # appendix A.1
FIRST_CONVOLUTIONS = 5  # of a WRN, and the output layer: appendix A.4
NOT_PAPER = "not the paper's"
SEEDS = "thin lines: seeds, bold lines: their mean"
BANDS = "lines: mean over seeds, bands: ± standard deviation"
DECAY = "dotted: the learning rate decays"
PRINTED_IN = {"figure4": "Table 1", "figure5": "section 5.2", "figure6": "section 5.2"}


def makers(results: Results) -> dict[str, Maker]:
    """name -> what writes it: the paper's twelve, then ours in their layout."""
    found: dict[str, Maker] = {
        "figure1": _figure1,
        "figure2": _figure2,
        "figure3": partial(_figure3, results),
        "figure4": partial(_figure4, results),
        "figure5": partial(_by_epoch, results, "figure5", None),
        "figure6": partial(_by_epoch, results, "figure6", None),
        "figure7": partial(_sparse_pattern, results, "figure7"),
        **{f"figure{i}": partial(_by_epoch, results, f"figure{i}", None) for i in (8, 9, 10)},
        **{f"figure{i}": partial(_sparse_pattern, results, f"figure{i}") for i in (11, 12)},
        **{f"figure{i}-default-alpha": partial(_by_epoch, results, f"figure{i}", DEFAULT_ALPHA) for i in (8, 9, 10)},
        "mnist-figure3": partial(_own_figure3, results, "mnist"),
        "mnist-figure7": partial(_own_figure7, results, "mnist"),
    }
    for dataset in sorted({s.dataset for s in results.settings} - set(paper.DATASETS)):
        found[f"{dataset}-figure3"] = partial(_own_figure3, results, dataset)
        found[f"{dataset}-figure4"] = partial(_own_figure4, results, dataset)
        found[f"{dataset}-figure7"] = partial(_own_figure7, results, dataset)
    return found


def _figure1(out: Path) -> Written:
    data, caption = masked_layer.example(), paper.CAPTIONS["figure1"]
    drawn = masked_layer.draw_masked_layer(
        data,
        f"{caption}\nour drawing of equations 1 and 2, with example values; grey: forward, orange: gradients (A.3)",
    )
    finding = (
        f"Of {len(data)} example weights, {data['M'].sum()} exceed the threshold of their row and stay in the product "
        "of weights and mask; the mask is the step function of |W| - t, and gradients return through H(Q)."
    )
    return write_figure("figure1", data, drawn, out, title=caption, run_ids=(), finding=finding)


def _figure2(out: Path) -> Written:
    data, caption = masked_layer.estimators(), paper.CAPTIONS["figure2"]
    drawn = masked_layer.draw_estimators(data, caption)
    finding = (
        "The step's own derivative is an impulse; the straight-through estimator is 1 on [-1, 1]; the long-tailed one "
        f"falls from {data['long_tailed'].max():g} at 0 to 0.4 at 0.4 and stays there up to 1."
    )
    return write_figure("figure2", data, drawn, out, title=caption, run_ids=(), finding=finding)


def _figure3(results: Results, out: Path) -> Written:
    ladders = []
    for model in FIGURE_3:
        chosen = one_each_alpha(dst_settings(results, "cifar10", model, lr=0.1, done=False))
        ladders.append(_ladder(results, model, chosen))
    return _by_alpha(results, "figure3", ladders, paper.CAPTIONS["figure3"], out)


def _own_figure3(results: Results, dataset: str, out: Path) -> Written:
    """A panel for each model, and for each protocol where its cells differ."""
    ladders = []
    for model in models_of(results, dataset):
        own = [s for s in of_dataset(results, dataset) if s.model == model]
        for protocols in sorted({s.protocols for s in own}, key=lambda p: p[:1] != ("paper",)):
            ladders.append(_ladder(results, model, one_each_alpha(s for s in own if s.protocols == protocols)))
    title = f"{_named(dataset)}, layout of Figure 3: DST for different alpha"
    return _by_alpha(results, f"{dataset}-figure3", ladders, title, out)


def _ladder(results: Results, model: str, chosen: tuple[Setting, ...]) -> Ladder:
    label = paper.ARCHITECTURES.get(model, model)
    if not chosen:
        return Ladder(label, model, (), None)
    label += ", official" if protocol_note(chosen[0]) else ""
    return Ladder(label, model, chosen, dense_twin(chosen[0], results.settings))


def _by_alpha(results: Results, name: str, ladders: Sequence[Ladder], title: str, out: Path) -> Written:
    every = [s for ladder in ladders for s in ladder.settings]
    if not any(len(s.done) for s in every):
        return Written(name=name, title=title, remark="not run")
    data = alpha_figures.rows([ladder for ladder in ladders if ladder.settings])
    lstm = [ladder.model.startswith("lstm") for ladder in ladders]
    shown = "epoch of best test accuracy" if not all(lstm) else "last epoch"
    shown += " (LSTM: last)" if any(lstm) and not all(lstm) else ""
    legend = f"{shown}; mean ± standard deviation over seeds, {count(every)}\n"
    legend += "dashed, grey band: dense baseline; dotted: 5 % remaining"
    drawn = alpha_figures.by_alpha(ladders, f"{title}\n{legend}")
    used = data.loc[data["status"] == "done", "run_id"]
    missing = [f"{ladder.label} not run" for ladder in ladders if not any(len(s.done) for s in ladder.settings)]
    written = write_figure(
        name, data, drawn, out, title=title, run_ids=list(used), finding=alpha_figures.finding(ladders)
    )
    return _remarked(written, [*missing, *incomplete(every), *left_out_counts(results, every)])


def _figure4(results: Results, out: Path) -> Written:
    chosen = dst_settings(results, "mnist", "lenet-300-100", alpha=5e-4)
    return _curves(results, "figure4", chosen, figures.by_step_and_epoch, paper.CAPTIONS["figure4"], out)


def _own_figure4(results: Results, dataset: str, out: Path) -> Written:
    every = [s for s in of_dataset(results, dataset) if len(s.done)]
    every = sorted(every, key=lambda s: s.model != "lenet-300-100")
    name = (
        f"{paper.ARCHITECTURES.get(every[0].model, every[0].model)}, DST, alpha = {every[0].alpha:g}" if every else ""
    )
    title = f"{_named(dataset)}, layout of Figure 4: {name}"
    return _curves(results, f"{dataset}-figure4", every, figures.by_step_and_epoch, title, out)


def _by_epoch(results: Results, name: str, other_alpha: float | None, out: Path) -> Written:
    model, alpha, rate = CURVES[name]
    caption = paper.CAPTIONS[name]
    if other_alpha is not None:
        caption = (
            f"As Figure {name.removeprefix('figure')}, at appendix A.1's default alpha: {paper.ARCHITECTURES[model]}"
        )
        name = f"{name}-default-alpha"
    chosen = dst_settings(results, "cifar10", model, alpha=other_alpha or alpha, lr=rate)
    return _curves(results, name, chosen, figures.by_epoch, caption, out)


def _curves(
    results: Results,
    name: str,
    chosen: Sequence[Setting],
    draw: Callable[[pd.DataFrame, str, Marks], Any],
    title: str,
    out: Path,
) -> Written:
    if not chosen:
        return Written(name=name, title=title, remark="not run")
    sparse, dense = chosen[0], dense_twin(chosen[0], results.settings)
    data = history(results.tables, sparse, dense)
    if not (data["name"] == "density").any():
        return Written(name=name, title=title, remark="no traces.csv beside the results of its runs")
    if sparse.model.startswith("wrn"):
        data = _first_and_output(data)
    printed = _printed(name)
    marks = Marks(tuple(sparse.spec["optimizer"].get("milestones") or ()), printed)
    explained = [
        SEEDS if len(sparse.done) <= figures.MANY_SEEDS else BANDS,
        *([DECAY] if marks.milestones else []),
        *([f"◇ as printed in {PRINTED_IN[name]}"] if printed else []),
    ]
    legend = "; ".join([f"{protocol_note(sparse)}{count([sparse])}", *explained])
    drawn = draw(data, f"{title}\n{legend}", marks)
    finding = findings.of_curves(data, marks.milestones)
    written = write_figure(
        name, wide(data), drawn, out, title=title, run_ids=list(data["run_id"].unique()), finding=finding
    )
    both = [sparse, *([] if dense is None else [dense])]
    return _remarked(written, [*incomplete(both), *left_out_counts(results, both)])


def _first_and_output(data: pd.DataFrame) -> pd.DataFrame:
    """A WRN's first five convolutions and its output layer, of all layers."""
    layers = [name for name in data["name"].unique() if name.startswith("density/")]
    return data[~data["name"].isin(layers[FIRST_CONVOLUTIONS:-1])]


def _printed(name: str) -> dict[str, float]:
    """What the paper prints of these cells: with the figure, or in Table 1."""
    of = paper.targets("table1")[:1] if name == "figure4" else paper.targets(name)
    found: dict[str, float] = {}
    for target in of:
        percent = target.density_percent
        values = {"density": percent and percent / 100, "sparse": target.sparse, "dense": target.dense}
        found |= {key: value for key, value in values.items() if value is not None}
    return found


def _sparse_pattern(results: Results, name: str, out: Path) -> Written:
    every = dst_settings(results, "cifar10", PATTERNS[name], lr=0.1)
    chosen = [s for s in one_each_alpha(every) if s.alpha in PATTERN_ALPHAS] or three(every)
    legend = "the three α are our choice, the paper's text names none; bars: mean, dots: seeds"
    if not any(s.alpha in PATTERN_ALPHAS for s in chosen):
        return _pattern(results, name, chosen, paper.CAPTIONS[name], legend, out)
    wanted = [(PATTERNS[name], alpha) for alpha in PATTERN_ALPHAS]
    return _pattern(results, name, chosen, paper.CAPTIONS[name], legend, out, wanted=wanted)


def _own_figure7(results: Results, dataset: str, out: Path) -> Written:
    chosen = []
    for model in models_of(results, dataset):
        own = [s for s in of_dataset(results, dataset) if s.model == model and len(s.done)]
        own = [s for s in own if s.protocols[:1] == own[0].protocols[:1]]
        chosen += three(one_each_alpha(own))
    title = f"{_named(dataset)}, layout of Figure 7: the sparse pattern of DST"
    return _pattern(results, f"{dataset}-figure7", chosen, title, "bars: mean, dots: seeds", out)


def _pattern(
    results: Results,
    name: str,
    chosen: Sequence[Setting],
    title: str,
    legend: str,
    out: Path,
    *,
    wanted: Sequence[tuple[str, float]] = (),
) -> Written:
    if not chosen:
        return Written(name=name, title=title, remark="not run")
    data = pattern(results.tables, chosen)
    if data.empty:
        return Written(name=name, title=title, remark="no layers.csv beside the results of its runs")
    counts = dict.fromkeys(wanted, "not run") | {(s.model, s.alpha or 0.0): count([s]) for s in chosen}
    draw = pattern_figures.one_model if name in PATTERNS else pattern_figures.several_models
    drawn = draw(data, f"{title}\n{protocol_note(chosen[0])}{legend}", counts)
    finding = findings.of_pattern(data)
    written = write_figure(name, data, drawn, out, title=title, run_ids=list(data["run_id"].unique()), finding=finding)
    missing = [f"alpha {alpha:g}: not run" for (_, alpha), seeds in counts.items() if seeds == "not run"]
    return _remarked(written, [*missing, *incomplete(chosen), *left_out_counts(results, chosen)])


def _named(dataset: str) -> str:
    return dataset.upper() if dataset in paper.DATASETS else f"{dataset} ({NOT_PAPER} data)"


def _remarked(written: Written, remarks: Sequence[str]) -> Written:
    return replace(written, remark="; ".join(remarks))
