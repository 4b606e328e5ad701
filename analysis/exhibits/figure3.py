"""Figure 3, and its like for other data sets: accuracy and remaining ratio by alpha."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.data.comparable import set_up
from analysis.data.conditions import Condition, Results, Summary, dense_twin
from analysis.data.differences import differences
from analysis.data.epochs import ACCURACY, COUNTED, DENSITY
from analysis.data.selection import (
    count,
    dst_conditions,
    dst_of,
    incomplete,
    left_out_counts,
    one_each_alpha,
    protocol_note,
    without_results,
)
from analysis.output.exhibit import Makers, Written, write_figure
from analysis.output.numbers import WIDE_BARS, centre_and_ends, is_wide
from analysis.output.plotting import (
    DENSE,
    MODEL,
    SPARSE,
    greek,
    mosaic_figure,
    panels_abreast,
    plain_log,
    write_in_middle,
)
from analysis.paper import printed

MODELS = ("vgg16", "wrn-16-8", "wrn-28-8")
LEARNING_RATE = 0.1
LEAST_STEP = 0.15  # of the axis, between two ticks whose labels stand side by side
NOTABLE = 0.05  # the remaining ratio under which section 4.2 sees accuracy drop


@dataclass(frozen=True)
class Panel:
    """A model's conditions over alpha above 0, each alpha once, and its dense twin."""

    label: str
    model: str
    conditions: tuple[Condition, ...]
    dense: Condition | None

    @property
    def columns(self) -> dict[str, str]:
        """Of results: those that hold "accuracy" and "ratio" at the last epoch."""
        return {"accuracy": ACCURACY["top1", COUNTED], "ratio": DENSITY[COUNTED]}

    @property
    def is_run(self) -> bool:
        return any(len(c.done) for c in self.conditions)

    def summaries(self, what: str) -> list[tuple[float, Summary]]:
        """(alpha, "accuracy" in percent or "ratio") of what is done, at the last epoch."""
        column = self.columns[what]
        return [(c.alpha or 0.0, c.summary(column)) for c in self.conditions if len(c.done)]


def makers(results: Results) -> Makers:
    """Figure 3; and its like for MNIST and every data set that the paper does not have."""
    others = sorted({c.dataset for c in results.conditions} - set(printed.DATASETS))
    return {
        "figure3": partial(_figure3, results),
        **{f"{dataset}-figure3": partial(_of_dataset, results, dataset) for dataset in ("mnist", *others)},
    }


def rows(panels: Sequence[Panel]) -> pd.DataFrame:
    """One row per cell, done or not: accuracy and ratio of the epoch shown, and of the last."""
    kept = ("run_id", "seed", "status", "test_accuracy", "density")
    parts = []
    for panel in panels:
        for c in (*panel.conditions, *([] if panel.dense is None else [panel.dense])):
            part = c.rows[list(kept)].rename(columns={"test_accuracy": "last_test_accuracy", "density": "last_density"})
            given = {"panel": panel.label, "model": c.model, "method": c.method, "alpha": c.alpha}
            shown = {"test_accuracy": c.rows[panel.columns["accuracy"]], "density": c.rows[panel.columns["ratio"]]}
            parts.append(part.assign(**given, epoch_shown=COUNTED, **shown))
    order = ["panel", "model", "method", "alpha", "run_id", "seed", "status", "epoch_shown"]
    order += ["test_accuracy", "density", "last_test_accuracy", "last_density"]
    return pd.concat([p.astype({"alpha": float, "seed": int}) for p in parts], ignore_index=True)[order]


def draw(panels: Sequence[Panel], title: str) -> Any:
    """For each panel accuracy above and remaining ratio below, at most three abreast."""
    columns = panels_abreast(len(panels), 3)
    mosaic: list[list[str]] = []
    for start in range(0, len(panels), columns):
        abreast = [str(i) for i in range(start, min(start + columns, len(panels)))]
        gap = ["."] * (columns - len(abreast))
        mosaic += [[f"accuracy{i}" for i in abreast] + gap, [f"ratio{i}" for i in abreast] + gap]
    size = (max(8.0, 3.4 * columns + 0.4), 0.9 + 1.9 * len(mosaic))
    figure, axes = mosaic_figure(mosaic, size, title)
    for i, panel in enumerate(panels):
        _draw_panel(axes[f"accuracy{i}"], axes[f"ratio{i}"], panel, first=i % columns == 0)
    return figure


