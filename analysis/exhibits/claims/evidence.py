"""Whether the seeds show a statement (True), contradict it (False), or do neither (None).

Each answer is a test at LEVEL. Fewer than two seeds give None.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from analysis.data.comparable import FACTOR
from analysis.data.conditions import Condition, Results, seeds
from analysis.data.epochs import ACCURACY, COUNTED, DENSITY, dense_epoch
from analysis.data.paired import log_ratios
from analysis.exhibits.claims.claim import twin_of
from analysis.exhibits.verdicts import LEVEL
from analysis.statistics.small_samples import Comparison, against_fixed, equivalence, largest, paired

SPREAD = math.log(FACTOR)

Answer = bool | None


def within(comparison: Comparison, margin: float) -> Answer:
    """Whether the difference lies within ±margin: two one-sided tests; False if it lies outside."""
    outside = 2 * min(comparison.p_above(margin), comparison.p_below(-margin))
    return _answer(equivalence(comparison, margin), outside)


def below(comparison: Comparison, bound: float) -> Answer:
    """Whether the difference is below the bound."""
    return _answer(comparison.p_below(bound), comparison.p_above(bound))


def better(comparison: Comparison, margin: float) -> Answer:
    """Whether it is "better": above 0 on average, and shown to be above -margin.

    The paper calls differences better that a few runs cannot distinguish from 0 (+0.02 points).
    False where the difference is shown to be below 0.
    """
    shown = comparison.p_above(-margin) if comparison.difference > 0 else 1.0
    return _answer(shown, comparison.p_below(0.0))


def some(tried: Sequence[tuple[float, float, bool]]) -> Answer:
    """Whether some alpha is good, from (p that it is, p that it is not, counts against) of each.

    The smallest p is multiplied by how many alphas were tried. Alphas count against the statement if
    they are sparse enough: False where there are such, and each is shown not to be good.
    """
    good = min((p for p, _, _ in tried if not math.isnan(p)), default=1.0)
    against = [p for _, p, counts in tried if counts] or [1.0]
    return _answer(len(tried) * good, largest(*against))


def almost_all(answers: Sequence[Answer]) -> Answer:
    """Whether all but one at most are shown; False where two or more are contradicted.

    Of fewer than three, all have to be shown: one of two is not almost all.
    """
    if answers.count(False) > 1 or set(answers) == {False}:
        return False
    return True if answers.count(True) >= max(min(len(answers), 2), len(answers) - 1) else None


def gap(results: Results, condition: Condition, epoch: str = COUNTED) -> Comparison | None:
    """Sparse minus dense accuracy in points, paired by seed; None without a dense run of such a seed."""
    twin = twin_of(results, condition)
    if twin is None:
        return None
    dense = twin.by_seed(ACCURACY["top1", dense_epoch(epoch)])
    both = paired(condition.by_seed(ACCURACY["top1", epoch]), dense)
    return against_fixed(both, 0.0) if both else None


def pairs(results: Results, condition: Condition) -> str:
    """How many of its seeds have a dense run beside them: `n=3`, or `n=2/3`."""
    twin = twin_of(results, condition)
    return seeds(0, len(condition.rows)) if twin is None else seeds_of_both(condition, twin)


def seeds_of_both(ours: Condition, theirs: Condition) -> str:
    """How many of our seeds are paired with one of theirs: `n=3`, or `n=2/3`."""
    return seeds(len({*ours.done["seed"]} & {*theirs.done["seed"]}), len(ours.rows))


def density_ratio(condition: Condition, percent: float, epoch: str = COUNTED) -> Comparison:
    """The logarithm of the remaining percentage over another."""
    return against_fixed(log_ratios(condition.by_seed(DENSITY[epoch]).values(), percent), 0.0)


def varies_more(ours: Condition, theirs: Condition) -> Answer:
    """Whether the logarithm of the density varies more over seeds: an F test of the variances."""
    from scipy.special import fdtr, fdtrc

    logs = [log_ratios(c.by_seed("density").values(), 100.0) for c in (ours, theirs)]
    if min(map(len, logs)) < 2:
        return None
    first, second = (statistics.variance(values) for values in logs)
    if second == 0:
        return True if first > 0 else None
    ratio, df = first / second, [len(values) - 1 for values in logs]
    return _answer(float(fdtrc(*df, ratio)), float(fdtr(*df, ratio)))


def mean_density(condition: Condition, epoch: str = COUNTED) -> float:
    """The mean fraction kept."""
    return condition.summary(DENSITY[epoch]).mean


def word(answers: Iterable[Answer]) -> str:
    """For the numbers: `shown`, `contradicted`, `neither`, joined."""
    names = {True: "shown", False: "contradicted", None: "neither"}
    return ", ".join(names[answer] for answer in answers)


def _answer(p_shown: float, p_contradicted: float) -> Answer:
    return True if p_shown <= LEVEL else False if p_contradicted <= LEVEL else None
