"""The claims on what happens during training: sections 5.1 (LeNet-300-100) and 5.2 (VGG-16)."""

from __future__ import annotations

import pandas as pd

from analysis.evidence import Outcome, by_epoch, by_step, judge, not_run, seeds, several, stated, twin_of
from analysis.exhibit import Results
from analysis.settings import Setting

LENET = ("fc1.weight", "fc2.weight", "fc3.weight")
CONVOLUTIONS = tuple(f"conv{number}.weight" for number in range(1, 14))
NO_CURVES = "no traces of its runs"


def steps_prune_and_recover(results: Results) -> Outcome:
    setting = _lenet(results)
    if setting is None:
        return not_run()
    shares = [_share_of_steps(results, setting, kind) for kind in ("masked", "recovered")]
    if any(share.empty for share in shares):
        return not_run("no step of its runs is recorded")
    held = [bool(share[seed] >= 0.9) for share in shares for seed in share.index]
    masked, recovered = (several(100 * share, ".1f") for share in shares)
    return judge(held, f"steps that mask: {masked} %; that recover: {recovered} % ({seeds(setting)})", [setting])


def first_steps_fluctuate(results: Results) -> Outcome:
    setting = _lenet(results)
    if setting is None:
        return not_run()
    curves = [by_step(results, setting, f"density/{name}") for name in LENET]
    if any(curve.empty for curve in curves):
        return not_run("no step of its runs is recorded")
    moves = [curve.loc[:100].diff() for curve in curves]
    held = [bool((move[seed] > 0).any() and (move[seed] < 0).any()) for move in moves for seed in move]
    counts = [
        f"layer {i + 1}: {_mean_count(move > 0)} up, {_mean_count(move < 0)} down" for i, move in enumerate(moves)
    ]
    return judge(held, f"steps 1-100, mean over seeds: {'; '.join(counts)} ({seeds(setting)})", [setting])


def third_layer_stays(results: Results) -> Outcome:
    setting, (_, _, third) = _lenet_layers(results)
    if setting is None or third.empty:
        return not_run()
    lowest = third.min()
    return judge(
        list(lowest >= 0.99), f"lowest at an epoch's end: {several(lowest, '.3f')} ({seeds(setting)})", [setting]
    )


def first_layer_falls(results: Results) -> Outcome:
    setting, (first, second, third) = _lenet_layers(results)
    if setting is None or first.empty:
        return not_run()
    lowest = ((first <= second) & (first <= third)).all()
    below = [_first_epoch(first[seed] < 0.1) for seed in first]
    held = [*lowest, *(epoch is not None and epoch <= 5 for epoch in below)]
    said = ", ".join("never" if epoch is None else str(epoch) for epoch in below)
    text = f"lowest throughout in {int(lowest.sum())} of {len(lowest)} seeds; below 0.1 from epoch {said}"
    return judge(held, f"{text} ({seeds(setting)})", [setting])


def first_layers_keep_falling(results: Results) -> Outcome:
    setting, (first, second, _) = _lenet_layers(results)
    if setting is None or first.empty:
        return not_run()
    rises = [curve.diff().max() for curve in (first, second)]
    held = [bool(rise[seed] <= 0.005) for rise in rises for seed in rise.index]
    said = "; ".join(f"layer {i + 1}: {several(rise, '+.4f')}" for i, rise in enumerate(rises))
    return judge(held, f"largest change from one epoch to the next: {said} ({seeds(setting)})", [setting])


def lenet_follows_dense(results: Results) -> Outcome:
    setting = _lenet(results)
    gap = None if setting is None else _above_dense(results, setting)
    if setting is None or gap is None:
        return not_run()
    away = gap.abs().mean()
    said = f"mean distance {several(away)} points; largest {several(gap.abs().max())} ({seeds(setting)})"
    return judge(list(away <= 0.5), said, [setting])


def output_layer_is_low(results: Results) -> Outcome:
    setting, curve = _vgg(results, 0.1, "density/fc2.weight")
    if setting is None or not _reaches(curve, 80):
        return not_run()
    mean = curve.loc[20:80].mean()
    return judge(list(mean.between(0.05, 0.2)), f"mean ratio {several(mean)} ({seeds(setting)})", [setting])


def output_layer_returns(results: Results) -> Outcome:
    setting, curve = _vgg(results, 0.1, "density/fc2.weight")
    if setting is None or not _reaches(curve, 90):
        return not_run()
    before, after = curve.loc[80], curve.loc[81:90].max()
    said = f"epoch 80: {several(before)}; highest of epochs 81-90: {several(after)} ({seeds(setting)})"
    return judge(list((before < 0.5) & (after >= 0.95)), said, [setting])