def _draw_panel(upper: Any, lower: Any, panel: Panel, *, first: bool) -> None:
    upper.set_title(panel.label)
    alphas = [c.alpha for c in panel.conditions if c.alpha]
    accuracy, ratio = panel.summaries("accuracy"), panel.summaries("ratio")
    for axis in (upper, lower):
        _log_alphas(axis, alphas or [1e-9, 1e-4])
        if not accuracy:
            write_in_middle(axis, without_results(panel.conditions))
            axis.set_yticks([])
    _dense_band(upper, panel)
    _points(upper, accuracy, SPARSE)
    _points(lower, ratio, MODEL)
    _ratio_scale(lower, [s for _, s in ratio])
    lower.set_xlabel("α, log scale")
    upper.tick_params(labelbottom=False)
    if first:
        upper.set_ylabel("Test accuracy (%)")
        lower.set_ylabel("Model remaining ratio")
    _partial(lower, panel)


def _log_alphas(axis: Any, alphas: Sequence[float]) -> None:
    """A log scale with a tick per decade; a tick per alpha below a span of two decades."""
    axis.set_xscale("log")
    ends = min(alphas) / 1.8, max(alphas) * 1.8
    axis.set_xlim(*ends)
    axis.minorticks_off()
    if max(alphas) < 100 * min(alphas):
        steps = [math.log(after / before) for before, after in pairwise(alphas)]
        upright = any(step < LEAST_STEP * math.log(ends[1] / ends[0]) for step in steps)
        axis.set_xticks(alphas, [greek(f"{alpha:g}") for alpha in alphas], rotation=90 if upright else 0)


def _dense_band(axis: Any, panel: Panel) -> None:
    """Mean ± standard deviation of the dense twin, across the panel."""
    if panel.dense is None or not len(panel.dense.done):
        return
    summary = panel.dense.summary(panel.columns["accuracy"])
    axis.axhline(summary.mean, color=DENSE, linewidth=1.2, linestyle="--", zorder=1.5)
    if summary.n > 1:
        axis.axhspan(summary.mean - summary.sd, summary.mean + summary.sd, color=DENSE, alpha=0.22, linewidth=0)


def _points(axis: Any, summaries: Sequence[tuple[float, Summary]], colour: Any) -> None:
    if summaries:
        centres, lows, highs = zip(*(centre_and_ends(s) for _, s in summaries), strict=True)
        ends = [[c - low for c, low in zip(centres, lows, strict=True)],
                [high - c for c, high in zip(centres, highs, strict=True)]]  # fmt: skip
        axis.errorbar(
            [alpha for alpha, _ in summaries], centres, yerr=ends, color=colour,
            marker="o", markersize=4, linewidth=1.5, elinewidth=1, capsize=2, zorder=3,
        )  # fmt: skip


def _ratio_scale(axis: Any, ratios: Sequence[Summary]) -> None:
    """From 0 to 1, as in the paper; less where every ratio is small.

    Logarithmic where seeds differ so much that small ratios would all look like 0.
    """
    if not ratios:
        return
    axis.axhline(NOTABLE, color="#888888", linewidth=0.9, linestyle=":", zorder=1)
    _, lows, highs = zip(*map(centre_and_ends, ratios), strict=True)
    if any(map(is_wide, ratios)) and min(lows) > 0:
        axis.set(yscale="log", ylim=(0.7 * min(*lows, NOTABLE), min(1.3, 1.4 * max(*highs, NOTABLE))))
        plain_log(axis, "y", most=5)
    else:
        axis.set_ylim((-0.02, 1.03) if max(highs) > 0.5 else (0, 1.15 * max(*highs, NOTABLE)))


def _partial(axis: Any, panel: Panel) -> None:
    """Marks alphas with seeds missing or lost, where the falling ratio leaves room."""
    alphas = [c.alpha or 0.0 for c in panel.conditions]
    for c in panel.conditions if panel.is_run else ():
        if len(c.done) == len(c.rows):
            continue
        lost = ", ".join(f"{cells} {status}" for status, cells in c.lost().items())
        text = ", ".join(filter(None, [c.seeds if len(c.done) else "" if lost else "not run", lost]))
        late = (c.alpha or 0.0) > math.sqrt(min(alphas) * max(alphas))
        axis.text(
            c.alpha, 0.96 if late else 0.1, text, transform=axis.get_xaxis_transform(), rotation=90,
            fontsize=7, ha="center", va="top" if late else "bottom", color="#555555",
        )  # fmt: skip


def finding(panels: Sequence[Panel]) -> str:
    """For each model: how the ratio falls with alpha, and the accuracy beside dense."""
    return "; ".join(_finding(panel) for panel in panels) + "."


