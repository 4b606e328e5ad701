"""The reset of thresholds (appendix A.1) as the paper has it, without it, and by other rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis.data.comparable import place
from analysis.data.conditions import PROTOCOLS, Condition, Results
from analysis.output.exhibit import TableWithFigure
from analysis.output.numbers import WIDE, percentage, with_seeds
from analysis.output.plotting import LAYERS, MODEL, SPARSE, plain_log, small_multiples
from analysis.paper import printed

CAPTION = "DST with the reset of thresholds, without it, and with other rules (only the first is the paper's)"
VARIED = ("reset_density", "reset_rule", "reset_recurrent")
RULES = {
    "published": "as published",
    "never": "never",
    "once": "each layer once",
    "empty_units": "only empty units",
    "recurrent": "recurrent layers too",
}
LOOKS = {
    "published": (SPARSE, "o"),
    "never": (LAYERS[0], "s"),
    "once": (LAYERS[2], "D"),
    "empty_units": (LAYERS[4], "^"),
    "recurrent": (LAYERS[1], "v"),
}
FLOOR = 0.01  # percent, of the figure's logarithmic axis
HEADS = (
    "Network", "α", "Reset", "Accuracy (%)", "Remaining (%)", "Sparsest epoch: remaining, accuracy (%)",
    "Resets per seed", "Seeds with an empty layer", "Printed: accuracy at remaining (%)",
)  # fmt: skip
NOTES = (
    f"Last epoch, mean ± standard deviation over n seeds. {WIDE} The sparsest epoch is chosen by what the run did.",
    "Reset: what happens where a layer keeps less than 1 % of its weights. As published: all its thresholds return to "
    "0, except in recurrent layers. Each layer once: the same, at most one time for each layer. Only empty units: only "
    "the thresholds of neurons and filters that keep no weight return to 0. Recurrent layers too: as published, in "
    "every layer.",
    "Resets per seed: mean over seeds of how many times a layer was reset. Seeds with an empty layer: of the finished "
    "ones, those in which a layer keeps no weight after the last epoch.",
)


@dataclass(frozen=True)
class Line:
    condition: Condition
    results: Results

    @cached_property
    def rule(self) -> str:
        """A key of RULES."""
        method = self.condition.spec["method"]
        if method["reset_density"] is None:
            return "never"
        if method.get("reset_recurrent"):
            return "recurrent"
        return {"layer": "published"}.get(rule := str(method.get("reset_rule", "layer")), rule)

    @property
    def network(self) -> str:
        return f"{printed.architecture(self.condition.model)}, {self.condition.dataset}"

    @cached_property
    def empty_seeds(self) -> int:
        """How many finished seeds end with a layer that keeps no weight."""
        layers = self.results.tables.layers_of(self.condition.done["run_id"])
        return int((layers["kept"].astype(float) == 0).groupby(layers["run_id"]).any().sum())

    @property
    def target(self) -> printed.Target | None:
        """What the paper prints for the network, at its stated alpha."""
        return next(iter(printed.measured(self.condition.dataset, self.condition.model)), None)


def lines(results: Results) -> list[Line]:
    """Every alpha of a network at which more than one rule was run, the paper's rule first."""
    found: dict[str, list[Line]] = {}
    for condition in results.conditions:
        if _is_compared(condition):
            found.setdefault(condition.key_without(*VARIED), []).append(Line(condition, results))
    several = [members for members in found.values() if len(members) > 1]
    in_order = sorted(several, key=lambda members: place(members[0].condition))
    return [line for members in in_order for line in sorted(members, key=lambda line: list(RULES).index(line.rule))]


def _is_compared(condition: Condition) -> bool:
    """Whether it is DST as published but for one of the rules above, in a protocol, on all data."""
    return (
        condition.method == "dst"
        and set(condition.variant) <= set(VARIED)
        and condition.spec["method"]["reset_density"] in (None, 0.01)
        and condition.whole_data
        and bool(set(condition.protocols) & set(PROTOCOLS))
        and bool(len(condition.done))
    )


