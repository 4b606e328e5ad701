"""The claims of section 5.2: VGG-16 at two initial learning rates, which decay at epoch 80."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from analysis.data.conditions import Condition, Results, seeds
from analysis.data.layers_and_curves import by_epoch
from analysis.exhibits.claims.claim import (
    NotRunError,
    Outcome,
    above_dense,
    claim,
    first_epoch,
    judge,
    measured,
    several,
    stated,
    with_records,
)
from analysis.exhibits.claims.evidence import (
    SPREAD,
    Answer,
    better,
    density_ratio,
    gap,
    mean_density,
    pairs,
    within,
    word,
)
from analysis.exhibits.verdicts import MARGINS
from analysis.paper import printed
from analysis.paper.printed import Target

ALPHA = 5e-6
RISEN = 0.95  # ours: FC 2 has "increased up to 1"
CONVOLUTIONS = tuple(f"conv{number}.weight" for number in range(1, 14))


@claim(
    "fc2-low-until-80",
    section="5.2",
    claim="FC 2 of VGG-16 keeps about a tenth until the learning rate falls at epoch 80",
    paper='"the remaining ratio of FC 2 is quite low at around 0.1 for the first 80 epochs"',
    tested_by="learning rate 0.1: its mean ratio over epochs 20-80 lies in 0.05-0.2 (ours)",
)
def output_layer_is_low(results: Results) -> Outcome:
    condition, curve = _vgg(results, 0.1, "density/fc2.weight", through=80)
    mean = curve.loc[20:80].mean()
    return judge(list(mean.between(0.05, 0.2)), f"mean ratio {several(mean)} ({condition.seeds})", [condition])


@claim(
    "fc2-then-1",
    section="5.2",
    claim="After epoch 80, FC 2 of VGG-16 rises to 1 almost at once",
    paper='"increases almost immediately just after the 80 epoch"; "increases up to 1"',
    tested_by="learning rate 0.1: below 0.5 at epoch 80 and at least 0.95 by epoch 90 (ours)",
)
def output_layer_returns(results: Results) -> Outcome:
    condition, curve = _vgg(results, 0.1, "density/fc2.weight", through=90)
    before, after = curve.loc[80], curve.loc[81:90].max()
    said = f"epoch 80: {several(before)}; highest of epochs 81-90: {several(after)}"
    said += f"; last epoch: {several(curve.iloc[-1])} ({condition.seeds})"
    return judge(list((before < 0.5) & (after >= RISEN)), said, [condition])


@claim(
    "earlier-unchanged",
    section="5.2",
    claim="The earlier layers of VGG-16 hardly change after FC 2 has risen",
    paper=(
        '"the remaining ratios of the preceding convolutional layers are almost unchanged after the '
        'remaining ratio of the output layer increases up to 1"'
    ),
    tested_by=(
        "learning rate 0.1: no convolution's ratio changes by more than 0.05 (ours) from epoch 90 to the last; a seed "
        "whose FC 2 has not risen to 0.95 by then decides nothing"
    ),
)
def earlier_layers_stay(results: Results) -> Outcome:
    changes = {}
    _, output = _vgg(results, 0.1, "density/fc2.weight", through=91)
    for name in CONVOLUTIONS:
        condition, curve = _vgg(results, 0.1, f"density/{name}", through=91)
        changes[name] = (curve.loc[90:] - curve.loc[90]).abs().max()
    largest = pd.DataFrame(changes).max(axis=1)
    risen = output.loc[90, largest.index]
    held = [change <= 0.05 if kept >= RISEN else None for change, kept in zip(largest, risen, strict=True)]
    said = f"largest change {several(largest, '.3f')}; FC 2 at epoch 90: {several(risen)} ({condition.seeds})"
    return judge(held, said, [condition])


@claim(
    "accuracy-85-92",
    section="5.2",
    claim="The accuracy of VGG-16 jumps from about 85 to over 92 % at epoch 80",
    paper='"the sudden increase of the test accuracy from around 85% to over 92% just after the learning rate decay"',
    tested_by="learning rate 0.1: mean of epochs 76-80 in 82-88 % (ours), and over 92 % within epochs 81-85",
)
def accuracy_jumps(results: Results) -> Outcome:
    condition, curve = _vgg(results, 0.1, "test_accuracy", through=85)
    before, after = curve.loc[76:80].mean(), curve.loc[81:85].max()
    said = f"epochs 76-80: {several(before)} %; best of 81-85: {several(after)} % ({condition.seeds})"
    return judge(list(before.between(82, 88) & (after > 92)), said, [condition])


@claim(
    "fc2-at-40",
    section="5.2",
    claim="At learning rate 0.01, FC 2 of VGG-16 reaches 1 near epoch 40",
    paper=(
        '"the remaining ratio of FC 2 increases up to 1 after around 40 epochs when the test accuracy reaches over 90%"'
    ),
    tested_by="learning rate 0.01: first at least 0.99 within epochs 30-50 (ours), with accuracy over 90 % then",
)
def output_layer_near_40(results: Results) -> Outcome:
    condition, curve = _vgg(results, 0.01, "density/fc2.weight", through=50)
    _, accuracy = _vgg(results, 0.01, "test_accuracy", through=50)
    first = {seed: first_epoch(curve[seed] >= 0.99) for seed in curve}
    held = [e is not None and 30 <= e <= 50 and bool(accuracy[seed][e] > 90) for seed, e in first.items()]
    said = ", ".join("never" if e is None else f"epoch {e} ({accuracy[seed][e]:.1f} %)" for seed, e in first.items())
    return judge(held, f"first at least 0.99: {said} ({condition.seeds})", [condition])


@claim(
    "accuracy-90-92",
    section="5.2",
    claim="At learning rate 0.01, the accuracy of VGG-16 gains only about 2 points at epoch 80",
    paper=(
        '"the test accuracy only increases about 2% from 90% to 92% roughly after the learning rate decay'
        ' at the 80 epoch"'
    ),
    tested_by="learning rate 0.01: epochs 81-85 are 1-3 points (ours) above epochs 76-80, means",
)
def accuracy_gains_two(results: Results) -> Outcome:
    condition, curve = _vgg(results, 0.01, "test_accuracy", through=85)
    gain = curve.loc[81:85].mean() - curve.loc[76:80].mean()
    return judge(list(gain.between(1, 3)), f"gain {several(gain, '+.2f')} points ({condition.seeds})", [condition])


@claim(
    "sparse-above-dense-slow",
    section="5.2",
    claim="At learning rate 0.01, sparse VGG-16 is above dense all the time",
    paper='"the sparse accuracy is consistently higher than dense accuracy during the whole training process"',
    tested_by="learning rate 0.01: seed by seed above dense in at least 95 % of the epochs (ours)",
)
def sparse_above_dense_slow(results: Results) -> Outcome:
    return _share_above_dense(results, 0.01, window=1)


@claim(
    "sparse-above-dense",
    section="5.2",
    claim="At learning rate 0.1, the running average of sparse VGG-16 is above dense all the time",
    paper=(
        '"the running average of sparse accuracy is also higher than that of dense accuracy during the '
        'whole training process"'
    ),
    tested_by=(
        "learning rate 0.1: seed by seed, averages over 10 epochs above dense in at least 95 % of the "
        "epochs (both ours)"
    ),
)
def sparse_above_dense(results: Results) -> Outcome:
    return _share_above_dense(results, 0.1, window=10)


@claim(
    "final-remaining",
    section="5.2",
    claim="VGG-16 ends with 8.82 % of its weights at learning rate 0.1, with 12.45 % at 0.01",
    paper='"the final model remaining percentage is 8.82%"; "the final model remaining percentage is 12.45%"',
    tested_by="each within a factor of 0.8 to 1.25: two one-sided tests over seeds",
)
def final_remaining(results: Results) -> Outcome:
    """A unit is a learning rate."""
    held: list[Answer] = []
    said, used = [], []
    for rate, target, condition in _finals(results):
        if condition is None:
            held.append(None)
            said.append(f"learning rate {rate:g}: not run")
            continue
        held.append(within(density_ratio(condition, target.density_percent or math.nan), SPREAD))
        used.append(condition)
        said.append(
            f"learning rate {rate:g}: {100 * mean_density(condition):.2f} % ({condition.seeds}), {word(held[-1:])}"
        )
    return judge(held, "; ".join(said), used) if used else Outcome("not run")


@claim(
    "final-above-dense",
    section="5.2",
    claim="Sparse VGG-16 ends above dense at both learning rates",
    paper=(
        '"93.93%, which is better than 93.75% of the dense counterparts"; "92.74%, which is also better than 92.54% '
        'of the dense model"'
    ),
    tested_by=(
        "at each learning rate the mean is above dense, and shown to be less than 0.3 points below it, paired by seed; "
        "contradicted where it is below dense"
    ),
)
def final_above_dense(results: Results) -> Outcome:
    """A unit is a learning rate."""
    held: list[Answer] = []
    said, used = [], []
    for rate, _, condition in _finals(results):
        difference = None if condition is None else gap(results, condition)
        if condition is None or difference is None:
            held.append(None)
            said.append(f"learning rate {rate:g}: {'dense ' if condition else ''}not run")
            continue
        held.append(better(difference, MARGINS["cifar10"]))
        used.append(condition)
        n = pairs(results, condition)
        said.append(f"learning rate {rate:g}: {difference.difference:+.2f} ({n}), {word(held[-1:])}")
    return judge(held, "; ".join(said), used) if used else Outcome("not run")


def _finals(results: Results) -> Iterator[tuple[float, Target, Condition | None]]:
    """(learning rate, printed final values, condition) of Figures 5 and 6; None where it was not run."""
    for rate, figure in ((0.1, "figure5"), (0.01, "figure6")):
        found = measured(results, "vgg16", alpha=ALPHA, learning_rate=rate)
        yield rate, printed.targets(figure)[0], next(iter(found), None)


def _share_above_dense(results: Results, learning_rate: float, *, window: int) -> Outcome:
    condition = stated(results, "vgg16", alpha=ALPHA, learning_rate=learning_rate)
    condition, (difference,) = with_records(condition, [above_dense(results, condition)])
    smooth = difference.rolling(window).mean().dropna()
    if smooth.empty:
        raise NotRunError(f"fewer than {window} epochs")
    share = (smooth > 0).mean()
    said = f"above in {several(100 * share, '.0f')} % of the epochs ({seeds(len(share), len(condition.rows))})"
    return judge(list(share >= 0.95), said, [condition])


def _vgg(results: Results, learning_rate: float, name: str, *, through: int) -> tuple[Condition, pd.DataFrame]:
    """A recorded value by epoch, of runs that have come through this epoch."""
    condition = stated(results, "vgg16", alpha=ALPHA, learning_rate=learning_rate)
    condition, (curve,) = with_records(condition, [by_epoch(results.tables, condition, name)])
    if curve.index.max() < through:
        raise NotRunError
    return condition, curve