def earlier_layers_stay(results: Results) -> Outcome:
    changes = {}
    setting = None
    for name in CONVOLUTIONS:
        setting, curve = _vgg(results, 0.1, f"density/{name}")
        if setting is not None and _reaches(curve, 91):
            changes[name] = (curve.loc[90:] - curve.loc[90]).abs().max()
    if setting is None or not changes:
        return not_run()
    largest = pd.DataFrame(changes).max(axis=1)
    return judge(list(largest <= 0.05), f"largest change {several(largest, '.3f')} ({seeds(setting)})", [setting])


def accuracy_jumps(results: Results) -> Outcome:
    setting, curve = _vgg(results, 0.1, "test_accuracy")
    if setting is None or not _reaches(curve, 85):
        return not_run()
    before, after = curve.loc[76:80].mean(), curve.loc[81:85].max()
    said = f"epochs 76-80: {several(before)} %; best of 81-85: {several(after)} % ({seeds(setting)})"
    return judge(list(before.between(82, 88) & (after > 92)), said, [setting])


def output_layer_near_40(results: Results) -> Outcome:
    setting, curve = _vgg(results, 0.01, "density/fc2.weight")
    _, accuracy = _vgg(results, 0.01, "test_accuracy")
    if setting is None or not _reaches(curve, 50) or accuracy.empty:
        return not_run()
    first = {seed: _first_epoch(curve[seed] >= 0.99) for seed in curve}
    held = [e is not None and 30 <= e <= 50 and bool(accuracy[seed][e] > 90) for seed, e in first.items()]
    said = ", ".join("never" if e is None else f"epoch {e} ({accuracy[seed][e]:.1f} %)" for seed, e in first.items())
    return judge(held, f"first at least 0.99: {said} ({seeds(setting)})", [setting])


def accuracy_gains_two(results: Results) -> Outcome:
    setting, curve = _vgg(results, 0.01, "test_accuracy")
    if setting is None or not _reaches(curve, 85):
        return not_run()
    gain = curve.loc[81:85].mean() - curve.loc[76:80].mean()
    return judge(list(gain.between(1, 3)), f"gain {several(gain, '+.2f')} points ({seeds(setting)})", [setting])


def sparse_above_dense_slow(results: Results) -> Outcome:
    return _share_above_dense(results, 0.01, window=1)


def sparse_above_dense(results: Results) -> Outcome:
    return _share_above_dense(results, 0.1, window=10)


def _share_above_dense(results: Results, lr: float, *, window: int) -> Outcome:
    setting = stated(results, "vgg16", alpha=5e-6, lr=lr)
    gap = None if setting is None else _above_dense(results, setting)
    if setting is None or gap is None:
        return not_run()
    smooth = gap.rolling(window).mean().dropna()
    if smooth.empty:
        return not_run(f"fewer than {window} epochs")
    share = (smooth > 0).mean()
    return judge(
        list(share >= 0.95), f"above in {several(100 * share, '.0f')} % of the epochs ({seeds(setting)})", [setting]
    )


def _above_dense(results: Results, setting: Setting) -> pd.DataFrame | None:
    """Sparse minus dense test accuracy by epoch, a column a seed that both have."""
    twin = twin_of(results, setting)
    if twin is None:
        return None
    sparse, dense = (by_epoch(results, s, "test_accuracy") for s in (setting, twin))
    both = sparse.columns.intersection(dense.columns)
    return (sparse[both] - dense[both]).dropna() if len(both) else None


def _lenet(results: Results) -> Setting | None:
    return stated(results, "lenet-300-100", alpha=5e-4)


def _lenet_layers(results: Results) -> tuple[Setting | None, tuple[pd.DataFrame, ...]]:
    setting = _lenet(results)
    empty = (pd.DataFrame(),) * 3
    curves = empty if setting is None else tuple(by_epoch(results, setting, f"density/{name}") for name in LENET)
    return setting, empty if any(curve.empty for curve in curves) else curves


def _vgg(results: Results, lr: float, name: str) -> tuple[Setting | None, pd.DataFrame]:
    setting = stated(results, "vgg16", alpha=5e-6, lr=lr)
    return setting, pd.DataFrame() if setting is None else by_epoch(results, setting, name)


def _reaches(curve: pd.DataFrame, epoch: int) -> bool:
    return not curve.empty and bool(curve.index.max() >= epoch)


def _share_of_steps(results: Results, setting: Setting, kind: str) -> pd.Series:
    """The share of the first epoch's steps at which at least one weight was masked or recovered, by seed."""
    curves = [by_step(results, setting, f"{kind}/{name}") for name in LENET]
    if any(curve.empty for curve in curves):
        return pd.Series(dtype=float)
    return (sum(curves[1:], curves[0]) > 0).mean()


def _first_epoch(reached: pd.Series) -> int | None:
    return int(reached.index[reached][0]) if reached.any() else None


def _mean_count(moves: pd.DataFrame) -> str:
    return f"{moves.sum().mean():.0f}"