def _cells(line: Line) -> tuple[str, ...]:
    c = line.condition
    sparsest = c.summary("min_density", scale=100), c.summary("test_accuracy_at_min_density")
    return (
        line.network, f"{c.alpha:g}", RULES[line.rule], with_seeds(c.summary("test_accuracy")),
        with_seeds(c.summary("density", scale=100)), ", ".join(map(percentage, sparsest)),
        f"{c.summary('threshold_resets').mean:.3g}", f"{line.empty_seeds} of {len(c.done)}", _printed(line),
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
        "dataset": c.dataset, "model": c.model, "alpha": c.alpha, "reset": line.rule,
        "test_accuracy_mean": accuracy.mean, "test_accuracy_sd": accuracy.sd, "remaining_percent_mean": density.mean,
        "remaining_percent_sd": density.sd, "remaining_percent_min": min(density.values),
        "remaining_percent_max": max(density.values),
        "min_remaining_percent_mean": c.summary("min_density", scale=100).mean,
        "test_accuracy_at_min_mean": c.summary("test_accuracy_at_min_density").mean,
        "threshold_resets_mean": c.summary("threshold_resets").mean, "seeds_with_an_empty_layer": line.empty_seeds,
        "n": density.n, "expected": density.expected,
    }  # fmt: skip


def _finding(found: Sequence[Line]) -> str:
    return " ".join(
        f"{line.network} at alpha {line.condition.alpha:g}, reset {RULES[line.rule]}: "
        f"{percentage(line.condition.summary('density', scale=100))} % remaining at "
        f"{percentage(line.condition.summary('test_accuracy'))} %."
        for line in found
    )


def _draw(found: Sequence[Line]) -> Any:
    from matplotlib.lines import Line2D

    networks = list(dict.fromkeys(line.network for line in found))
    note = f"each seed at its last epoch ({FLOOR:g} %: that or less); dashed: the density that the paper prints"
    figure, axes = small_multiples(len(networks), columns=3, size=(4.2, 3.2), title=f"{CAPTION}\n{note}")
    rules = [rule for rule in RULES if any(line.rule == rule for line in found)]
    for axis, network in zip(axes, networks, strict=True):
        members = [line for line in found if line.network == network]
        alphas = sorted({line.condition.alpha or 0.0 for line in members})
        for line in members:
            colour, marker = LOOKS[line.rule]
            aside = 0.13 * (rules.index(line.rule) - (len(rules) - 1) / 2)
            kept = [max(100 * value, FLOOR) for value in line.condition.by_seed("density").values()]
            places = [alphas.index(line.condition.alpha or 0.0) + aside] * len(kept)
            axis.plot(places, kept, marker, color=colour, markersize=5, alpha=0.8, linestyle="none")
        if (target := members[0].target) is not None:
            axis.axhline(target.density_percent, color=MODEL, linestyle="--", linewidth=1.0, zorder=0)
        axis.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        axis.set(
            xlabel="α", ylabel="Remaining weights (%)", title=network, xlim=(-0.6, len(alphas) - 0.4), yscale="log"
        )
        plain_log(axis, "y")
    looks = {RULES[rule]: LOOKS[rule] for rule in rules}
    handles = [Line2D([], [], color=colour, marker=marker, linestyle="none") for colour, marker in looks.values()]
    figure.legend(handles, list(looks), loc="outside lower left", ncols=len(looks), fontsize=8)
    return figure


EXHIBIT = TableWithFigure(
    name="reset-rules",
    caption=CAPTION,
    heads=HEADS,
    labels=3,
    notes=NOTES,
    lines=lines,
    cells=_cells,
    records=_records,
    run_ids=lambda line: line.condition.run_ids,
    finding=_finding,
    figure=_draw,
    nothing="not run",
)
