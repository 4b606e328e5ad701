"""Accuracy against density, drawn as SVG in the page. Points show their cells and link to their runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from analysis.data.conditions import Summary
from analysis.output.numbers import centre_and_ends, percentage, percentage_limits, printed_number
from analysis.output.plotting import main_range, methods_in_order, style_of, unnamed
from analysis.paper import printed

LEFT, RIGHT, TOP, BOTTOM = 44, 332, 10, 198  # of the axes, as in page.html.j2
LEADING = 4  # networks on the first screen: as many as Table 1 has
DECADE = (1.0, 2.0, 5.0)
MOST_TICKS = 5
QUIET = "quiet"  # the marker that methods without a colour of their own share
# SVG paths by the marker's name in matplotlib, about 9 units wide
SHAPES = {
    "o": "M-4.2,0a4.2,4.2 0 1,0 8.4,0a4.2,4.2 0 1,0 -8.4,0z",
    "s": "M-3.8,-3.8h7.6v7.6h-7.6z",
    "^": "M0,-4.8L4.8,3.8H-4.8z",
    "v": "M0,4.8L4.8,-3.8H-4.8z",
    "D": "M0,-5.2L5.2,0L0,5.2L-5.2,0z",
    "P": "M-1.8,-4.8h3.6v3h3v3.6h-3v3h-3.6v-3h-3v-3.6h3z",
    "X": "M-4.7,-2.5L-2.5,-4.7L0,-2.2L2.5,-4.7L4.7,-2.5L2.2,0L4.7,2.5L2.5,4.7L0,2.2L-2.5,4.7L-4.7,2.5L-2.2,0z",
    "h": "M0,-4.9L4.3,-2.4V2.4L0,4.9L-4.3,2.4V-2.4z",
    "p": "M0,-4.9L4.7,-1.5L2.9,4L-2.9,4L-4.7,-1.5z",
    "*": "M0,-7L1.7,-2.3L6.7,-2.2L2.7,0.9L4.1,5.7L0,2.8L-4.1,5.7L-2.7,0.9L-6.7,-2.2L-1.7,-2.3z",
    QUIET: "M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0z",
}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One point: a condition of ours, or a number that the paper prints, which has no runs.

    label: the method with its alpha or density. density, accuracy: percentages. seeds: those that
    are done. front: whether it is on the Pareto front. exhibit: where the paper prints it. epochs:
    trained ones, those of the method's own phases included.
    """

    label: str
    method: str
    density: Summary
    accuracy: Summary
    seeds: tuple[int, ...] = ()
    run_ids: tuple[str, ...] = ()
    front: bool = False
    exhibit: str = ""
    epochs: int | None = None

    @property
    def place(self) -> tuple[float, float]:
        """The (density, accuracy) at which it is drawn."""
        return centre_and_ends(self.density)[0], centre_and_ends(self.accuracy)[0]

    @property
    def drawn(self) -> bool:
        """Whether it can be drawn: its accuracy is known, and it keeps some weights."""
        return self.place[0] > 0 and not math.isnan(self.place[1])


@dataclass(frozen=True, kw_only=True)
class Panel:
    """All points of one network in one set-up.

    dense: the accuracy of the dense network, if it was run. epochs: of the set-up; some methods may
    train for another number.
    """

    network: str
    setup: str
    marks: tuple[Mark, ...]
    dense: Summary | None = None
    epochs: int | None = None

    @property
    def ours(self) -> tuple[Mark, ...]:
        return tuple(mark for mark in self.marks if mark.run_ids and mark.drawn)

    @property
    def finding(self) -> str:
        """Its most accurate sparse network, beside the dense one and what the paper prints."""
        best = max(self.ours, key=lambda mark: mark.place[1])
        texts = [f"Most accurate: {best.label}, {_at(best)}{after(best.epochs, self.epochs)}."]
        if self.dense is not None and self.dense.n:
            texts.append(f"Dense: {self.dense.mean:.2f} %.")
        texts += [f"The paper's {mark.label}: {_at(mark)}." for mark in self.marks if not mark.run_ids]
        texts.append(other_epochs([(mark.method, mark.epochs) for mark in self.ours], self.epochs))
        return " ".join(filter(None, texts))


def after(epochs: int | None, setup: int | None) -> str:
    """` after 120 epochs`; empty where the set-up has that number too."""
    return "" if epochs is None or epochs == setup else f" after {epochs} epochs"


