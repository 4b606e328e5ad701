"""A verdict on each number that the paper printed, by the rule of docs/verdicts.md."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from analysis.data.comparable import FACTOR
from analysis.data.conditions import Condition, Results, dense_twin, seeds
from analysis.data.epochs import ACCURACY, COUNTED, DENSITY, NAMES, dense_epoch, measured
from analysis.data.matching import Match, printed_and_ours
from analysis.data.paired import log_ratios
from analysis.data.selection import as_stated
from analysis.output.numbers import p_equals
from analysis.paper import printed
from analysis.paper.printed import Target
from analysis.statistics.small_samples import Comparison, against_fixed, against_sample, equivalence, holm, paired

TABLES = ("table1", "table2", "table3")
MARGINS = {"mnist": 0.2, "cifar10": 0.3, "imagenet": 0.5}  # percentage points of accuracy
LEVEL = 0.05
PAPER_RUNS = (1, 3, 5)
NO_TEST = Comparison(math.nan, math.nan, math.nan)
QUOTED = "no verdict (quoted)"
NOT_RUN = "not run"
ORDER = ("reproduced", "better", "not reproduced", "inconclusive", NOT_RUN)
NOT_NEAR = "not run (no alpha within a factor of 1.25)"
SHOWN = ("reproduced", "better")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one of our conditions says, at one epoch, of one printed number.

    match: the condition, None where nothing is run. accuracy, difference, dense: ours minus the
    paper's, in points; difference is sparse minus dense. remaining: ln(ours / the paper's).
    claim: the one with the smallest p of the three; adjusted: that p after Holm, over the verdict's
    family.
    sensitivity: the verdict if the paper's mean were of so many runs; empty where it prints no ±.
    """

    exhibit: str
    target: Target
    epoch: str
    match: Match | None = None
    twin: Condition | None = None
    accuracy: Comparison = NO_TEST
    remaining: Comparison = NO_TEST
    difference: Comparison = NO_TEST
    dense: Comparison = NO_TEST
    n: int = 0
    expected: int = 0
    claim: str = ""
    p: float = math.nan
    adjusted: float = math.nan
    verdict: str = NOT_RUN
    sensitivity: dict[int, str] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether summaries count it: the printed number's verdict at the last epoch."""
        return self.decides and self.epoch == COUNTED and self.verdict != QUOTED

    @property
    def uncorrected(self) -> str:
        """The claim that would be shown if it were the only one tested; empty for none."""
        return self.claim if self.p <= LEVEL else ""

    @property
    def decides(self) -> bool:
        """Whether it is the printed number's verdict, not one at another alpha or protocol."""
        return self.match is None or self.match.decides or self.target.origin == "quoted"

    @property
    def margin(self) -> float:
        return MARGINS[self.target.dataset]

    @property
    def cell(self) -> str:
        metric = ", top-5" if self.target.metric == "top5" else ""
        name = f"{printed.architecture(self.target.model)}, {printed.method_name(self.target.method)}"
        return f"{name} at {self.target.density_percent:g} %{metric}"

    @property
    def run_ids(self) -> tuple[str, ...]:
        both = [c for c in (self.match.condition if self.match else None, self.twin) if c is not None]
        return tuple(run_id for condition in both for run_id in condition.run_ids)

    @property
    def lost(self) -> dict[str, int]:
        return {} if self.match is None else self.match.condition.lost()

    @property
    def all_lost(self) -> bool:
        """Whether every seed was trained and none was finished."""
        return self.match is not None and sum(self.lost.values()) == len(self.match.condition.rows) > 0


def table_verdicts(name: str, conditions: Sequence[Condition]) -> list[Verdict]:
    """On every number of a table: each epoch and condition, with Holm's correction.

    conditions: epochs.measured.
    """
    chosen = as_stated(name, conditions)
    return decide([
        compared
        for target, matches in printed_and_ours(name, chosen)
        for compared in _of_cell(name, target, matches, chosen)
    ])  # fmt: skip


def verdict_rows(results: Results) -> list[Verdict]:
    """Every verdict on Tables 1 to 3: one for each printed number, condition of ours and epoch."""
    return [verdict for name in TABLES for verdict in table_verdicts(name, measured(name, results))]


def deciding(found: Iterable[Verdict]) -> list[Verdict]:
    """The verdict of each number that the paper measured, at the last epoch."""
    return [v for v in found if v.counts]


