"""The claims of section 5.1: how LeNet-300-100 gets sparse, step by step and epoch by epoch."""

from __future__ import annotations

import pandas as pd

from analysis.data.conditions import Condition, Results, seeds
from analysis.data.layers_and_curves import by_epoch, by_step
from analysis.exhibits.claims.claim import (
    Outcome,
    above_dense,
    claim,
    first_epoch,
    judge,
    several,
    stated,
    with_records,
)
from analysis.exhibits.claims.evidence import within
from analysis.exhibits.verdicts import MARGINS
from analysis.output.numbers import limits
from analysis.paper import printed
from analysis.statistics.small_samples import against_fixed

LAYERS = ("fc1.weight", "fc2.weight", "fc3.weight")
WEIGHTS = printed.layer_sizes()["lenet-300-100"].weights


@claim(
    "steps-recover",
    section="5.1",
    claim="A training step prunes weights and brings pruned ones back",
    paper='"DST can achieve step-wise fine-grained pruning and recovery"',
    tested_by=(
        "LeNet-300-100, first epoch: the median step masks between one weight and 1 % of them, and recovers at least "
        "a tenth as many (both ours). It cannot distinguish moving thresholds from moving weights: how many weights "
        "cross a fixed threshold is not recorded"
    ),
)
def steps_prune_and_recover(results: Results) -> Outcome:
    """A unit is a seed."""
    condition, layers = _by_step(results, "masked", "recovered")
    masked, recovered = (sum(others, first).median() for first, *others in layers)
    held = list((masked >= 1) & (masked <= 0.01 * WEIGHTS) & (recovered >= 0.1 * masked))
    said = f"median step: masks {several(masked, '.0f')}, recovers {several(recovered, '.0f')} of {WEIGHTS:,} weights"
    return judge(held, f"{said} ({condition.seeds})", [condition])


@claim(
    "first-steps-fluctuate",
    section="5.1",
    claim="Layer remaining ratios go up and down within the first 100 steps",
    paper='"the layer remaining ratios fluctuate dynamically within the first 100 training steps"',
    tested_by=(
        "LeNet-300-100, steps 1-100, each layer: the median step masks or recovers a weight, and the rises of the "
        "ratio add up to at least a tenth of its falls (a tenth is ours)"
    ),
)
def first_steps_fluctuate(results: Results) -> Outcome:
    """A unit is a layer of a seed."""
    held, said = [], []
    condition, (ratios, masked, recovered) = _by_step(results, "density", "masked", "recovered")
    for i, (ratio, down, up) in enumerate(zip(ratios, masked, recovered, strict=True), start=1):
        flips = (down + up).loc[:100].median()
        moves = ratio.loc[:100].diff()
        rises, falls = moves.clip(lower=0).sum(), -moves.clip(upper=0).sum()
        held += list((flips >= 1) & (rises >= 0.1 * falls) & (falls > 0))
        share = (rises / falls).fillna(0.0)
        said.append(f"layer {i}: median flips {several(flips, '.0f')}, rises over falls {several(share)}")
    return judge(held, f"{'; '.join(said)} ({condition.seeds})", [condition])


@claim(
    "layer3-stays-1",
    section="5.1",
    claim="The output layer of LeNet-300-100 keeps all weights after the first epoch",
    paper='"the remaining ratio of layer 3 maintains to be 1 after the fluctuation during the first epoch"',
    tested_by="its ratio is at least 0.99 (ours) at the end of every epoch",
)
def third_layer_stays(results: Results) -> Outcome:
    condition, (_, _, third) = _layers(results)
    lowest = third.min()
    return judge(
        list(lowest >= 0.99), f"lowest at an epoch's end: {several(lowest, '.3f')} ({condition.seeds})", [condition]
    )