def other_epochs(trained: Iterable[tuple[str, int | None]], setup: int | None) -> str:
    """The methods whose number of epochs is not the set-up's. trained: (method, epochs)."""
    found: dict[str, set[int]] = {}
    for method, epochs in trained:
        if epochs is not None and epochs != setup:
            found.setdefault(method, set()).add(epochs)
    named = (f"{printed.method_name(m)} {' or '.join(map(str, sorted(found[m])))}" for m in methods_in_order(found))
    return f"Trained for other than {setup} epochs: {', '.join(named)}." if found else ""


def _at(mark: Mark) -> str:
    return f"{mark.place[1]:.2f} % at {mark.place[0]:.3g} % of the weights"


@dataclass(frozen=True)
class Look:
    """How a method is drawn. name: in the legend and on its points."""

    name: str
    path: str
    colour: str


@dataclass(frozen=True)
class Dot:
    """A drawn point.

    lines: the text that hover or focus shows. bars: x1, y1, x2, y2 of each error bar. below: whether
    the accuracy is below the scale.
    """

    x: float
    y: float
    look: Look
    lines: tuple[str, ...]
    href: str
    bars: tuple[tuple[float, ...], ...]
    below: bool = False


@dataclass(frozen=True)
class Drawing:
    """A drawn panel. dense: y of the dense network. front: the path of the Pareto front."""

    panel: Panel
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    dots: tuple[Dot, ...]
    dense: float | None
    front: str


@dataclass(frozen=True)
class Picture:
    """leading: one panel for each of the first networks. others: the other panels."""

    leading: tuple[Drawing, ...]
    others: tuple[Drawing, ...]
    legend: tuple[Look, ...]

    @property
    def has_dense(self) -> bool:
        return any(drawing.dense is not None for drawing in (*self.leading, *self.others))

    @property
    def below(self) -> str:
        """The marker's path of points below the scale; empty where there are none."""
        dots = (dot for drawing in (*self.leading, *self.others) for dot in drawing.dots)
        return SHAPES["v"] if any(dot.below for dot in dots) else ""

    @property
    def has_front(self) -> bool:
        return any(drawing.front for drawing in (*self.leading, *self.others))


def picture(panels: Sequence[Panel], link: Callable[[Mark], str], verdicts: Mapping[str, str]) -> Picture:
    """The panels as they are drawn; for each network, the one with the most points leads.

    link: the address that a point links to. verdicts: by run id.
    """
    quiet = unnamed(methods_in_order(mark.method for panel in panels for mark in panel.ours))
    looks = {mark.method: _look(mark.method, quiet) for panel in panels for mark in panel.ours}
    fullest: dict[str, Panel] = {}
    panels = [panel for panel in panels if panel.ours]
    for panel in panels:
        if len(panel.ours) > len(fullest.setdefault(panel.network, panel).ours):
            fullest[panel.network] = panel
    leading = list(fullest.values())[:LEADING]
    ordered = [*leading, *(panel for panel in panels if panel not in leading)]
    drawn = [_drawing(panel, looks, link, verdicts) for panel in ordered]
    known = [looks[method] for method in methods_in_order(looks) if method not in quiet]
    stars = [_printed(mark) for panel in panels for mark in panel.marks if not mark.run_ids]
    legend = dict.fromkeys([*known, *(looks[method] for method in quiet), *stars])
    return Picture(tuple(drawn[: len(leading)]), tuple(drawn[len(leading) :]), tuple(legend))


def _look(method: str, quiet: Sequence[str]) -> Look:
    if method in quiet:
        return Look("other methods", SHAPES[QUIET], "var(--soft)")
    style = style_of(method)
    colour = "currentColor" if style.colour == "#000000" else style.colour
    return Look(printed.method_name(method), SHAPES[style.marker], colour)


def _printed(mark: Mark) -> Look:
    return Look(f"{printed.method_name(mark.method)}, printed in the paper", SHAPES["*"], style_of(mark.method).colour)


