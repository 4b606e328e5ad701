"""One explanation for all rows of Table 1? Set-ups on several networks, by docs/gap.md's rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis.data.comparable import FACTOR
from analysis.data.conditions import Condition, Results, Summary
from analysis.exhibits.gap import ACCURACY_MARGIN, SEEDS, SetUp, Verdict, twin_of, within
from analysis.output.exhibit import TableWithFigure
from analysis.output.numbers import WIDE, WIDE_BARS, centre_and_ends, on_log_axis, percentage, with_seeds
from analysis.output.plotting import MODEL, marker_legend, plain_log, small_multiples
from analysis.paper import printed
from analysis.paper.printed import Target

NETWORKS = ("lenet-300-100", "lenet-5-caffe", "lstm-a")
COUNTS = ("all weights", "without the last layer", "mean of the layers")
ALPHAS = (1, 2)  # times the stated one
CAPTION = "Set-ups of LeNet-300-100 on other networks of Table 1 (docs/gap.md): does one explain all rows?"
HEADS = (
    "Set-up", "Alpha / stated", "Network", "Remaining (%)", "Without last layer (%)", "Mean of layers (%)",
    "Printed remaining (%)", "Accuracy (%)", "Printed accuracy (%)", "Dense accuracy (%)", "Targets met",
)  # fmt: skip
NOTES = (
    f"Last epoch, mean ± standard deviation over n seeds. {WIDE} Listed are set-ups that were trained on more than "
    "one network, at the stated alpha or at twice it; first those with most targets met, then with both on most "
    "networks.",
    f"Targets: the share of remaining weights, counted in one of three ways, within {1 / FACTOR:g} to {FACTOR:g} times "
    f"the printed one, and the accuracy within {ACCURACY_MARGIN:g} points of the printed one, both by the mean over "
    "seeds. An explanation would meet both, in one way of counting, on all three networks.",
    f"(?): the 95 % t interval over the seeds crosses the target's limit, or fewer than {SEEDS} seeds are done.",
)


@dataclass(frozen=True)
class Line:
    """One set-up on one network."""

    set_up: SetUp
    alpha_factor: int

    @property
    def network(self) -> str:
        return self.set_up.condition.model

    @property
    def key(self) -> tuple[str, int]:
        """What is equal for the same set-up on other networks: what differs from the stated one."""
        return self.set_up.label, self.alpha_factor

    @cached_property
    def densities(self) -> tuple[Summary, ...]:
        """Percentages, in the order of COUNTS."""
        return (self.set_up.density(), *self.set_up.other_counts)

    @cached_property
    def by_count(self) -> tuple[Verdict, ...]:
        share = self.set_up.target.density_percent
        assert share is not None
        pairs = zip(COUNTS, self.densities, strict=True)
        return tuple(within(count, density, share / FACTOR, share * FACTOR) for count, density in pairs)

    @cached_property
    def accuracy(self) -> Verdict:
        middle = self.set_up.target.sparse
        assert middle is not None
        return within("accuracy", self.set_up.accuracy(), middle - ACCURACY_MARGIN, middle + ACCURACY_MARGIN)

    @property
    def explains(self) -> set[str]:
        """The counts under which both targets are met."""
        return {verdict.name for verdict in self.by_count if verdict.met and self.accuracy.met}

    @property
    def met(self) -> int:
        return bool(self.accuracy.met) + any(verdict.met for verdict in self.by_count)


def lines(results: Results) -> list[Line]:
    """Set-ups that were trained on several networks, those that meet most targets first."""
    targets = {name: next(t for t in printed.measured("mnist", name) if t.exhibit == "table1") for name in NETWORKS}
    found = [line for name, target in targets.items() for line in _of_network(results, name, target)]
    several = [members for members in _groups(found) if len(members) > 1]
    several.sort(key=lambda members: (-_targets_met(members), -_explained(members), members[0].key))
    return [line for members in several for line in members]


def _of_network(results: Results, network: str, target: Target) -> list[Line]:
    alphas = {factor * (target.alpha or 0): factor for factor in ALPHAS}
    tried = [c for c in results.conditions if _is_tried(c, network) and c.alpha in alphas and len(c.done)]
    stated = [c for c in tried if c.alpha == target.alpha and c.follows_protocol and "paper" in c.protocols]
    if not stated:
        return []
    return [Line(SetUp(c, stated[0], twin_of(c, results), target, results), alphas[c.alpha or 0]) for c in tried]


def _is_tried(condition: Condition, network: str) -> bool:
    same = (condition.dataset, condition.model, condition.method) == ("mnist", network, "dst")
    return same and condition.whole_data


def _cells(line: Line) -> tuple[str, ...]:
    one, target = line.set_up, line.set_up.target
    names = [f"{v.name}{'' if v.settled else ' (?)'}" for v in (*line.by_count, line.accuracy) if v.met]
    return (
        one.label, str(line.alpha_factor), printed.architecture(line.network), with_seeds(line.densities[0]),
        *(percentage(density) if density.n else "" for density in line.densities[1:]),
        f"{target.density_percent:g}", percentage(one.accuracy()), f"{target.sparse:g}",
        "not run" if one.dense_accuracy is None else percentage(one.dense_accuracy),
        ", ".join(names) or "none",
    )  # fmt: skip


def _records(line: Line) -> Iterator[dict[str, Any]]:
    one = line.set_up
    accuracy = one.accuracy()
    record: dict[str, Any] = {
        "set_up": one.label, "alpha_factor": line.alpha_factor, "model": line.network, "alpha": one.condition.alpha,
        "n": accuracy.n, "expected": accuracy.expected,
    }  # fmt: skip
    for count, density, verdict in zip(COUNTS, line.densities, line.by_count, strict=True):
        key = count.replace(" ", "_")
        record |= {f"{key}_percent_mean": density.mean, f"{key}_percent_sd": density.sd, f"{key}_met": verdict.met}
    yield record | {
        "printed_percent": one.target.density_percent, "test_accuracy_mean": accuracy.mean,
        "test_accuracy_sd": accuracy.sd, "printed_accuracy": one.target.sparse, "accuracy_met": line.accuracy.met,
        "dense_accuracy_mean": math.nan if one.dense_accuracy is None else one.dense_accuracy.mean,
    }  # fmt: skip


def _finding(found: Sequence[Line]) -> str:
    if not found:
        return ""
    groups = _groups(found)
    everywhere = [members for members in groups if {line.network for line in members} == set(NETWORKS)]
    explained = [members for members in everywhere if set.intersection(*(line.explains for line in members))]
    parts = [
        f"{len(groups)} set-ups were trained on several networks, {len(everywhere)} of them on all three. "
        f"Number of these that meet density and accuracy on all three in one way of counting: {len(explained)}."
    ]
    best = [members for members in groups if _targets_met(members) == _targets_met(groups[0])]
    parts.append(f"The most targets met are {_targets_met(best[0])}, by {len(best)} of the set-ups.")
    for members in best:
        numbers = "; ".join(
            f"{printed.architecture(line.network)} {percentage(line.densities[0])} % at "
            f"{percentage(line.set_up.accuracy())} %"
            for line in members
        )
        parts.append(
            f"{members[0].set_up.label}, alpha times {members[0].alpha_factor}, meets both targets on "
            f"{_explained(members)} of {len(members)} networks: {numbers}."
        )
    return " ".join(parts)


def _targets_met(members: Sequence[Line]) -> int:
    """Over the networks of a set-up."""
    return sum(line.met for line in members)


def _explained(members: Sequence[Line]) -> int:
    """On how many networks a set-up meets both targets in one way of counting."""
    return sum(bool(line.explains) for line in members)


def _groups(found: Sequence[Line]) -> list[list[Line]]:
    groups: dict[tuple[str, int], list[Line]] = {}
    for line in found:
        groups.setdefault(line.key, []).append(line)
    return list(groups.values())


def _draw(found: Sequence[Line]) -> Any:
    note = (
        f"last epoch, mean ± standard deviation over seeds, {WIDE_BARS}; filled: all weights, hollow: without the last "
        "layer; box: both targets; star: printed"
    )
    networks = [network for network in NETWORKS if any(line.network == network for line in found)]
    figure, axes = small_multiples(len(networks), columns=3, size=(4.0, 3.2), title=f"{CAPTION}\n{note}")
    names = {line.key: None for line in found}
    colours = dict(zip(names, _palette(len(names)), strict=True))
    for axis, network in zip(axes, networks, strict=True):
        members = [line for line in found if line.network == network]
        for line in members:
            y, low, high = centre_and_ends(line.set_up.accuracy())
            for kept, face in zip(line.densities, (colours[line.key], "white"), strict=False):
                if not kept.n:
                    continue
                x, left, right = on_log_axis(kept)
                axis.errorbar(
                    [x], [y], xerr=[[x - left], [right - x]], yerr=[[y - low], [high - y]], color=colours[line.key],
                    markerfacecolor=face, marker="o", markersize=5, linestyle="none", elinewidth=0.8,
                )  # fmt: skip
        target = members[0].set_up.target
        density, accuracy = target.density_percent or math.nan, target.sparse or math.nan
        box = [density / FACTOR, density * FACTOR, density * FACTOR, density / FACTOR, density / FACTOR]
        axis.plot(
            box, [accuracy + side * ACCURACY_MARGIN for side in (-1, -1, 1, 1, -1)], color="#777777", linewidth=0.9
        )
        axis.plot([density], [accuracy], marker="*", markersize=10, color=MODEL, linestyle="none")
        axis.set(xlabel="Remaining weights (%)", ylabel="Test accuracy (%)", title=printed.architecture(network))
        plain_log(axis, "x")
    texts = {key: key[0] if key[1] == 1 else f"{key[0]}, alpha × {key[1]}" for key in names}
    marker_legend(figure, {texts[key]: (colours[key], "o") for key in names}, columns=2)
    return figure


def _palette(count: int) -> list[Any]:
    import matplotlib

    colours = matplotlib.colormaps["tab10" if count <= 10 else "tab20"]
    return [colours(i % colours.N) for i in range(count)]


EXHIBIT = TableWithFigure(
    name="gap-networks",
    caption=CAPTION,
    heads=HEADS,
    labels=3,
    notes=NOTES,
    lines=lines,
    cells=_cells,
    records=_records,
    run_ids=lambda line: (
        *line.set_up.condition.run_ids,
        *(() if line.set_up.twin is None else line.set_up.twin.run_ids),
    ),
    finding=_finding,
    figure=_draw,
    nothing="not run",
)
