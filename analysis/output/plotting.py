"""Small multiples, and how methods are drawn: one colour, marker and name each, in every exhibit."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.canvas import plotting
from analysis.palette import DENSE, SPARSE

NARROWEST, LETTERS_AN_INCH = 6.4, 14.5
TICKS = ((1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0), (1.0, 2.0, 3.0, 5.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))
MOST_TICKS = 7
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


def in_order(methods: Iterable[str]) -> list[str]:
    """Each method once, DST first, methods from outside last."""
    known = [name for name in KNOWN if name != "dense"]
    return sorted(set(methods), key=lambda m: (known.index(m) if m in known else len(known), m))


def panels(count: int, *, columns: int, size: tuple[float, float], title: str) -> tuple[Any, list[Any]]:
    """A figure of `count` axes, row by row, each `size` inches; a single one is wider.

    The title stands at its left, its lines broken to the figure's width.
    """
    plt, sns = plotting()
    columns = min(columns, count)
    rows = -(-count // columns)
    width = max(columns * size[0], NARROWEST)
    lines = [line for part in title.split("\n") for line in textwrap.wrap(part, int(LETTERS_AN_INCH * width))]
    height = rows * size[1] + 0.18 * len(lines)
    figure, grid = plt.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False)
    figure.suptitle("\n".join(lines), fontsize=9.5, x=0.01, ha="left")
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


def name_rows(axis: Any, names: Sequence[str], *, most: int) -> None:
    """Rows from the top down, a name each, in an axis with room for `most` of them."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(most - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)


def plain_log(axis: Any, name: str, *, most: int = MOST_TICKS) -> None:
    """A log axis, "x" or "y", with at most so many numbers, as they are read: decades alone where these are many."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    getattr(axis, f"set_{name}scale")("log")
    low, high = _limits(axis, name)
    of = getattr(axis, f"{name}axis")
    steps = next((s for s in TICKS if len(_ticks(s, low, high)) <= most), TICKS[-1])
    of.set_major_locator(LogLocator(subs=steps))
    of.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
    of.set_minor_locator(NullLocator())
    getattr(axis, f"set_{name}lim")(low, high)


def _limits(axis: Any, name: str) -> tuple[float, float]:
    """The limits of an axis; a factor of 3 to each side where its data stand in one place, which has no range."""
    low, high = getattr(axis.dataLim, f"interval{name}")
    if 0 < low <= high <= low * (1 + 1e-9):
        getattr(axis, f"set_autoscale{name}_on")(False)
        return low / 3, high * 3
    low, high = getattr(axis, f"get_{name}lim")()
    return low, high


def _number(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _ticks(steps: Sequence[float], low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