@dataclass(frozen=True)
class Scale:
    """Maps values to coordinates on one axis. On a log axis the values are logarithms."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 1)


def _drawing(
    panel: Panel, looks: Mapping[str, Look], link: Callable[[Mark], str], verdicts: Mapping[str, str]
) -> Drawing:
    # from left to right; the paper's come last, so that ours do not hide them
    marks = sorted((mark for mark in panel.marks if mark.drawn), key=lambda mark: (not mark.run_ids, mark.place))
    dense = panel.dense.mean if panel.dense is not None and panel.dense.n else None
    heights = [mark.place[1] for mark in marks] + ([] if dense is None else [dense])
    lowest, _ = main_range(heights)
    low, high = _padded([height for height in heights if height >= lowest], least=0.5, most=100.0)
    y_scale = Scale(low, high, BOTTOM, TOP)
    kept = [math.log10(mark.place[0]) for mark in marks]
    x_scale = Scale(*_padded(kept, least=math.log10(3), most=2.0), LEFT, RIGHT)
    dots = [
        _dot(mark, looks[mark.method] if mark.run_ids else _printed(mark), x_scale, y_scale, link(mark),
             (f"{mark.label}: {panel.network}", *_hover_lines(mark, panel, verdicts)))
        for mark in marks
    ]  # fmt: skip
    front = sorted((x_scale.place(math.log10(m.place[0])), y_scale.place(m.place[1])) for m in marks if m.front)
    return Drawing(
        panel,
        tuple((x_scale.place(math.log10(tick)), f"{tick:g}") for tick in _log_ticks(10**x_scale.low, 10**x_scale.high)),
        tuple((y_scale.place(tick), f"{tick:g}") for tick in _ticks(low, high)),
        tuple(dots),
        None if dense is None else y_scale.place(dense),
        "".join(f"M{x},{y}" if i == 0 else f"H{x}V{y}" for i, (x, y) in enumerate(front)) if len(front) > 1 else "",
    )


def _dot(mark: Mark, look: Look, x_scale: Scale, y_scale: Scale, href: str, lines: tuple[str, ...]) -> Dot:
    density, accuracy = mark.place
    x, y = x_scale.place(math.log10(density)), y_scale.place(accuracy)
    if accuracy < y_scale.low:
        below = Look(look.name, SHAPES["v"], look.colour)
        return Dot(x, y, below, (*lines, "below the scale"), href, (), below=True)
    if look.path == SHAPES[QUIET]:
        return Dot(x, y, look, lines, href, ())
    _, left, right = centre_and_ends(mark.density)
    _, low, high = centre_and_ends(mark.accuracy)
    left, right = (x_scale.place(math.log10(max(value, 1e-9))) for value in (left, right))
    bars = ((left, y, right, y), (x, y_scale.place(low), x, y_scale.place(high)))
    return Dot(x, y, look, lines, href, tuple(b for b in bars if b[:2] != b[2:]))


def _hover_lines(mark: Mark, panel: Panel, verdicts: Mapping[str, str]) -> Iterable[str]:
    if not mark.run_ids:
        accuracy, density = (printed_number(value.mean, value.sd) for value in (mark.accuracy, mark.density))
        return f"printed in the paper: {accuracy} % test accuracy", f"keeps {density} % of the weights"
    interval = percentage_limits(mark.accuracy)
    seeds = ", ".join(map(str, mark.seeds))
    found = verdicts.get(mark.run_ids[0])
    epochs = f"trained for {mark.epochs} epochs; the set-up has {panel.epochs}"
    return (
        f"{percentage(mark.accuracy)} % test accuracy{', 95 % interval' if interval else ''}{interval}",
        f"keeps {percentage(mark.density)} % of the weights",
        f"{mark.accuracy.seeds}: seed{'' if len(mark.seeds) == 1 else 's'} {seeds}",
        *([epochs] if after(mark.epochs, panel.epochs) else []),
        *([f"the printed number: {found}"] if found else []),
    )


def _padded(values: Sequence[float], *, least: float, most: float) -> tuple[float, float]:
    """The values' range with a margin. It is at least `least` wide, and the margin ends at `most`."""
    low, high = min(values), max(values)
    space = max(0.07 * (high - low), (least - high + low) / 2)
    return low - space, min(high + space, max(most, high))


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers in a range, about five at most."""
    power = 10.0 ** math.floor(math.log10((high - low) / MOST_TICKS))
    step = next(s * power for s in (*DECADE, 10.0) if (high - low) / (s * power) <= MOST_TICKS)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in (DECADE, (1.0, 3.0), (1.0,)):
        found = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if 2 <= len(found) <= MOST_TICKS + 1:
            return [float(f"{tick:g}") for tick in found]
    return _ticks(low, high) if high / low < 10 else [float(f"{tick:g}") for tick in found]