def p_of_claims(accuracy: Comparison, remaining: Comparison, margin: float) -> dict[str, float]:
    """claim -> p. One claim is true; each is shown by rejecting the others (docs/verdicts.md)."""
    spread = math.log(FACTOR)
    ways_to_fail = (
        accuracy.p_below(-margin),
        remaining.p_above(spread),
        max(remaining.p_below(-spread), accuracy.p_below(margin)),  # too sparse, not better
    )
    return {
        "reproduced": max(equivalence(accuracy, margin), equivalence(remaining, spread)),
        "better": max(accuracy.p_above(margin), remaining.p_below(spread)),
        "not reproduced": min(1.0, len(ways_to_fail) * min(ways_to_fail)),
    }


def decide(drafts: Sequence[Verdict]) -> list[Verdict]:
    """The drafts with p-values, Holm's correction within each family, and verdicts."""
    families: dict[tuple[str, ...], list[int]] = {}
    for i, draft in enumerate(drafts):
        families.setdefault(_family(draft), []).append(i)
    found = list(drafts)
    for members in families.values():
        family = [drafts[i] for i in members]
        fixed = judge([(*_tested(d), d.margin) for d in family])
        supposed = {n: judge([(*_tested(d, n), d.margin) for d in family]) for n in PAPER_RUNS}
        for k, (i, draft) in enumerate(zip(members, family, strict=True)):
            one = fixed[k]
            found[i] = dataclasses.replace(
                draft,
                claim=one.claim,
                p=one.p,
                adjusted=one.adjusted,
                verdict=_verdict(draft, one.shown),
                sensitivity={
                    n: _verdict(draft, supposed[n][k].shown) for n in PAPER_RUNS if _has_spread(draft) and draft.n
                },
            )
    return found


@dataclass(frozen=True)
class Judged:
    """The claim with the smallest p, that p, and the p after Holm's correction."""

    claim: str
    p: float
    adjusted: float

    @property
    def shown(self) -> str:
        """The claim where it is shown, else empty."""
        return self.claim if self.adjusted <= LEVEL else ""


def judge(cells: Sequence[tuple[Comparison, Comparison, float]]) -> list[Judged]:
    """For each (accuracy, remaining, margin) of one family; a claim "" where nothing can be tested."""
    best: list[tuple[str, float]] = []
    for accuracy, remaining, margin in cells:
        if accuracy.testable and remaining.testable:
            shown = p_of_claims(accuracy, remaining, margin)
            best.append(min(shown.items(), key=lambda pair: pair[1]))
        else:
            best.append(("", math.nan))
    adjusted = holm([p for _, p in best])
    return [Judged(claim, p, q) for (claim, p), q in zip(best, adjusted, strict=True)]


def counts(found: Iterable[Verdict]) -> dict[str, int]:
    """How many printed numbers have each verdict, at the last epoch, without quoted ones."""
    total: dict[str, int] = {}
    for verdict in deciding(found):
        name = verdict.verdict.partition(" (")[0]
        total[name] = total.get(name, 0) + 1
    return dict(sorted(total.items(), key=lambda pair: ORDER.index(pair[0])))


def tally(found: Iterable[Verdict]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts(found).items())


def finding(where: str, found: Sequence[Verdict]) -> str:
    """How many numbers of a table have each verdict, and which readings reproduce one."""
    total = sum(counts(found).values())
    numbers = "one number" if total == 1 else f"{total} numbers"
    text = f"{where}: of {numbers} that the paper measured, at the last epoch: {tally(found)}."
    others = [v for v in found if v.n and not v.counts and v.verdict != QUOTED]
    if not others:
        return text
    shown = [_named(v, v.adjusted) for v in others if v.verdict.startswith(SHOWN)]
    almost = [_named(v, v.p) for v in others if v.uncorrected in SHOWN and not v.verdict.startswith(SHOWN)]
    uncorrected = f" Without the correction for many pairs: {'; '.join(almost)}." if almost else ""
    return f"{text} At other readings or alphas: {'; '.join(shown) or 'none reproduced'}.{uncorrected}"


def _named(verdict: Verdict, p: float) -> str:
    """A pair by its cell, claim, alpha and reading, with the p of its claim."""
    label = "" if verdict.match is None else f" at {verdict.match.label}"
    return f"{verdict.cell} {verdict.claim}{label}, {NAMES[verdict.epoch]} ({p_equals(p)})"


