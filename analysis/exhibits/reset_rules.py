"""The reset of thresholds (appendix A.1) as the paper has it, without it, and by other rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis.data.comparable import Group, place
from analysis.data.conditions import Condition, Results
from analysis.exhibits.accuracy_density_and_flops import printed_for
from analysis.output.exhibit import TableWithFigure
from analysis.output.numbers import LEAST, WIDE, percentage, with_seeds
from analysis.output.plotting import LAYERS, MODEL, SPARSE, marker_legend, plain_log, small_multiples
from analysis.paper import printed

CAPTION = "DST with the reset of thresholds, without it, and by other rules (only the first is the paper's)"
VARIED = ("reset_density", "reset_rule")
RULES = {
    "published": "as published",
    "never": "never",
    "once": "each layer once",
    "empty_units": "only empty units",
    "recurrent_too": "recurrent layers too",
}
LOOKS = {
    "published": (SPARSE, "o"),
    "never": (LAYERS[0], "s"),
    "once": (LAYERS[2], "D"),
    "empty_units": (LAYERS[4], "^"),
    "recurrent_too": (LAYERS[1], "v"),
}
HEADS = (
    "Network", "Learning rate", "α", "Reset", "Accuracy (%)", "Remaining (%)",
    "Sparsest epoch: remaining, accuracy (%)", "Resets per seed", "Seeds with an empty layer",
    "Printed: accuracy at remaining (%)",
)  # fmt: skip
NOTES = (
    f"Last epoch, mean ± standard deviation over n seeds. {WIDE} The sparsest epoch is chosen by what the run did.",
    "Reset: what happens where a layer keeps less than 1 % of its weights. As published: all its thresholds return to "
    "0, except in recurrent layers. Each layer once: the same, at most one time for each layer. Only empty units: only "
    "the thresholds of neurons and filters that keep no weight return to 0. Recurrent layers too: as published, in "
    "every layer.",
    "Resets per seed: mean over seeds of how many times a layer was reset. Seeds with an empty layer: of the finished "
    "ones whose layers are recorded, those in which a layer keeps no weight after the last epoch.",
)


@dataclass(frozen=True)
class Line:
    """One rule at one alpha of a network, in the paper's protocol."""

    condition: Condition
    results: Results

    @cached_property
    def rule(self) -> str:
        """A key of RULES."""
        variant = self.condition.variant
        return "never" if "reset_density" in variant else str(variant.get("reset_rule", "published"))

    @property
    def network(self) -> str:
        return f"{printed.architecture(self.condition.model)}, {self.condition.dataset}"

    @cached_property
    def empty_layers(self) -> list[bool]:
        """Whether a layer keeps no weight at the end, of each finished seed that layers.csv holds."""
        layers = self.results.tables.layers_of(self.condition.done["run_id"])
        kept_none = layers["kept"].astype(float) == 0
        return list(kept_none.groupby(layers["run_id"].astype(str)).any())

    @property
    def target(self) -> printed.Target | None:
        """What the paper prints for the network at the learning rate, for its stated alpha."""
        return next(iter(printed_for(Group("", (self.condition,)))), None)


def lines(results: Results) -> list[Line]:
    """Every alpha of a network at which more than one rule was run, the paper's rule first."""
    found: dict[str, list[Line]] = {}
    for condition in results.conditions:
        if _is_compared(condition):
            line = Line(condition, results)
            if line.rule in RULES:
                found.setdefault(condition.key_without(*VARIED), []).append(line)
    several = [members for members in found.values() if len(members) > 1]
    in_order = sorted(several, key=lambda members: place(members[0].condition))
    return [line for members in in_order for line in sorted(members, key=lambda line: list(RULES).index(line.rule))]


def _is_compared(condition: Condition) -> bool:
    """Whether it is DST as published but for one of the rules, in the paper's protocol, on all data."""
    return (
        condition.method == "dst"
        and set(condition.variant) <= set(VARIED)
        and len(condition.variant) <= 1
        and condition.variant.get("reset_density") is None
        and condition.whole_data
        and "paper" in condition.protocols
        and bool(len(condition.done))
    )


