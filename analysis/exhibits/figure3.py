"""The paper's Figure 3: accuracy and remaining ratio by alpha, with the dense baseline as a band."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.canvas import canvas, greek, say
from analysis.epochs import headline
from analysis.palette import DENSE, MODEL, SPARSE
from analysis.settings import Setting, Summary

COLUMNS = {
    "best": {"accuracy": "best_test_accuracy", "ratio": "density_at_best_test_accuracy"},
    "last": {"accuracy": "test_accuracy", "ratio": "density"},
}
NOTABLE = 0.05  # the remaining ratio under which section 4.2 sees accuracy drop


@dataclass(frozen=True)
class Ladder:
    """A model's settings over alpha, each alpha once, and its dense twin: one panel."""

    label: str
    model: str
    settings: tuple[Setting, ...]
    dense: Setting | None

    def summaries(self, what: str) -> list[tuple[float, Summary]]:
        """(alpha, "accuracy" in percent or "ratio" over its seeds) of what is done, at the headline epoch."""
        column = COLUMNS[headline(self.model)][what]
        return [(s.alpha or 0.0, s.summary(column)) for s in self.settings if len(s.done)]


def rows(ladders: Sequence[Ladder]) -> pd.DataFrame:
    """A row a cell, those that are not done too: accuracy and ratio of the epoch shown, and of the last."""
    kept = ("run_id", "seed", "status", "test_accuracy", "density")
    parts = []
    for ladder in ladders:
        shown = headline(ladder.model)
        for setting in (*ladder.settings, *([] if ladder.dense is None else [ladder.dense])):
            part = setting.rows[list(kept)].rename(
                columns={"test_accuracy": "last_test_accuracy", "density": "last_density"}
            )
            given = {"panel": ladder.label, "model": setting.model, "method": setting.method, "alpha": setting.alpha}
            named = {
                "test_accuracy": setting.rows[COLUMNS[shown]["accuracy"]],
                "density": setting.rows[COLUMNS[shown]["ratio"]],
            }
            parts.append(part.assign(**given, epoch_shown=shown, **named))
    order = ["panel", "model", "method", "alpha", "run_id", "seed", "status", "epoch_shown"]
    order += ["test_accuracy", "density", "last_test_accuracy", "last_density"]
    return pd.concat([p.astype({"alpha": float, "seed": int}) for p in parts], ignore_index=True)[order]


def by_alpha(ladders: Sequence[Ladder], title: str) -> Any:
    """A column a ladder: accuracy above, remaining ratio below, at most three abreast."""
    columns = 2 if len(ladders) == 4 else min(3, len(ladders))
    mosaic: list[list[str]] = []
    for start in range(0, len(ladders), columns):
        abreast = [str(i) for i in range(start, min(start + columns, len(ladders)))]
        gap = ["."] * (columns - len(abreast))
        mosaic += [[f"accuracy{i}" for i in abreast] + gap, [f"ratio{i}" for i in abreast] + gap]
    size = (max(7.0, 3.4 * columns + 0.4), 0.9 + 1.9 * len(mosaic))
    figure, axes = canvas(mosaic, size, title)
    for i, ladder in enumerate(ladders):
        _panel(axes[f"accuracy{i}"], axes[f"ratio{i}"], ladder, first=i % columns == 0)
    return figure


def _panel(upper: Any, lower: Any, ladder: Ladder, *, first: bool) -> None:
    upper.set_title(ladder.label)
    alphas = [s.alpha for s in ladder.settings if s.alpha]
    accuracy, ratio = ladder.summaries("accuracy"), ladder.summaries("ratio")
    for axis in (upper, lower):
        _log_alphas(axis, alphas or [1e-9, 1e-4])
        if not accuracy:
            say(axis, "not run")
            axis.set_yticks([])
    _dense_band(upper, ladder)
    _points(upper, accuracy, SPARSE)
    _points(lower, ratio, MODEL)
    _ratio_scale(lower, [s.mean + (s.sd if s.n > 1 else 0) for _, s in ratio])
    lower.set_xlabel("α, log scale")
    upper.tick_params(labelbottom=False)
    if first:
        upper.set_ylabel("Test accuracy (%)")
        lower.set_ylabel("Model remaining ratio")
    _partial(lower, ladder)