def _of_cell(name: str, target: Target, matches: Sequence[Match], among: Sequence[Condition]) -> list[Verdict]:
    """A draft for each match; where none decides at the last epoch, one more that says "not run"."""
    compared = [_compared(name, target, match, dense_twin(match.condition, among)) for match in matches]
    if any(draft.decides and draft.epoch == COUNTED for draft in compared):
        return compared
    return [Verdict(exhibit=name, target=target, epoch=COUNTED), *compared]


def _compared(name: str, target: Target, match: Match, twin: Condition | None) -> Verdict:
    epoch = match.epoch
    column = ACCURACY[target.metric, epoch]
    sparse = match.condition.by_seed(column)
    density = match.condition.by_seed(DENSITY[epoch])
    values = list(sparse.values())
    theirs = {} if twin is None else twin.by_seed(ACCURACY[target.metric, dense_epoch(epoch)])
    return Verdict(
        exhibit=name,
        target=target,
        epoch=epoch,
        match=match,
        twin=twin,
        accuracy=_against(values, target.sparse),
        remaining=against_fixed(_log_density(density.values(), target), 0.0),
        difference=_against(paired(sparse, theirs), _printed_difference(target)),
        dense=_against(list(theirs.values()), target.dense),
        n=min(len(values), len(density)),
        expected=len(match.condition.rows),
    )


def _tested(draft: Verdict, paper_runs: int | None = None) -> tuple[Comparison, Comparison]:
    """What is tested: accuracy and remaining ratio against the printed means.

    Without paper_runs the means are taken as fixed; with it they are means of so many runs. The
    printed ± is then their standard deviation; of the logarithm of the remaining ratio, by the
    delta method, it is ± / mean. Nothing is tested where there is no verdict to give.
    """
    target = draft.target
    if draft.match is None or target.origin == "quoted" or not _near(draft):
        return NO_TEST, NO_TEST
    accuracy, remaining = draft.accuracy, draft.remaining
    if paper_runs and target.sparse is not None and target.sparse_std is not None:
        values = list(draft.match.condition.by_seed(ACCURACY[target.metric, draft.epoch]).values())
        accuracy = against_sample(values, target.sparse, sd=target.sparse_std, n=paper_runs)
    if paper_runs and target.density_percent and target.density_std is not None:
        ratios = _log_density(draft.match.condition.by_seed(DENSITY[draft.epoch]).values(), target)
        remaining = against_sample(ratios, 0.0, sd=target.density_std / target.density_percent, n=paper_runs)
    return accuracy, remaining


def _verdict(draft: Verdict, claim: str) -> str:
    if draft.target.origin == "quoted":
        return QUOTED
    if draft.match is None or (draft.n == 0 and not draft.all_lost):
        return NOT_RUN
    if draft.n == 0:
        return with_count("", draft.n, draft.expected, draft.lost)
    if not _near(draft):
        return NOT_NEAR
    return with_count(claim, draft.n, draft.expected, draft.lost)


def with_count(claim: str, n: int, expected: int, lost: Mapping[str, int]) -> str:
    """A claim as it is shown: "inconclusive" where it is empty, and its seeds where some are missing or lost."""
    text = seeds(n, expected) + "".join(f", {count} {status}" for status, count in lost.items())
    if claim and not lost and n == expected:
        return claim
    return f"{claim or 'inconclusive'} ({text})"


def _near(draft: Verdict) -> bool:
    """False where the verdict is on the nearest alpha, and that is too far from the printed percentage."""
    if draft.match is None or draft.match.basis != "nearest" or not draft.match.decides:
        return True
    ratios = _log_density(draft.match.condition.by_seed(DENSITY[draft.epoch]).values(), draft.target)
    return abs(against_fixed(ratios, 0.0).difference) <= math.log(FACTOR)


def _family(draft: Verdict) -> tuple[str, ...]:
    """What Holm's correction runs over: the table's counted verdicts; and all its other pairs."""
    counted = draft.decides and draft.epoch == COUNTED
    return (draft.exhibit, draft.target.origin, "counted" if counted else "others")


def _against(values: Sequence[float], printed: float | None) -> Comparison:
    return NO_TEST if printed is None else against_fixed(values, printed)


def _log_density(fractions: Iterable[float], target: Target) -> list[float]:
    if not target.density_percent:
        return []
    return log_ratios(fractions, target.density_percent)


def _printed_difference(target: Target) -> float | None:
    """Sparse minus dense printed accuracy; in places the paper prints another difference."""
    return None if target.sparse is None or target.dense is None else target.sparse - target.dense


def _has_spread(draft: Verdict) -> bool:
    target = draft.target
    return target.origin == "measured" and (target.sparse_std is not None or target.density_std is not None)