@claim(
    "layer1-below-10",
    section="5.1",
    claim="Layer 1 of LeNet-300-100 is the sparsest and falls below 10 % quickly",
    paper='"The remaining ratio of layer 1 is the lowest and decrease to less than 10% quickly"',
    tested_by="lowest of the three at the end of every epoch, and below 0.1 within 5 of the 20 epochs (5 is ours)",
)
def first_layer_falls(results: Results) -> Outcome:
    """A unit is a seed."""
    condition, (first, second, third) = _layers(results)
    lowest = ((first <= second) & (first <= third)).all()
    below = {seed: first_epoch(first[seed] < 0.1) for seed in first}
    held = [bool(lowest[seed]) and epoch is not None and epoch <= 5 for seed, epoch in below.items()]
    said = ", ".join("never" if epoch is None else str(epoch) for epoch in below.values())
    text = f"lowest throughout in {int(lowest.sum())} of {len(lowest)} seeds; below 0.1 from epoch {said}"
    return judge(held, f"{text} ({condition.seeds})", [condition])


@claim(
    "layers-1-2-decrease",
    section="5.1",
    claim="Layers 1 and 2 of LeNet-300-100 get sparser all the time",
    paper='"the remaining ratios of layer 1 and layer 2 keep decreasing"',
    tested_by="from one epoch's end to the next neither rises by more than 0.005 (ours)",
)
def first_layers_keep_falling(results: Results) -> Outcome:
    """A unit is a layer of a seed."""
    condition, (first, second, _) = _layers(results)
    rises = [curve.diff().max() for curve in (first, second)]
    held = [bool(rise[seed] <= 0.005) for rise in rises for seed in rise.index]
    said = "; ".join(f"layer {i + 1}: {several(rise, '+.4f')}" for i, rise in enumerate(rises))
    return judge(held, f"largest change from one epoch to the next: {said} ({condition.seeds})", [condition])


@claim(
    "lenet-as-dense",
    section="5.1",
    claim="Sparse LeNet-300-100 is as accurate as dense throughout training",
    paper=(
        '"the test accuracy of the sparse model is almost the same as the test accuracy on the dense '
        'model in the whole training process"'
    ),
    tested_by=(
        "sparse minus dense, averaged over the epochs, lies within 0.2 points: two one-sided tests, paired by seed. "
        "This is about the average only, where an early lead makes up for a late loss: Table 1 itself prints -0.47 at "
        "the end of this training, which lies outside"
    ),
)
def lenet_follows_dense(results: Results) -> Outcome:
    condition = _lenet(results)
    condition, (difference,) = with_records(condition, [above_dense(results, condition)])
    means = difference.mean()
    interval = limits(*against_fixed(list(means), 0.0).interval(confidence=0.90), signed=True)
    said = f"mean over epochs {several(means, '+.2f')}" + (f", 90 % interval{interval}" if interval else "")
    last = several(difference.iloc[-1], "+.2f")
    answer = within(against_fixed(list(means), 0.0), MARGINS["mnist"])
    return judge([answer], f"{said}; last epoch {last} ({seeds(len(means), len(condition.rows))})", [condition])


def _lenet(results: Results) -> Condition:
    return stated(results, "lenet-300-100", alpha=5e-4)


def _layers(results: Results) -> tuple[Condition, list[pd.DataFrame]]:
    """The remaining ratio of each layer by epoch, and the condition with the seeds that have all of them."""
    condition = _lenet(results)
    return with_records(condition, [by_epoch(results.tables, condition, f"density/{name}") for name in LAYERS])


def _by_step(results: Results, *kinds: str) -> tuple[Condition, list[list[pd.DataFrame]]]:
    """The condition as in `_layers`, and for each kind what the steps of the first epoch recorded of each layer."""
    condition = _lenet(results)
    names = [f"{kind}/{name}" for kind in kinds for name in LAYERS]
    condition, curves = with_records(condition, [by_step(results.tables, condition, name) for name in names])
    return condition, [curves[i : i + len(LAYERS)] for i in range(0, len(curves), len(LAYERS))]