def _log_alphas(axis: Any, alphas: Sequence[float]) -> None:
    """A log scale with a tick a decade, or at the alphas themselves where they span less than two."""
    axis.set_xscale("log")
    axis.set_xlim(min(alphas) / 1.8, max(alphas) * 1.8)
    axis.minorticks_off()
    if max(alphas) < 100 * min(alphas):
        axis.set_xticks(alphas, [greek(f"{alpha:g}") for alpha in alphas], rotation=90 if len(alphas) > 4 else 0)


def _dense_band(axis: Any, ladder: Ladder) -> None:
    """Mean ± standard deviation of the dense twin, across the panel."""
    if ladder.dense is None or not len(ladder.dense.done):
        return
    summary = ladder.dense.summary(COLUMNS[headline(ladder.model)]["accuracy"])
    axis.axhline(summary.mean, color=DENSE, linewidth=1.2, linestyle="--", zorder=1.5)
    if summary.n > 1:
        axis.axhspan(summary.mean - summary.sd, summary.mean + summary.sd, color=DENSE, alpha=0.22, linewidth=0)


def _points(axis: Any, summaries: Sequence[tuple[float, Summary]], colour: Any) -> None:
    if summaries:
        spread = [s.sd if s.n > 1 else 0.0 for _, s in summaries]
        axis.errorbar(
            [alpha for alpha, _ in summaries], [s.mean for _, s in summaries], yerr=spread, color=colour,
            marker="o", markersize=4, linewidth=1.5, elinewidth=1, capsize=2, zorder=3,
        )  # fmt: skip


def _ratio_scale(axis: Any, tops: Sequence[float]) -> None:
    """From 0 to 1, as the paper's; less where every ratio is small."""
    if tops:
        axis.axhline(NOTABLE, color="#888888", linewidth=0.9, linestyle=":", zorder=1)
        axis.set_ylim((-0.02, 1.03) if max(tops) > 0.5 else (0, 1.15 * max(*tops, NOTABLE)))


def _partial(axis: Any, ladder: Ladder) -> None:
    """Alphas with seeds missing, and how many were lost; clear of the falling ratio: early ones low, late ones high."""
    alphas = [s.alpha or 0.0 for s in ladder.settings]
    for setting in ladder.settings:
        n, expected = len(setting.done), len(setting.rows)
        if n == expected or not any(len(s.done) for s in ladder.settings):
            continue
        lost = ", ".join(f"{count} {status}" for status, count in setting.lost().items())
        text = (f"n={n}/{expected}" if n else "not run") + (f", {lost}" if lost else "")
        late = (setting.alpha or 0.0) > math.sqrt(min(alphas) * max(alphas))
        axis.text(
            setting.alpha, 0.96 if late else 0.1, text, transform=axis.get_xaxis_transform(), rotation=90,
            fontsize=7, ha="center", va="top" if late else "bottom", color="#555555",
        )  # fmt: skip


def finding(ladders: Sequence[Ladder]) -> str:
    """For each model: how the ratio falls with alpha, and the accuracy against dense at both ends."""
    return "; ".join(_finding(ladder) for ladder in ladders) + "."


def _finding(ladder: Ladder) -> str:
    accuracy, ratio = ladder.summaries("accuracy"), ladder.summaries("ratio")
    if not accuracy:
        return f"{ladder.label}: not run"
    text = (
        f"{ladder.label}: {_span('alpha', [alpha for alpha, _ in accuracy], '', 'g')}, the model keeps "
        f"{_span('', [100 * s.mean for _, s in ratio], ' %', '.3g')} of its weights and reaches "
        f"{_span('', [s.mean for _, s in accuracy], ' %', '.2f')} accuracy"
    )
    if len(accuracy) > 1:
        alpha, best = max(accuracy, key=lambda pair: pair[1].mean)
        text += f", the highest {best.mean:.2f} % at alpha {alpha:g}"
    if ladder.dense is not None and len(ladder.dense.done):
        column = COLUMNS[headline(ladder.model)]["accuracy"]
        text += f", dense {statistics.fmean(ladder.dense.done[column]):.2f} %"
    return text


def _span(name: str, values: Sequence[float], unit: str, form: str) -> str:
    """First to last, or the only one."""
    first, last = (f"{values[at]:{form}}" for at in (0, -1))
    if len(values) > 1:
        return f"from {name} {first} to {last}{unit}" if name else f"{first} to {last}{unit}"
    return f"at {name} {first}{unit}" if name else f"{first}{unit}"
