"""The claims of section 4.1 that Tables 2 and 3 show DST ahead of other sparse methods."""

from __future__ import annotations

import math

from analysis.data.conditions import Condition, Results
from analysis.data.epochs import ACCURACY, COUNTED
from analysis.data.selection import as_stated
from analysis.exhibits.claims.claim import Outcome, claim, judge
from analysis.exhibits.claims.evidence import Answer, almost_all, better, mean_density, seeds_of_both, word
from analysis.exhibits.verdicts import MARGINS
from analysis.paper import printed
from analysis.paper.printed import Target
from analysis.statistics.small_samples import against_fixed, paired


@claim(
    "table2-outperforms",
    section="4.1",
    claim="DST is more accurate than sparse momentum and DSR on CIFAR-10, in almost all settings",
    paper='"Dynamic Sparse Training (DST) outperforms them in almost all the settings as present in Table 2"',
    tested_by=(
        "at each density that Table 2 prints of a rival, which is trained here by the paper's recipe: the alpha "
        "nearest to it from below has a higher mean, and is shown to be less than 0.3 points worse, paired by seed; in "
        "all settings except at most one. Contradicted where two or more are below the rival"
    ),
)
def dst_outperforms_on_cifar10(results: Results) -> Outcome:
    answers, text, used = _settings(results, "table2")
    return judge([almost_all(answers)] if used else [], text, used)


@claim(
    "table3-outperforms",
    section="4.1",
    claim="DST has the better top-1 and top-5 accuracy on ImageNet, at slightly higher sparsity",
    paper=(
        '"Dynamic Sparse Training (DST) achieves better top-1 and top-5 accuracy with slightly higher model sparsity"'
    ),
    tested_by=(
        "at each density that Table 3 prints of a rival: the alpha nearest to it from below has a higher mean, and is "
        "shown to be less than 0.5 points worse. One seed shows nothing"
    ),
)
def dst_outperforms_on_imagenet(results: Results) -> Outcome:
    answers, text, used = _settings(results, "table3")
    return judge(answers if used else [], text, used)


def _settings(results: Results, table: str) -> tuple[list[Answer], str, list[Condition]]:
    """The answer to each setting of a table, None for one that was not run; numbers and conditions of those run."""
    conditions = [c for c in as_stated(table, results.conditions) if "paper" in c.protocols and len(c.done)]
    answers: list[Answer] = []
    said, used = [], []
    for target in printed.targets(table):
        ours, theirs = _dst(target, conditions), _rival(target, conditions)
        if target.origin != "quoted":
            continue
        if ours is None or theirs is None:
            answers.append(None)
            continue
        column = ACCURACY[target.metric, COUNTED]
        difference = against_fixed(paired(ours.by_seed(column), theirs.by_seed(column)), 0.0)
        answers.append(better(difference, MARGINS[target.dataset]))
        used += [ours, theirs]
        n = seeds_of_both(ours, theirs)
        said.append(
            f"{target.model}, {target.method} at {target.density_percent:g} %, {target.metric}: alpha {ours.alpha:g} "
            f"({100 * mean_density(ours):.2f} %) {difference.difference:+.2f} ({n}), {word(answers[-1:])}"
        )
    return answers, "; ".join(said), used


def _rival(target: Target, conditions: list[Condition]) -> Condition | None:
    """The condition of a rival at its printed density."""
    wanted = (target.density_percent or 0) / 100
    same = [c for c in conditions if (c.model, c.method) == (target.model, target.method)]
    return next((c for c in same if c.density is not None and math.isclose(c.density, wanted, rel_tol=1e-6)), None)


def _dst(target: Target, conditions: list[Condition]) -> Condition | None:
    """DST's condition that is no denser than a rival, and nearest to it."""
    wanted = (target.density_percent or 0) / 100
    same = [c for c in conditions if (c.model, c.method) == (target.model, "dst") and mean_density(c) <= wanted]
    return max(same, key=mean_density, default=None)
