"""The claims of sections 4.1 and 4.2: accuracy and remaining ratio on MNIST, CIFAR-10 and ImageNet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise, product

from analysis.data.conditions import Condition, Results
from analysis.data.epochs import COUNTED, EPOCHS, NAMES
from analysis.data.paired import log_density_ratio
from analysis.exhibits.claims.claim import MNIST_MODELS, Outcome, by_alpha, claim, judge, kept, testable
from analysis.exhibits.claims.evidence import (
    SPREAD,
    Answer,
    below,
    density_ratio,
    gap,
    mean_density,
    pairs,
    some,
    word,
)
from analysis.exhibits.verdicts import MARGINS
from analysis.paper import printed
from analysis.statistics.small_samples import largest

CIFAR10_MODELS = ("vgg16", "wrn-16-8", "wrn-28-8")  # of Figure 3
Found = tuple[list[Answer], str, list[Condition]]  # answers, numbers, and the conditions that they are of


@claim(
    "lenets-98-pruned",
    section="4.1",
    claim="The LeNets lose little accuracy with almost 98 % of the weights pruned",
    paper=(
        '"Our method can prune almost 98% parameter with little loss of performance on Lenet-300-100 and Lenet-5-Caffe"'
    ),
    tested_by=(
        "for each network and reading some alpha leaves at most 1.25 times the printed share (3.1 and 2.05 %) and "
        "loses at most 0.2 points more against dense than Table 1 prints (0.67 and 0.27)"
    ),
)
def lenets_prune_98(results: Results) -> Outcome:
    found = {}
    for model, epoch in product(MNIST_MODELS[:2], EPOCHS):
        percent, loss = _table1(model)
        at_least = loss - MARGINS["mnist"]
        found[f"{model}, {NAMES[epoch]}"] = _some_alpha(results, model, percent=percent, at_least=at_least, epoch=epoch)
    return _together(found)


@claim(
    "lstm-99-pruned",
    section="4.1",
    claim="LSTMs with over 99 % of the weights pruned beat dense ones",
    paper=(
        '"sparse models with better performance than dense baseline with over 99% parameter pruned" (its '
        "Table 1 has 98.07 % for LSTM-a, and +0.06 and +0.02 points)"
    ),
    tested_by=(
        "some alpha leaves at most 1.25 times the printed share (2.41 and 1.23 %, true density), has a mean above "
        "dense, and is shown to be less than 0.2 points below it: a few runs cannot distinguish +0.02 from 0. "
        "Contradicted where every alpha that leaves so little is below dense"
    ),
)
def lstms_beat_dense(results: Results) -> Outcome:
    return _together({
        model: _some_alpha(results, model, percent=_table1(model)[0], at_least=-MARGINS["mnist"], above_dense=True)
        for model in MNIST_MODELS[2:]
    })  # fmt: skip


@claim(
    "density-falls",
    section="4.2",
    claim="The remaining ratio falls as alpha rises",
    paper='"the model remaining ratio keeps decreasing with increasing alpha"',
    tested_by=(
        "CIFAR-10: density falls at every step of alpha, for each network with three alphas or more; t tests on its "
        "logarithm, paired by seed"
    ),
)
def density_falls_on_cifar10(results: Results) -> Outcome:
    return _density_falls(results, CIFAR10_MODELS)


@claim(
    "density-falls-mnist",
    section="4.2 (ours: on MNIST)",
    claim="The remaining ratio falls as alpha rises",
    paper="the same words; there it is about CIFAR-10, this row is our addition",
    tested_by=(
        "MNIST: density falls at every step of alpha, for each network with three alphas or more; t tests on its "
        "logarithm, paired by seed"
    ),
)
def density_falls_on_mnist(results: Results) -> Outcome:
    return _density_falls(results, MNIST_MODELS)


@claim(
    "drop-below-5",
    section="4.2",
    claim="Below 5 % remaining the accuracy drops noticeably",
    paper=(
        '"if the alpha value is too large that makes the model remaining percentage less than 5%, there '
        'will be a noticeable accuracy drop" (Table 2: -0.73 and -0.45)'
    ),
    tested_by=("CIFAR-10: every condition below 5 % is more than 0.3 points below dense"),
)
def accuracy_drops_below_5(results: Results) -> Outcome:
    held: list[Answer] = []
    said, used = [], []
    for condition in (s for model in CIFAR10_MODELS for s in testable(by_alpha(results, model))):
        difference, density = gap(results, condition), mean_density(condition)
        if difference is not None and density < 0.05:
            held.append(below(difference, -MARGINS["cifar10"]))
            used.append(condition)
            said.append(
                f"{condition.model} alpha {condition.alpha:g}: {difference.difference:+.2f} at {100 * density:.2f} % "
                f"({pairs(results, condition)}), {word(held[-1:])}"
            )
    return judge(held, "; ".join(said) or "no condition with its dense baseline is below 5 %", used)


@claim(
    "moderate-alpha",
    section="4.2",
    claim="A moderate alpha gives a sparse network as good as dense",
    paper=(
        '"With a moderate alpha value, it is easy to obtain a sparse model with comparable or even higher'
        ' accuracy than the dense counterpart"'
    ),
    tested_by=(
        "CIFAR-10: for each network some alpha leaves at most half of the weights (ours) and is less than 0.3 points "
        "below dense"
    ),
)
def moderate_alpha_is_as_good(results: Results) -> Outcome:
    return _together({
        model: _some_alpha(results, model, percent=50, at_least=-MARGINS["cifar10"], factor=0.0)
        for model in CIFAR10_MODELS
    })  # fmt: skip


def _table1(model: str) -> tuple[float, float]:
    """(remaining percentage, sparse minus dense accuracy) that Table 1 prints of a model."""
    target = next(t for t in printed.targets("table1") if t.model == model)
    return target.density_percent or math.nan, (target.sparse or math.nan) - (target.dense or math.nan)


def _density_falls(results: Results, models: Sequence[str]) -> Outcome:
    """A unit is a step from one alpha to the next."""
    held: list[Answer] = []
    said, used, missing = [], [], []
    for model in models:
        found = testable(by_alpha(results, model))
        if len(found) < 3:
            missing.append(f"{model}: fewer than three alphas run")
            continue
        steps = [below(log_density_ratio(after, before), 0.0) for before, after in pairwise(found)]
        held += steps
        used += found
        densities = ", ".join(kept(condition) for condition in found)
        said.append(f"{model}: {densities} % {_alphas(found)}; steps: {word(steps)}")
    return judge(held, "; ".join([*said, *missing]) if held else "", used)


def _some_alpha(
    results: Results,
    model: str,
    *,
    percent: float,
    at_least: float,
    factor: float = SPREAD,
    above_dense: bool = False,
    epoch: str = COUNTED,
) -> Found:
    """Whether some alpha leaves little enough and is not too far below dense.

    percent times exp(factor): the bound of the remaining percentage. at_least: that of sparse minus
    dense. above_dense: the mean has to be above dense, and below dense contradicts. Returns no
    answer where nothing was run. An alpha counts against the claim only if it got as sparse.
    """
    found = [(c, gap(results, c, epoch)) for c in by_alpha(results, model)]
    every = [(c, density_ratio(c, percent, epoch), difference) for c, difference in found if difference is not None]
    known = [entry for entry in every if entry[2].testable] or every
    if not known:
        return [], "not run", []
    tried = []
    for _, density, difference in known:
        shown = 1.0 if above_dense and difference.difference <= 0 else difference.p_above(at_least)
        against = difference.p_below(0.0 if above_dense else at_least)
        tried.append((largest(density.p_below(factor), shown), against, density.difference <= factor))
    sparse = [entry for entry, pair in zip(known, tried, strict=True) if pair[2]]
    conditions = [c for c, _, _ in known]
    if not sparse:
        sparsest = min(known, key=lambda entry: entry[1].difference)[0]
        least = f"alpha {sparsest.alpha:g} leaves {kept(sparsest, epoch)} % ({sparsest.seeds})"
        return [None], f"no alpha that was run leaves so little in the geometric mean; {least}", conditions
    best = max(sparse, key=lambda entry: entry[2].difference)
    answer = some(tried)
    text = f"{best[2].difference:+.2f} at {kept(best[0], epoch)} % ({pairs(results, best[0])})"
    return [answer], f"alpha {best[0].alpha:g} {text}, {word([answer])}", conditions


def _together(found: Mapping[str, Found]) -> Outcome:
    """The outcome over networks, or over networks and readings, by their names."""
    held = [answer for answers, _, _ in found.values() for answer in answers]
    said = "; ".join(f"{name}: {text}" for name, (_, text, _) in found.items())
    return judge(held, said if held else "", [condition for _, _, used in found.values() for condition in used])


def _alphas(found: Sequence[Condition]) -> str:
    smallest = min(len(s.done) for s in found)
    return f"at alpha {', '.join(f'{s.alpha:g}' for s in found)} (n>={smallest} each)"
