"""Figures in the project's look, written with the same bytes every time."""

from __future__ import annotations

import io
import math
import re
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Okabe & Ito: distinguishable under every common colour blindness.
LAYERS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D00", "#000000")
MODEL, DENSE, SPARSE = "#000000", "#777777", "#D55E00"
ALPHAS = ("#9BD0F0", "#3A8FC7", "#123F66", "#E69F00", "#009E73", "#CC79A7")
LOOK = {
    "font.family": ["sans-serif"], "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"], "font.size": 9,
    "axes.labelsize": 9, "axes.titlesize": 9.5, "axes.titlelocation": "left", "axes.titleweight": "bold",
    "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "legend.frameon": False,
    "axes.grid": True, "grid.color": "#E4E4E4", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "axes.edgecolor": "#444444", "xtick.major.width": 0.8, "ytick.major.width": 0.8,
    "xtick.major.size": 3, "ytick.major.size": 3, "xtick.color": "#444444", "ytick.color": "#444444",
    "axes.linewidth": 0.8, "figure.dpi": 200,
    "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "sparse-training-bench",
}  # fmt: skip
FORMATS: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "ModDate": None},
    "png": {},
    "svg": {"Date": None},
}
NARROWEST, LETTERS_AN_INCH = 6.4, 14.5
TICKS = ((1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0), (1.0, 2.0, 3.0, 5.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))
MOST_TICKS = 7
FEWEST = 8  # values of which some may lie outside of the scale
MOST_NAMED = 8  # methods with a marker of their own in one figure
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
class Style:
    colour: str
    marker: str


def style_of(method: str) -> Style:
    """A method's colour and marker; methods from outside get theirs by name."""
    if method in KNOWN:
        return Style(*KNOWN[method])
    place = sum(method.encode())
    return Style(OTHERS[place % len(OTHERS)], "PXhp"[place % 4])


def methods_in_order(methods: Iterable[str]) -> list[str]:
    """Each method once, DST first, methods from outside last."""
    known = [name for name in KNOWN if name != "dense"]
    return sorted(set(methods), key=lambda m: (known.index(m) if m in known else len(known), m))


def unnamed(methods: Sequence[str]) -> list[str]:
    """Methods that a figure draws alike, because their markers could not be told apart; none of a few."""
    return [] if len(methods) <= MOST_NAMED else [name for name in methods if name not in KNOWN]


def layer_colours(names: Sequence[str]) -> dict[str, Any]:
    """A colour for each layer, by its position; the last of many layers stand out."""
    if len(names) <= len(LAYERS):
        return dict(zip(names, LAYERS, strict=False))
    import matplotlib as mpl

    loud = [name for name in names if name.startswith("FC")][-2:]
    quiet = [name for name in names if name not in loud]
    scale = mpl.colormaps["viridis"].resampled(256)
    colours: dict[str, Any] = {name: scale(0.8 * i / max(1, len(quiet) - 1)) for i, name in enumerate(quiet)}
    return colours | dict(zip(loud, ("#E69F00", "#D55E00"), strict=False))