def _cells(line: Line) -> tuple[str, ...]:
    c = line.condition
    sparsest = c.summary("min_density", scale=100), c.summary("test_accuracy_at_min_density")
    resets, empty = c.summary("threshold_resets"), line.empty_layers
    return (
        line.network, f"{c.learning_rate:g}", f"{c.alpha:g}", RULES[line.rule], with_seeds(c.summary("test_accuracy")),
        with_seeds(c.summary("density", scale=100)), ", ".join(map(percentage, sparsest)),
        f"{resets.mean:.3g}" if resets.n else "not recorded",
        f"{sum(empty)} of {len(empty)}" if empty else "not recorded", _printed(line),
    )  # fmt: skip


def _printed(line: Line) -> str:
    target = line.target
    if target is None or target.alpha != line.condition.alpha:
        return ""
    return f"{target.sparse:g} at {target.density_percent:g}"


def _records(line: Line) -> Iterator[dict[str, Any]]:
    c = line.condition
    accuracy, density = c.summary("test_accuracy"), c.summary("density", scale=100)
    yield {
        "dataset": c.dataset, "model": c.model, "lr": c.learning_rate, "alpha": c.alpha, "reset": line.rule,
        "test_accuracy_mean": accuracy.mean, "test_accuracy_sd": accuracy.sd, "remaining_percent_mean": density.mean,
        "remaining_percent_sd": density.sd, "remaining_percent_min": min(density.values),
        "remaining_percent_max": max(density.values),
        "min_remaining_percent_mean": c.summary("min_density", scale=100).mean,
        "test_accuracy_at_min_mean": c.summary("test_accuracy_at_min_density").mean,
        "threshold_resets_mean": c.summary("threshold_resets").mean,
        "seeds_with_an_empty_layer": sum(line.empty_layers) if line.empty_layers else None,
        "n": density.n, "expected": density.expected,
    }  # fmt: skip


def _finding(found: Sequence[Line]) -> str:
    """Each network at its smallest alpha that was run with several rules."""
    sentences: list[str] = []
    first: dict[str, float | None] = {}
    for line in found:
        if first.setdefault(line.network, line.condition.alpha) == line.condition.alpha:
            sentences.append(
                f"{line.network} at alpha {line.condition.alpha:g}, reset {RULES[line.rule]}: "
                f"{percentage(line.condition.summary('density', scale=100))} % remaining at "
                f"{percentage(line.condition.summary('test_accuracy'))} %."
            )
    return " ".join(sentences)


def _draw(found: Sequence[Line]) -> Any:
    networks = list(dict.fromkeys((line.network, line.condition.learning_rate) for line in found))
    note = f"each seed at its last epoch ({LEAST:g} %: that or less); dashed: the density that the paper prints"
    figure, axes = small_multiples(len(networks), columns=3, size=(4.2, 3.2), title=f"{CAPTION}\n{note}")
    rules = [rule for rule in RULES if any(line.rule == rule for line in found)]
    for axis, (network, rate) in zip(axes, networks, strict=True):
        members = [line for line in found if (line.network, line.condition.learning_rate) == (network, rate)]
        several = sum(name == network for name, _ in networks) > 1
        alphas = sorted({line.condition.alpha or 0.0 for line in members})
        for line in members:
            colour, marker = LOOKS[line.rule]
            aside = 0.13 * (rules.index(line.rule) - (len(rules) - 1) / 2)
            kept = [max(100 * value, LEAST) for value in line.condition.by_seed("density").values()]
            places = [alphas.index(line.condition.alpha or 0.0) + aside] * len(kept)
            axis.plot(places, kept, marker, color=colour, markersize=5, alpha=0.8, linestyle="none")
        if (target := members[0].target) is not None:
            axis.axhline(target.density_percent, color=MODEL, linestyle="--", linewidth=1.0, zorder=0)
        axis.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        axis.set(
            xlabel="α",
            ylabel="Remaining weights (%)",
            title=f"{network}, lr {rate:g}" if several else network,
            xlim=(-0.6, len(alphas) - 0.4),
            yscale="log",
        )
        plain_log(axis, "y")
    looks = {RULES[rule]: LOOKS[rule] for rule in rules}
    marker_legend(figure, looks)
    return figure


EXHIBIT = TableWithFigure(
    name="reset-rules",
    caption=CAPTION,
    heads=HEADS,
    labels=4,
    notes=NOTES,
    lines=lines,
    cells=_cells,
    records=_records,
    run_ids=lambda line: line.condition.run_ids,
    finding=_finding,
    figure=_draw,
    nothing="not run",
)
