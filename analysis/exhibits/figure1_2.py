"""Figures 1 and 2: the masked layer and the derivatives of the step, from the paper's equations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.data.conditions import Results
from analysis.output.exhibit import Makers, Written, write_figure
from analysis.output.plotting import DENSE, LAYERS, SPARSE, mosaic_figure
from analysis.paper import printed

# An example layer of three output neurons and four inputs; the values are ours.
WEIGHTS = ((0.8, -0.1, 0.3, -0.6), (0.2, 0.5, -0.4, 0.1), (-0.7, 0.2, 0.1, 0.9))
THRESHOLDS = (0.25, 0.45, 0.3)
GRID = [i / 100 for i in range(-150, 151)]
BLUE = LAYERS[0]


def step(x: float) -> float:
    """S(x) of Figure 2(a), strict as in the authors' code: at the threshold a weight is pruned."""
    return 1.0 if x > 0 else 0.0


def impulse(x: float) -> float:
    """The derivative of S, Figure 2(b): infinite at 0, and 0 everywhere else."""
    return math.inf if x == 0 else 0.0


def straight_through(x: float) -> float:
    """The clip function of Figure 2(c): 1 for |x| <= 1, else 0."""
    return 1.0 if abs(x) <= 1 else 0.0


def long_tailed(x: float) -> float:
    """H(x), eq. 3 and Figure 2(d): 2 - 4|x| up to |x| = 0.4, then 0.4 up to |x| = 1, then 0."""
    return 0.0 if abs(x) > 1 else 0.4 if abs(x) > 0.4 else 2 - 4 * abs(x)


FUNCTIONS = {
    "step": (step, "(a) step function S(x)", (-0.08, 1.3)),
    "impulse": (impulse, "(b) impulse function", (-0.08, 1.3)),
    "straight_through": (straight_through, "(c) straight-through estimator", (-0.13, 2.15)),
    "long_tailed": (long_tailed, "(d) long-tailed estimator H(x)", (-0.13, 2.15)),
}


def makers(results: Results) -> Makers:
    return {"figure1": _figure1, "figure2": _figure2}


def estimators() -> pd.DataFrame:
    """The four functions of Figure 2 on a grid."""
    return pd.DataFrame({"x": GRID, **{name: [f(x) for x in GRID] for name, (f, _, _) in FUNCTIONS.items()}})


def draw_estimators(data: pd.DataFrame, title: str) -> Any:
    figure, axes = mosaic_figure([list(FUNCTIONS)], (10.4, 2.9), title)
    for name, (_, label, limits) in FUNCTIONS.items():
        axis = axes[name]
        axis.set(title=label, xlabel="x", xlim=(-1.5, 1.5), ylim=limits, xticks=(-1, 0, 1))
        if name == "impulse":
            axis.plot((-1.5, 1.5), (0, 0), color=BLUE, linewidth=1.7)
            axis.annotate(
                "", xy=(0, 1.2), xytext=(0, 0), arrowprops={"arrowstyle": "-|>", "color": BLUE, "linewidth": 1.7}
            )
            axis.annotate("infinite at 0", (0, 1.1), xytext=(7, 0), textcoords="offset points", fontsize=8)
            axis.set_yticks((0, 1))
        else:
            _pieces(axis, data["x"], data[name], (0,) if name == "step" else (-1, 1))
    return figure


def _pieces(axis: Any, x: pd.Series, y: pd.Series, jumps: tuple[float, ...]) -> None:
    """A line that breaks where the function jumps, with a thin dotted riser there."""
    for _, piece in y.groupby(y.diff().abs().gt(0.3).cumsum()):
        axis.plot(x[piece.index], piece, color=BLUE, linewidth=1.7)
    for jump in jumps:
        around = y[(x - jump).abs() < 0.011]
        axis.plot((jump, jump), (around.min(), around.max()), color=BLUE, linewidth=0.9, linestyle=":")


def example() -> pd.DataFrame:
    """Equations 1 and 2 on the example layer: one row per weight."""
    rows = []
    for i, (row, t) in enumerate(zip(WEIGHTS, THRESHOLDS, strict=True), start=1):
        for j, w in enumerate(row, start=1):
            q = round(abs(w) - t, 10)
            rows.append({"i": i, "j": j, "W": w, "t": t, "Q": q, "M": int(step(q)), "P": w * step(q)})
    return pd.DataFrame(rows)


def draw_masked_layer(data: pd.DataFrame, title: str) -> Any:
    """W and t on the left, then |W| - t, S and the mask; above, W * M meets the input."""
    figure, axes = mosaic_figure([["all"]], (10.4, 4.8), title)
    axis = axes["all"]
    axis.set(xlim=(0, 21.6), ylim=(-4.9, 4.9), aspect="equal")
    axis.axis("off")
    _matrix(axis, data, "W", (0.2, 1.2), "weights W", "{:.1f}", signed=True)
    _matrix(axis, data[data["j"] == 1], "t", (2.2, -3.7), "thresholds t,\none per row", "{:.2f}", signed=False)
    _matrix(axis, data, "Q", (6.4, -3.7), "Q = |W| − t", "{:.2f}", signed=True)
    _matrix(axis, data, "M", (12.0, -3.7), "mask M = S(Q)", "{:.0f}", signed=False)
    _matrix(axis, data, "P", (14.2, 1.2), "P = W ⊙ M, sparse", "{:.1f}", signed=True)
    _arrows(axis)
    return figure


