"""The claims of section 5.1: how LeNet-300-100 gets sparse, step by step and epoch by epoch."""

from __future__ import annotations

import pandas as pd

from analysis.data.conditions import Condition, Results
from analysis.data.layers_and_curves import by_epoch, by_step
from analysis.exhibits.claims.claim import NotRunError, Outcome, above_dense, claim, first_epoch, judge, several, stated

LAYERS = ("fc1.weight", "fc2.weight", "fc3.weight")


@claim(
    "steps-recover",
    section="5.1",
    claim="Every training step prunes weights and brings pruned ones back",
    paper='"DST can achieve step-wise fine-grained pruning and recovery"',
    tested_by="LeNet-300-100, first epoch: at least 90 % of the steps mask a weight, and at least 90 % recover one",
)
def steps_prune_and_recover(results: Results) -> Outcome:
    condition = _lenet(results)
    shares = []
    for kind in ("masked", "recovered"):  # of the steps, those with at least one such weight, by seed
        first, *others = _by_step(results, condition, kind)
        shares.append((sum(others, first) > 0).mean())
    held = [bool(share[seed] >= 0.9) for share in shares for seed in share.index]
    masked, recovered = (several(100 * share, ".1f") for share in shares)
    return judge(held, f"steps that mask: {masked} %; that recover: {recovered} % ({condition.seeds})", [condition])


@claim(
    "first-steps-fluctuate",
    section="5.1",
    claim="Layer remaining ratios go up and down within the first 100 steps",
    paper='"the layer remaining ratios fluctuate dynamically within the first 100 training steps"',
    tested_by="LeNet-300-100: within steps 1-100 every layer's ratio rises at least once and falls at least once",
)
def first_steps_fluctuate(results: Results) -> Outcome:
    condition = _lenet(results)
    moves = [curve.loc[:100].diff() for curve in _by_step(results, condition, "density")]
    held = [bool((move[seed] > 0).any() and (move[seed] < 0).any()) for move in moves for seed in move]
    counts = [
        f"layer {i + 1}: {_mean_count(move > 0)} up, {_mean_count(move < 0)} down" for i, move in enumerate(moves)
    ]
    return judge(held, f"steps 1-100, mean over seeds: {'; '.join(counts)} ({condition.seeds})", [condition])


@claim(
    "layer3-stays-1",
    section="5.1",
    claim="The output layer of LeNet-300-100 keeps all weights after the first epoch",
    paper='"the remaining ratio of layer 3 maintains to be 1 after the fluctuation during the first epoch"',
    tested_by="its ratio is at least 0.99 at the end of every epoch",
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
    condition, (first, second, third) = _layers(results)
    lowest = ((first <= second) & (first <= third)).all()
    below = [first_epoch(first[seed] < 0.1) for seed in first]
    held = [*lowest, *(epoch is not None and epoch <= 5 for epoch in below)]
    said = ", ".join("never" if epoch is None else str(epoch) for epoch in below)
    text = f"lowest throughout in {int(lowest.sum())} of {len(lowest)} seeds; below 0.1 from epoch {said}"
    return judge(held, f"{text} ({condition.seeds})", [condition])


@claim(
    "layers-1-2-decrease",
    section="5.1",
    claim="Layers 1 and 2 of LeNet-300-100 get sparser all the time",
    paper='"the remaining ratios of layer 1 and layer 2 keep decreasing"',
    tested_by="from one epoch's end to the next neither rises by more than 0.005",
)
def first_layers_keep_falling(results: Results) -> Outcome:
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
    tested_by="the two differ by at most 0.5 points on average over the epochs, seed by seed (0.5 is ours)",
)
def lenet_follows_dense(results: Results) -> Outcome:
    condition = _lenet(results)
    gap = above_dense(results, condition)
    distance = gap.abs().mean()
    said = f"mean distance {several(distance)} points; largest {several(gap.abs().max())} ({condition.seeds})"
    return judge(list(distance <= 0.5), said, [condition])


def _lenet(results: Results) -> Condition:
    return stated(results, "lenet-300-100", alpha=5e-4)


def _layers(results: Results) -> tuple[Condition, list[pd.DataFrame]]:
    """The remaining ratio of each layer by epoch."""
    condition = _lenet(results)
    curves = [by_epoch(results.tables, condition, f"density/{name}") for name in LAYERS]
    if any(curve.empty for curve in curves):
        raise NotRunError
    return condition, curves


def _by_step(results: Results, condition: Condition, kind: str) -> list[pd.DataFrame]:
    """What is recorded of each layer by step of the first epoch."""
    curves = [by_step(results.tables, condition, f"{kind}/{name}") for name in LAYERS]
    if any(curve.empty for curve in curves):
        raise NotRunError("no step of its runs is recorded")
    return curves


def _mean_count(moves: pd.DataFrame) -> str:
    return f"{moves.sum().mean():.0f}"
