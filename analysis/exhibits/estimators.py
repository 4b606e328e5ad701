"""The estimators of the step's derivative (Figure 2), trained: other ones beside the long-tailed.

The paper says why it takes the long-tailed estimator, and trains no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis.data.comparable import place
from analysis.data.conditions import PROTOCOLS, PUBLISHED, Condition, Results
from analysis.data.paired import against
from analysis.output.exhibit import TableWithFigure
from analysis.output.numbers import WIDE, WIDE_BARS, centre_and_ends, factor, points, with_seeds
from analysis.output.plotting import LAYERS, SPARSE, greek, marker_legend, plain_log, small_multiples
from analysis.paper import printed
from analysis.statistics.small_samples import Comparison

CAPTION = "DST with other estimators of the step's derivative beside the long-tailed one (not in the paper)"
HEADS = (
    "Network", "Learning rate", "α", "Estimator", "Accuracy (%)", "Remaining (%)", "Accuracy − long-tailed's [95 %]",
    "Remaining / long-tailed's [95 %]",
)  # fmt: skip
NOTES = (
    f"Last epoch, mean ± standard deviation over n seeds. {WIDE} Against long-tailed: at the same alpha, paired by "
    "seed, with the 95 % t interval; the remaining percentage as a ratio. The estimators may leave different "
    "percentages at one alpha, so compare accuracies where these are alike.",
    "Long-tailed: equation 3. Straight-through: 1 between -1 and 1, and 0 elsewhere (Figure 2(c)).",
)
OURS = str(PUBLISHED["dst"]["estimator"])
LOOKS = ((SPARSE, "o"), (LAYERS[0], "s"), (LAYERS[2], "D"))


@dataclass(frozen=True)
class Line:
    """A condition, and the long-tailed one that differs from it only in the estimator.

    beside: None where that is not in the results, and for the long-tailed one itself.
    """

    condition: Condition
    beside: Condition | None

    @property
    def estimator(self) -> str:
        return str(self.condition.spec["method"]["estimator"])

    @property
    def network(self) -> str:
        return f"{printed.architecture(self.condition.model)}, {self.condition.dataset}"

    @cached_property
    def comparisons(self) -> tuple[Comparison, Comparison] | None:
        return None if self.beside is None else against(self.condition, self.beside)


def lines(results: Results) -> list[Line]:
    """Every pair of estimators in a protocol, the long-tailed one first."""
    found: dict[str, list[Condition]] = {}
    for condition in results.conditions:
        if is_compared(condition):
            found.setdefault(condition.key_without("estimator"), []).append(condition)
    several = [members for members in found.values() if len(members) > 1]
    return [line for members in sorted(several, key=lambda m: place(m[0])) for line in _lines(members)]


def is_compared(condition: Condition) -> bool:
    """Whether it is DST as published but for the estimator, in a protocol, on all data."""
    return (
        condition.method == "dst"
        and set(condition.variant) <= {"estimator"}
        and condition.whole_data
        and bool(set(condition.protocols) & set(PROTOCOLS))
        and bool(len(condition.done))
    )


def _lines(members: Sequence[Condition]) -> list[Line]:
    ours = next((c for c in members if c.as_published), None)
    ordered = sorted(members, key=lambda c: (c is not ours, str(c.spec["method"]["estimator"])))
    return [Line(condition, None if condition is ours else ours) for condition in ordered]


def _cells(line: Line) -> tuple[str, ...]:
    c, compared = line.condition, line.comparisons
    return (
        line.network, f"{c.learning_rate:g}", f"{c.alpha:g}", name(line.estimator),
        with_seeds(c.summary("test_accuracy")), with_seeds(c.summary("density", scale=100)),
        *(("", "") if compared is None else (points(compared[0]), factor(compared[1]))),
    )  # fmt: skip


def name(estimator: str) -> str:
    return estimator.replace("_", "-")


def _records(line: Line) -> Iterator[dict[str, Any]]:
    c = line.condition
    accuracy, density = c.summary("test_accuracy"), c.summary("density", scale=100)
    record = {
        "dataset": c.dataset, "model": c.model, "lr": c.learning_rate, "alpha": c.alpha, "estimator": line.estimator,
        "test_accuracy_mean": accuracy.mean, "test_accuracy_sd": accuracy.sd, "remaining_percent_mean": density.mean,
        "remaining_percent_sd": density.sd, "n": accuracy.n, "expected": accuracy.expected,
    }  # fmt: skip
    for i, what in enumerate(("accuracy_against_long_tailed", "log_remaining_against_long_tailed")):
        comparison = line.comparisons[i] if line.comparisons else None
        low, high = (None, None) if comparison is None else comparison.interval()
        difference = None if comparison is None else comparison.difference
        record |= {what: difference, f"{what}_low": low, f"{what}_high": high}
    yield record


def _finding(found: Sequence[Line]) -> str:
    sentences = []
    for line in found:
        if line.comparisons is not None:
            accuracy, remaining = line.comparisons
            sentences.append(
                f"{line.network} at alpha {line.condition.alpha:g}: {name(line.estimator)} minus long-tailed: "
                f"{points(accuracy)} points of accuracy; remaining weights: {factor(remaining)}."
            )
    return " ".join(sentences)


def _draw(found: Sequence[Line]) -> Any:
    networks = list(dict.fromkeys((line.network, line.condition.learning_rate) for line in found))
    note = f"last epoch, mean ± standard deviation over seeds, {WIDE_BARS}; text: α"
    figure, axes = small_multiples(len(networks), columns=3, size=(4.2, 3.1), title=f"{CAPTION}\n{note}")
    kinds = sorted({line.estimator for line in found}, key=lambda kind: (kind != OURS, kind))
    looks = dict(zip(kinds, LOOKS, strict=False))
    for axis, (network, rate) in zip(axes, networks, strict=True):
        members = [line for line in found if (line.network, line.condition.learning_rate) == (network, rate)]
        for kind, look in looks.items():
            _series(axis, [line for line in members if line.estimator == kind], *look)
        several = sum(title == network for title, _ in networks) > 1
        axis.set(xlabel="Remaining weights (%)", ylabel="Test accuracy (%)")
        axis.set_title(f"{network}, lr {rate:g}" if several else network)
        plain_log(axis, "x")
    marker_legend(figure, {name(kind): look for kind, look in looks.items()})
    return figure


def _series(axis: Any, members: Sequence[Line], colour: str, marker: str) -> None:
    for line in members:
        across, up = (centre_and_ends(line.condition.summary(*of)) for of in (("density",), ("test_accuracy",)))
        x, left, right = (100 * value for value in across)
        y, low, high = up
        axis.errorbar(
            [x], [y], xerr=[[x - left], [right - x]], yerr=[[y - low], [high - y]], color=colour, marker=marker,
            markersize=5.5, linestyle="none", elinewidth=0.9, capsize=1.5,
        )  # fmt: skip
        axis.annotate(
            greek(f"{line.condition.alpha:g}"), (x, y), (6, 5), textcoords="offset points", fontsize=7, color=colour
        )


EXHIBIT = TableWithFigure(
    name="estimators",
    caption=CAPTION,
    heads=HEADS,
    labels=4,
    notes=NOTES,
    lines=lines,
    cells=_cells,
    records=_records,
    run_ids=lambda line: (*line.condition.run_ids, *(() if line.beside is None else line.beside.run_ids)),
    finding=_finding,
    figure=_draw,
    nothing="not run",
)