def _plotting() -> tuple[Any, Any]:
    """pyplot without a screen, and seaborn, in the project's look."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(style="ticks", rc=LOOK)
    return plt, sns


def mosaic_figure(
    mosaic: Sequence[Sequence[str]], size: tuple[float, float], title: str, **layout: Any
) -> tuple[Any, Any]:
    """A figure of `size` inches with its title, and its axes by name in the mosaic."""
    plt, sns = _plotting()
    figure, axes = plt.subplot_mosaic([list(row) for row in mosaic], figsize=size, layout="constrained", **layout)
    figure.suptitle(greek(title), fontsize=10, x=0.01, ha="left")
    for axis in axes.values():
        sns.despine(ax=axis)
    return figure, axes


def greek(text: str) -> str:
    """The word alpha as a letter, and powers of ten without leading zeros: 5e-6."""
    return re.sub(r"(?<=\de-)0(?=\d\b)", "", re.sub(r"\balpha\b", "α", text))


def write_in_middle(axis: Any, text: str) -> None:
    """A text in an axis that has nothing to show: why."""
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", fontsize=9, color="#555555")


def panels_abreast(count: int, most: int) -> int:
    """How many panels stand in a row: at most so many, and of four two rather than three and one."""
    return 2 if (count, most) == (4, 3) else min(most, count)


def small_multiples(
    count: int, *, columns: int, size: tuple[float, float | Sequence[float]], title: str
) -> tuple[Any, list[Any]]:
    """A figure of `count` axes, row by row, each `size` inches; a single one is wider.

    size: width and height; several heights are one for each axis, and a row is as high as its highest.
    The title's lines stand above, to the left, broken to the figure's width.
    """
    plt, sns = _plotting()
    columns = panels_abreast(count, columns)
    rows = -(-count // columns)
    width = max(columns * size[0], NARROWEST)
    each = [size[1]] * count if isinstance(size[1], int | float) else list(size[1])
    heights = [max(each[first : first + columns]) for first in range(0, count, columns)]
    lines = [line for part in title.split("\n") for line in textwrap.wrap(part, int(LETTERS_AN_INCH * width))]
    figure, grid = plt.subplots(
        rows, columns, figsize=(width, sum(heights) + 0.18 * len(lines)), layout="constrained", squeeze=False,
        height_ratios=heights,
    )  # fmt: skip
    figure.suptitle("\n".join(lines), fontsize=9.5, x=0.01, ha="left")
    axes = list(grid.flat)
    for axis in axes[count:]:
        axis.remove()
    for axis in axes[:count]:
        sns.despine(ax=axis)
    return figure, axes[:count]


def main_range(values: Sequence[float]) -> tuple[float, float]:
    """Between which values a figure keeps its scale: three times the quartiles' distance outside of them.

    What lies outside would hide the differences among the others. Fewer than eight values are all
    inside.
    """
    if len(values) < FEWEST:
        return -math.inf, math.inf
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower - 3 * (upper - lower), upper + 3 * (upper - lower)


def draw_far_off(axis: Any, value: float, row: int, limits: tuple[float, float], *, colour: str, digits: str) -> bool:
    """Draw an arrow with the number at the edge for a value outside of the limits; whether it is.

    limits: of `main_range`. digits: the format of the number.
    """
    lowest, highest = limits
    if lowest <= value <= highest:
        return False
    edge, marker, shift, side = (highest, ">", -7, "right") if value > highest else (lowest, "<", 7, "left")
    axis.plot([edge], [row], marker, color=colour, markersize=6)
    axis.annotate(
        format(value, digits), (edge, row), xytext=(shift, 0), textcoords="offset points", va="center", ha=side,
        fontsize=7.5,
    )  # fmt: skip
    return True


def marker_legend(figure: Any, looks: Mapping[str, tuple[Any, str]], *, columns: int = 0) -> None:
    """Below the figure: each text beside its (colour, marker). columns: by default one for each."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, marker=marker, linestyle="none") for colour, marker in looks.values()]
    figure.legend(handles, list(looks), loc="outside lower left", ncols=columns or len(looks), fontsize=8)


def method_legend(
    figure: Any, methods: Sequence[str], names: Sequence[str], *, more: Sequence[tuple[Any, str]] = ()
) -> None:
    """One legend of markers below the panels."""
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Line2D([], [], color=style_of(m).colour, marker=style_of(m).marker, linestyle="none", markersize=6)
        for m in methods
    ]
    handles += [handle for handle, _ in more]
    labels = [*names, *(name for _, name in more)]
    figure.legend(handles, labels, loc="outside lower left", ncols=min(7, len(labels)), fontsize=8)


def panels_of_rows(
    rows: Sequence[int], *, columns: int, width: float, height: tuple[float, float], title: str
) -> tuple[Any, list[Any]]:
    """Small multiples of panels with rows from the top down, which `name_rows` names.

    rows: their number in each panel. height: inches of a panel without rows, and of one row.
    Neighbours have rows of the same height.
    """
    columns = panels_abreast(len(rows), columns)
    heights = [height[0] + height[1] * count for count in rows]
    figure, axes = small_multiples(len(rows), columns=columns, size=(width, heights), title=title)
    for number, axis in enumerate(axes):
        first = number - number % columns
        axis.set_ylim(max(rows[first : first + columns]) - 0.5, -0.5)
    return figure, axes


def name_rows(axis: Any, names: Sequence[str]) -> None:
    """A name for each row of a panel of `panels_of_rows`."""
    axis.set_yticks(range(len(names)), names)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)


def plain_log(axis: Any, name: str, *, most: int = MOST_TICKS) -> None:
    """A log axis, "x" or "y", with at most so many plain numbers."""
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
    """The limits of an axis; a factor of 3 to each side where its data are at one place."""
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


def save(figure: Any, out: Path, name: str) -> list[Path]:
    """Write a figure as PDF, PNG and SVG without dates, and close it."""
    import matplotlib.pyplot as plt
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # laid out once, not once a format
    for axis in figure.axes:  # two layouts of one figure can differ in the last bits
        axis.set_position([round(place, 5) for place in axis.get_position(original=True).bounds], which="both")
    around = figure.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"]).extents
    size = Bbox.from_extents(*(round(inches, 2) for inches in around))  # measured once, not once a format
    written = []
    for kind, metadata in FORMATS.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata, bbox_inches=size)
        path = out / f"{name}.{kind}"
        path.write_bytes(buffer.getvalue())
        written.append(path)
    plt.close(figure)
    return written
