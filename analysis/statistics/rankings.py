"""How well rankings agree: Kendall's W, pairwise rank correlations, and what chance would give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.statistics.resampling import DRAWS, SEED, Floats, percentile_interval


def ranks(ratings: Sequence[Sequence[float]] | Floats) -> Floats:
    """Ranks within each row from 1 up, ties sharing their mean: [raters, items]."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(np.asarray(ratings, dtype=float), axis=1), dtype=float)


def kendalls_w(ratings: Sequence[Sequence[float]] | Floats) -> float:
    """Kendall's coefficient of concordance of m raters over n items, corrected for ties.

    W = S / (m sum_i V_i): S is the sum of squared deviations of the items' rank sums, V_i that of
    rater i's ranks, (n³ - n) / 12 without ties; 0 is no agreement, 1 is full. Kendall & Babington
    Smith, The Problem of m Rankings, 1939. nan for fewer than two raters or items, or all ties.
    """
    ranked = ranks(ratings)
    if min(ranked.shape) < 2:
        return float("nan")
    return float(_concordance(ranked[None])[0])


def pairwise(ratings: Sequence[Sequence[float]] | Floats) -> list[tuple[int, int, float, float]]:
    """(i, j, Spearman's rho, Kendall's tau-b) of every two raters; nan for one with only ties."""
    from scipy.stats import kendalltau

    table = np.asarray(ratings, dtype=float)
    ranked = ranks(table)
    found = []
    for i in range(len(table)):
        for j in range(i + 1, len(table)):
            spread = ranked[i].std() * ranked[j].std()
            if not spread:
                found.append((i, j, float("nan"), float("nan")))
                continue
            rho = float(((ranked[i] - ranked[i].mean()) * (ranked[j] - ranked[j].mean())).mean() / spread)
            found.append((i, j, rho, float(kendalltau(table[i], table[j]).statistic)))
    return found


def chance(ratings: Sequence[Sequence[float]] | Floats, *, draws: int = DRAWS, seed: int = SEED) -> Floats:
    """W of rankings whose items are shuffled separately for each rater: [draws]; mean 1 / m."""
    ranked = ranks(ratings)
    generator = np.random.default_rng(seed)
    shuffled = generator.permuted(np.broadcast_to(ranked, (draws, *ranked.shape)).copy(), axis=2)
    return _concordance(shuffled)


def p_value(observed: float, by_chance: Floats) -> float:
    """The share of shuffled rankings that agree as well; never 0, as the observation counts."""
    return float((1 + (by_chance >= observed - 1e-12).sum()) / (1 + len(by_chance)))


def interval_over_runs(groups: Sequence[Floats], *, draws: int = DRAWS, seed: int = SEED) -> tuple[float, float]:
    """Percentile interval of W where each rater is a mean of runs, which are resampled.

    groups: of each rater its runs, [runs, items]. (nan, nan) where every rater has a single run.
    """
    if all(len(group) < 2 for group in groups):
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    means = [group[generator.integers(0, len(group), size=(draws, len(group)))].mean(axis=1) for group in groups]
    stacked = np.stack(means, axis=1)
    return percentile_interval(_concordance(ranks(stacked.reshape(-1, stacked.shape[2])).reshape(stacked.shape)))


def interval_over_raters(
    ratings: Sequence[Sequence[float]] | Floats, *, draws: int = DRAWS, seed: int = SEED
) -> tuple[float, float]:
    """Percentile interval of W where the raters themselves, runs of other seeds, are resampled.

    A rater that is drawn twice agrees with itself, which would raise W. So each draw uses only
    pairs of different raters: W = (v + (m - 1) c) / (m v), where v is the mean variance of the
    ranks and c their mean covariance. This is W itself where every rater is drawn once. (nan, nan)
    for one rater.
    """
    ranked = ranks(ratings)
    count = len(ranked)
    if count < 2:
        return float("nan"), float("nan")
    centred = ranked - ranked.mean(axis=1, keepdims=True)
    covariance = centred @ centred.T
    chosen = np.random.default_rng(seed).integers(0, count, size=(draws, count))
    variance = covariance[chosen, chosen].mean(axis=1)
    different = chosen[:, :, None] != chosen[:, None, :]
    pairs = np.where(different, covariance[chosen[:, :, None], chosen[:, None, :]], 0.0).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        between = pairs / different.sum(axis=(1, 2))
        return percentile_interval((variance + (count - 1) * between) / (count * variance))


def _concordance(ranked: Floats) -> Floats:
    """W of each set of rankings: [sets, raters, items] -> [sets]."""
    sums = ranked.sum(axis=1)
    squares = ((sums - sums.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    own = ((ranked - ranked.mean(axis=2, keepdims=True)) ** 2).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(squares / (ranked.shape[1] * own))