def _finding(panel: Panel) -> str:
    accuracy, ratio = panel.summaries("accuracy"), panel.summaries("ratio")
    if not accuracy:
        return f"{panel.label}: {without_results(panel.conditions)}"
    text = (
        f"{panel.label}: {_alphas([alpha for alpha, _ in accuracy])}, the model keeps "
        f"{_range([100 * centre_and_ends(s)[0] for _, s in ratio], '.3g')} of its weights and reaches "
        f"{_range([s.mean for _, s in accuracy], '.2f')} accuracy"
    )
    if len(accuracy) > 1:
        alpha, best = max(accuracy, key=lambda pair: pair[1].mean)
        text += f", the highest {best.mean:.2f} % at alpha {alpha:g}"
    if panel.dense is not None and len(panel.dense.done):
        text += f", dense {statistics.fmean(panel.dense.done[panel.columns['accuracy']]):.2f} %"
    else:
        text += f", dense {without_results([panel.dense] if panel.dense else [])}"
    return text


def _alphas(values: Sequence[float]) -> str:
    return f"from alpha {values[0]:g} to {values[-1]:g}" if len(values) > 1 else f"at alpha {values[0]:g}"


def _range(values: Sequence[float], form: str) -> str:
    """Percentages, the least to the most: `1.16 to 8.23 %`."""
    least, most = (f"{value:{form}}" for value in (min(values), max(values)))
    return f"{least} %" if least == most else f"{least} to {most} %"


def _figure3(results: Results, out: Path) -> Written:
    return of_models(results, "figure3", MODELS, printed.CAPTIONS["figure3"], out)


def of_models(results: Results, name: str, models: Sequence[str], title: str, out: Path) -> Written:
    """A panel for each of these networks on CIFAR-10, at the learning rate of Figure 3."""
    every = {m: dst_conditions(results, "cifar10", m, learning_rate=LEARNING_RATE, done=False) for m in models}
    panels = [_panel(results, model, one_each_alpha(c for c in found if c.alpha)) for model, found in every.items()]
    return _write(results, name, panels, title, out, [c for found in every.values() for c in found])


def _of_dataset(results: Results, dataset: str, out: Path) -> Written:
    """A panel for each model, for each protocol where its cells differ, and for each other set-up."""
    every = dst_of(results, dataset)
    panels = []
    for model in sorted({c.model for c in every}, key=printed.rank):
        own = [c for c in every if c.model == model and c.alpha]
        for protocols in sorted({c.protocols for c in own}, key=lambda p: p[:1] != ("paper",)):
            alike: dict[str, list[Condition]] = {}
            for c in (c for c in own if c.protocols == protocols):
                alike.setdefault(set_up(c), []).append(c)
            panels += [_panel(results, model, one_each_alpha(members), own[0]) for members in alike.values()]
    title = f"{printed.dataset(dataset)}, layout of Figure 3: DST for different alpha"
    return _write(results, f"{dataset}-figure3", panels, title, out, every)


def _panel(results: Results, model: str, chosen: tuple[Condition, ...], stated: Condition | None = None) -> Panel:
    """stated: the condition from which the label names differences in the set-up."""
    label = printed.architecture(model)
    if not chosen:
        return Panel(label, model, (), None)
    label += ", official" if protocol_note(chosen[0]) else ""
    if stated is not None and stated.protocols == chosen[0].protocols:
        label = ", ".join([label, *differences(chosen[0].spec, stated.spec, without=("alpha",))])
    return Panel(label, model, chosen, dense_twin(chosen[0], results.conditions))


def _write(
    results: Results, name: str, panels: Sequence[Panel], title: str, out: Path, found: Sequence[Condition]
) -> Written:
    """found: the conditions of the panels, and those at alpha 0, which has no place on a logarithmic axis."""
    every = [c for panel in panels for c in panel.conditions]
    names = ", ".join(c.name for c in found if not c.alpha and len(c.done))
    zero = [f"not on the logarithmic axis: {names}"] if names else []
    if not any(panel.is_run for panel in panels):
        return Written(name=name, title=title, remark="; ".join([without_results(every), *zero]))
    data = rows([panel for panel in panels if panel.conditions])
    is_dense = any(panel.dense is not None and len(panel.dense.done) for panel in panels)
    dense = "dashed, grey band: dense baseline" if is_dense else "dense baseline: not run"
    legend = f"last epoch, {count(every)}; {dense}; dotted: 5 % remaining\n"
    legend += f"mean ± standard deviation over seeds; {WIDE_BARS}"
    missing = [f"{panel.label} {without_results(panel.conditions)}" for panel in panels if not panel.is_run]
    return write_figure(
        name, data, draw(panels, f"{title}\n{legend}"), out, title=title,
        run_ids=data.loc[data["status"] == "done", "run_id"], finding=finding(panels),
        remarks=[*missing, *zero, *incomplete(every), *left_out_counts(results, every)],
    )  # fmt: skip