def _matrix(
    axis: Any, data: pd.DataFrame, name: str, corner: tuple[float, float], label: str, form: str, *, signed: bool
) -> None:
    """A grid of cells with their values, and the name above. corner: lower left."""
    left, bottom = corner
    rows, columns = data["i"].max(), data["j"].max()
    for i, j, value in zip(data["i"], data["j"], data[name], strict=True):
        colour = _shade(value) if signed else (BLUE if name == "M" and value else "#F0F0F0")
        place = (left + j - 1, bottom + rows - i)
        axis.add_patch(_box(place, colour))
        dark = name == "M" and value
        text = form.format(value).replace("-", "−") if value or name != "P" else "0"
        faint = DENSE if name == "P" and not value else "white" if dark else "#222222"
        axis.text(place[0] + 0.5, place[1] + 0.5, text, ha="center", va="center", fontsize=7.5, color=faint)
    axis.text(left + columns / 2, bottom + rows + 0.15, label, ha="center", va="bottom", fontsize=9)


def _box(place: tuple[float, float], colour: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(place, 1, 1, facecolor=colour, edgecolor="white", linewidth=1.2)


def _shade(value: float) -> tuple[float, float, float]:
    """White at 0, orange above, blue below, as far as the value is from 0."""
    from matplotlib.colors import to_rgb

    if value == 0:
        return to_rgb("#F7F7F7")
    end = to_rgb(LAYERS[1] if value > 0 else LAYERS[4])
    share = min(1.0, 0.15 + 0.75 * abs(value))
    red, green, blue = (1 + share * (c - 1) for c in end)
    return red, green, blue


FORWARD = (
    ((2.6, 1.05), (6.3, -1.4)),
    ((3.3, -2.2), (6.3, -2.2)),
    ((10.5, -2.2), (11.9, -2.2)),
    ((4.3, 2.9), (14.1, 2.9)),
    ((15.0, 0.0), (15.6, 1.1)),
    ((18.3, 2.7), (20.4, 2.7)),
    ((19.3, 1.2), (19.3, 2.6)),
)
BACKWARD = (
    ((17.2, 1.1), (16.1, -0.9)),
    ((11.9, -3.1), (10.5, -3.1)),
    ((6.3, -3.1), (3.3, -3.1)),
    ((6.3, -0.8), (3.9, 1.0)),
    ((14.1, 2.1), (4.3, 2.1)),
)
LABELS = (
    ("⊙", (9.2, 3.0), 10), ("S", (11.2, -2.1), 10), ("X", (19.3, 0.5), 11), ("Y", (20.8, 2.45), 11),
)  # fmt: skip
# The gradients as appendix A.3 names them: dP is the gradient that P receives.
GRADIENTS = {
    "performance": ("performance gradient\ndP ⊙ M", (9.2, 1.25)),
    "M": ("dP ⊙ W", (17.75, -0.2)),
    "Q": ("dP ⊙ W\n⊙ H(Q)", (11.2, -4.1)),
    "structure": ("structure gradient\ndP ⊙ W ⊙ H(Q) ⊙ sgn(W)", (8.2, 0.1)),
    "t": ("dt: row sums of\n−dP ⊙ W ⊙ H(Q)", (4.8, -4.1)),
}


def _arrows(axis: Any) -> None:
    """What the layer computes in grey, and the gradients of appendix A.3 in orange."""
    for colour, arrows in (("#444444", FORWARD), (SPARSE, BACKWARD)):
        for start, end in arrows:
            axis.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.1})
    for text, place, size in LABELS:
        axis.text(*place, text, ha="center", va="bottom", fontsize=size)
    for text, place in GRADIENTS.values():
        axis.text(*place, text, ha="center", va="bottom", fontsize=7.5, color=SPARSE)


def _figure1(out: Path) -> Written:
    data, caption = example(), printed.CAPTIONS["figure1"]
    legend = "our drawing of equations 1 and 2, with example values; grey: forward, orange: gradients (A.3)"
    drawn = draw_masked_layer(data, f"{caption}\n{legend}")
    finding = (
        f"Of {len(data)} example weights, {data['M'].sum()} exceed the threshold of their row and stay in the product "
        "of weights and mask; the mask is the step function of |W| - t. The weights receive two gradients: the "
        "performance gradient dP ⊙ M, and through the mask the structure gradient dP ⊙ W ⊙ H(Q) ⊙ sgn(W); the "
        "thresholds receive the row sums of -dP ⊙ W ⊙ H(Q)."
    )
    return write_figure("figure1", data, drawn, out, title=caption, finding=finding)


def _figure2(out: Path) -> Written:
    data, caption = estimators(), printed.CAPTIONS["figure2"]
    drawn = draw_estimators(data, caption)
    finding = (
        "The step's own derivative is an impulse; the straight-through estimator is 1 on [-1, 1]; the long-tailed one "
        f"falls from {data['long_tailed'].max():g} at 0 to 0.4 at 0.4 and stays there up to 1."
    )
    return write_figure("figure2", data, drawn, out, title=caption, finding=finding)
