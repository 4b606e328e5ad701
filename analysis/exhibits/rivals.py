"""Numbers that others published, ours beside them, and a verdict on each as on those of Table 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from analysis.data.comparable import FACTOR
from analysis.data.conditions import Condition, Results, dense_twin, summarize
from analysis.data.paired import log_ratios
from analysis.data.selection import left_out
from analysis.exhibits.verdicts import LEVEL, MARGINS, NOT_RUN, QUOTED, Judged, judge, with_count
from analysis.output.exhibit import Makers, Written, write_table
from analysis.output.numbers import p_text, percentage, points, printed_number, with_seeds
from analysis.output.table import Row, Table
from analysis.paper import printed, rivals
from analysis.paper.rivals import Rival
from analysis.statistics.small_samples import Comparison, against_fixed, paired

HEADS = (
    "Network", "Method", "Density (%)", "Source", "Epochs", "Dense (%)", "Accuracy (%)", "Sparse − dense (points)",
    "Ours − published [90 %]", "Verdict", "p (claim)", "p (Holm)",
)  # fmt: skip
NO_VERDICT = Judged("", math.nan, math.nan)
NOTES = (
    "Published: ± is the standard error that the source gives. Ours: mean ± standard deviation over seeds, last epoch. "
    "The difference sparse minus dense of ours is paired by seed.",
    "Verdict: the rule of Table 1 (docs/verdicts.md): the margins are MNIST 0.2 and CIFAR-10 0.3 points, the published "
    f"mean counts as exact, Holm's correction at level {LEVEL:g} is over all published numbers of the table that were "
    "run for the published number of epochs.",
    "In brackets: cells of a quarter of the published epochs, corrected among themselves. They test nothing that was "
    "published.",
    "Quoted: numbers that the source took from others, most of them of networks that were trained and pruned first.",
)


@dataclass(frozen=True)
class Line:
    """A published number, and one condition of ours beside it; None where nothing is run."""

    rival: Rival
    condition: Condition | None = None
    twin: Condition | None = None
    judged: Judged = NO_VERDICT

    @property
    def published_epochs(self) -> bool:
        return self.condition is not None and rivals.PROTOCOLS[0] in self.condition.protocols

    @property
    def accuracy(self) -> Comparison:
        values = [] if self.condition is None else list(self.condition.by_seed("test_accuracy").values())
        return against_fixed(values, self.rival.accuracy)

    @property
    def remaining(self) -> Comparison:
        """ln(density / the published one)."""
        kept = {} if self.condition is None else self.condition.by_seed("density")
        return against_fixed(log_ratios(kept.values(), self.rival.density_percent), 0.0)

    @property
    def difference(self) -> list[float]:
        """Sparse minus dense accuracy, paired by seed."""
        both = [c.by_seed("test_accuracy") for c in (self.condition, self.twin) if c is not None]
        return paired(*both) if len(both) == 2 else []

    @property
    def run_ids(self) -> tuple[str, ...]:
        return () if self.condition is None else self.condition.run_ids

    @property
    def verdict(self) -> str:
        """The claim where it is shown; in brackets for another number of epochs than the published."""
        if self.rival.origin == "quoted":
            return QUOTED
        if self.condition is None or not self.run_ids:
            return NOT_RUN
        text = with_count(self.judged.shown, len(self.run_ids), len(self.condition.rows), self.condition.lost())
        return text if self.published_epochs else f"[{text}]"


def makers(results: Results) -> Makers:
    return {name: partial(_write, results, name) for name in rivals.CAPTIONS}


def lines(name: str, conditions: Sequence[Condition]) -> list[Line]:
    """Each published number with our conditions of the suite, the published epochs first, judged."""
    own = [c for c in conditions if set(c.protocols) & set(rivals.PROTOCOLS)]
    drafts: list[Line] = []
    for rival in rivals.published(name):
        beside = sorted((c for c in own if _is_of(rival, c)), key=_place)
        drafts += [Line(rival, c, dense_twin(c, own)) for c in beside] or [Line(rival)]
    found: dict[int, Judged] = {}
    for published_epochs in (True, False):
        family = [i for i, d in enumerate(drafts) if d.run_ids and d.published_epochs == published_epochs]
        cells = [(drafts[i].accuracy, drafts[i].remaining, MARGINS[drafts[i].rival.dataset]) for i in family]
        found |= dict(zip(family, judge(cells), strict=True))
    return [Line(d.rival, d.condition, d.twin, found.get(i, NO_VERDICT)) for i, d in enumerate(drafts)]


def _place(condition: Condition) -> int:
    """Where its protocol stands among those of the suites of rivals: the published epochs first."""
    return min(i for i, name in enumerate(rivals.PROTOCOLS) if name in condition.protocols)


def _is_of(rival: Rival, condition: Condition) -> bool:
    """Whether a condition trains the published network and method at the published density."""
    own, asked = condition.spec["method"], condition.density
    if rival.origin == "quoted" or any(own.get(name) != value for name, value in rival.hyperparameters):
        return False
    if (condition.dataset, condition.model, condition.method) != (rival.dataset, rival.model, rival.method):
        return False
    return _near(rival, condition) if asked is None else math.isclose(100 * asked, rival.density_percent, rel_tol=1e-6)


def _near(rival: Rival, condition: Condition) -> bool:
    """Whether a method that finds its own density keeps about the published one."""
    mean = float(condition.done["density"].mean()) if len(condition.done) else 0.0
    return mean > 0 and abs(math.log(100 * mean / rival.density_percent)) <= math.log(FACTOR)


def _write(results: Results, name: str, out: Path) -> Written:
    found = lines(name, results.conditions)
    rows: list[Row] = []
    before: Line | None = None
    for line in found:
        if before is None or line.rival != before.rival:
            rows.append(Row(_published_cells(line), starts=before is None or before.rival.model != line.rival.model))
        if line.run_ids:
            rows.append(Row(_cells(line), line.run_ids, () if line.twin is None else line.twin.run_ids))
        before = line
    sources = dict.fromkeys(" ".join(filter(None, [f"{r.source}.", r.note])) for r in (line.rival for line in found))
    own = [c for c in results.conditions if set(c.protocols) & set(rivals.PROTOCOLS)]
    notes = (*NOTES, *(f"Source: {source}" for source in sources), *left_out(own))
    table = Table(name, rivals.CAPTIONS[name], HEADS, tuple(rows), notes, labels=4)
    return write_table(table, [_record(line) for line in found], out, finding=_finding(found))


def _published_cells(line: Line) -> tuple[str, ...]:
    """The published number; its verdict too where nothing of ours is beside it."""
    rival = line.rival
    difference = "" if rival.dense is None else f"{rival.accuracy - rival.dense:+.2f}"
    given = "".join(f", {name} {value}" for name, value in rival.hyperparameters)
    return (
        printed.architecture(rival.model), printed.method_name(rival.method) + given, f"{rival.density_percent:g}",
        "quoted" if rival.origin == "quoted" else "published", "",
        printed_number(rival.dense, rival.dense_spread), printed_number(rival.accuracy, rival.spread), difference,
        "", "" if line.run_ids else line.verdict, "", "",
    )  # fmt: skip


def _cells(line: Line) -> tuple[str, ...]:
    assert line.condition is not None, "a line of ours has runs"
    dense = "" if line.twin is None else percentage(line.twin.summary("test_accuracy"))
    claim = f"{p_text(line.judged.p)} ({line.judged.claim})" if line.judged.claim else ""
    return (
        "", "", "", "ours", f"{line.condition.done['epochs'].max():g}", dense,
        with_seeds(line.condition.summary("test_accuracy")), points(against_fixed(line.difference, 0.0)),
        points(line.accuracy, confidence=0.90), line.verdict, claim, p_text(line.judged.adjusted),
    )  # fmt: skip


def _record(line: Line) -> dict[str, Any]:
    rival, condition = line.rival, line.condition
    ours = summarize([], expected=0) if condition is None else condition.summary("test_accuracy")
    low, high = line.accuracy.interval(confidence=0.90)
    return {
        "model": rival.model, "method": rival.method, "density_percent": rival.density_percent,
        "origin": rival.origin, "published_accuracy": rival.accuracy, "published_spread": rival.spread,
        "published_dense": rival.dense, "source": rival.source, "note": rival.note,
        "epochs": None if condition is None or not line.run_ids else float(condition.done["epochs"].max()),
        "accuracy_mean": ours.mean, "accuracy_sd": ours.sd, "n": ours.n, "expected": ours.expected,
        "sparse_minus_dense": against_fixed(line.difference, 0.0).difference,
        "accuracy_difference": line.accuracy.difference, "accuracy_difference_low90": low,
        "accuracy_difference_high90": high, "claim": line.judged.claim, "p": line.judged.p,
        "p_holm": line.judged.adjusted, "verdict": line.verdict, "run_ids": ";".join(line.run_ids),
    }  # fmt: skip


def _distance(line: Line) -> float:
    """How far the density is from the published one, as |ln| of their ratio."""
    return abs(line.remaining.difference) if line.run_ids else math.inf


def _finding(found: Sequence[Line]) -> str:
    measured = [line for line in found if line.rival.origin != "quoted"]
    numbers = {line.rival: "not run" for line in measured}
    for line in sorted((line for line in measured if line.published_epochs), key=_distance, reverse=True):
        numbers[line.rival] = line.verdict.partition(" (")[0]  # of several alphas that of the nearest
    counts = {verdict: list(numbers.values()).count(verdict) for verdict in dict.fromkeys(numbers.values())}
    text = f"Of {len(numbers)} published numbers: {', '.join(f'{n} {v}' for v, n in counts.items())}."
    short = [line.accuracy.difference for line in measured if line.run_ids and not line.published_epochs]
    if not short:
        return text
    return (
        f"{text} In a quarter of the published epochs, ours minus the published accuracy lies between "
        f"{min(short):+.2f} and {max(short):+.2f} points ({len(short)} of them)."
    )
