"""Small multiples, and how methods are drawn: one colour, marker and name each, in every exhibit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.palette import DENSE, SPARSE, STYLE

OTHERS = ("#000000", "#8C6D00", "#9BD0F0")
KNOWN = {
    "dense": (DENSE, "*"),
    "dst": (SPARSE, "o"),
    "sparse_momentum": ("#0072B2", "s"),
    "dsr": ("#009E73", "^"),
    "set": ("#E69F00", "D"),
    "static": ("#CC79A7", "v"),
}


@dataclass(frozen=True)
class Mark:
    colour: str
    marker: str


def mark(method: str) -> Mark:
    """A method's colour and marker; methods from outside get theirs by name."""
    if method in KNOWN:
        return Mark(*KNOWN[method])
    place = sum(method.encode())
    return Mark(OTHERS[place % len(OTHERS)], "PXhp"[place % 4])


def panels(count: int, *, columns: int, size: tuple[float, float], title: str) -> tuple[Any, list[Any]]:
    """A figure of `count` axes, row by row, each `size` inches; the title stands at its left."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(style="ticks", rc=STYLE)
    columns = min(columns, count)
    rows = -(-count // columns)
    height = rows * size[1] + 0.2 * (1 + title.count("\n"))
    figure, grid = plt.subplots(rows, columns, figsize=(columns * size[0], height), layout="constrained", squeeze=False)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    axes = list(grid.flat)
    for axis in axes[count:]:
        axis.remove()
    for axis in axes[:count]:
        sns.despine(ax=axis)
    return figure, axes[:count]


def legend(figure: Any, methods: Sequence[str], names: Sequence[str], *, more: Sequence[tuple[Any, str]] = ()) -> None:
    """One legend of markers below the panels."""
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Line2D([], [], color=mark(m).colour, marker=mark(m).marker, linestyle="none", markersize=6) for m in methods
    ]
    handles += [handle for handle, _ in more]
    labels = [*names, *(name for _, name in more)]
    figure.legend(handles, labels, loc="outside lower left", ncols=min(7, len(labels)), fontsize=8)
