"""An empty figure in the project's look, and what several figures write on it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from analysis.palette import STYLE


def plotting() -> tuple[Any, Any]:
    """pyplot without a screen, and seaborn, in the project's look."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(style="ticks", rc=STYLE)
    return plt, sns


def canvas(mosaic: Sequence[Sequence[str]], size: tuple[float, float], title: str, **layout: Any) -> tuple[Any, Any]:
    """A figure of `size` inches and its axes by name in the mosaic; the title's lines above, to the left."""
    plt, sns = plotting()
    figure, axes = plt.subplot_mosaic([list(row) for row in mosaic], figsize=size, layout="constrained", **layout)
    figure.suptitle(greek(title), fontsize=10, x=0.01, ha="left")
    for axis in axes.values():
        sns.despine(ax=axis)
    return figure, axes


def greek(text: str) -> str:
    """The word alpha as a letter, and powers of ten without leading zeros: 5e-6."""
    return re.sub(r"(?<=\de-)0(?=\d\b)", "", re.sub(r"\balpha\b", "α", text))


def say(axis: Any, text: str) -> None:
    """An axis that has nothing to show says why, in its middle."""
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", fontsize=9, color="#555555")
