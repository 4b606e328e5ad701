"""The claims of the appendix: A.1 (reset), A.2 (shapes of thresholds), A.3 (ranges)."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

from analysis.evidence import Outcome, judge, mean_of, not_run, seeds, several
from analysis.exhibit import Results
from analysis.settings import Setting

SHAPES = ("scalar", "vector", "matrix")


def reset_widens_alphas(results: Results) -> Outcome:
    """A unit is a network: how many of the alphas run both ways train, with the reset and without."""
    held, said, used = [], [], []
    for with_reset, without in _both_ways(results):
        alphas = sorted(set(with_reset) & set(without))
        on, off = (sum(_trains(results, ways[alpha]) for alpha in alphas) for ways in (with_reset, without))
        held.append(on > off)
        pairs = [ways[alpha] for ways in (with_reset, without) for alpha in alphas]
        used += pairs
        said.append(f"{pairs[0].model}: of {len(alphas)} alphas {on} train with the reset, {off} without")
    return judge(held, "; ".join(said), used) if held else not_run("no cells without the reset")


def matrix_is_like_vector(results: Results) -> Outcome:
    held, said, used = [], [], []
    for shapes in _by_shape(results):
        for vector in shapes["vector"]:
            for matrix in (m for m in shapes["matrix"] if m.alpha == vector.alpha):
                ratio = mean_of(matrix, "density") / mean_of(vector, "density")
                held.append(0.8 <= ratio <= 1.25)
                used += [vector, matrix]
                said.append(f"{vector.model} alpha {vector.alpha:g}: {ratio:.3g} times ({seeds(matrix)})")
    return judge(held, "; ".join(said), used)


def scalar_is_less_robust(results: Results) -> Outcome:
    """A unit is a network: the relative spread of the density over seeds, each shape at its nearest alpha."""
    held, said, used = [], [], []
    for shapes in _by_shape(results):
        chosen = _nearest_to_vector(shapes)
        if chosen is None:
            continue
        spread = {shape: _relative_spread(s) for shape, s in chosen.items()}
        held.append(spread["scalar"] > max(spread["vector"], spread["matrix"]))
        used += list(chosen.values())
        numbers = ", ".join(f"{shape} {100 * value:.1f} %" for shape, value in spread.items())
        said.append(f"{chosen['vector'].model}: {numbers} ({seeds(chosen['scalar'])})")
    return judge(held, "; ".join(said), used)


def vector_adds_little(results: Results) -> Outcome:
    """From above: every layer has at least as many biases or normalisation parameters as output units."""
    dense = [s for s in results.settings if s.method == "dense" and len(s.done) and "parameters_remaining" in s.done]
    named = {s.model for shapes in _by_shape(results) for s in shapes["vector"]}
    shares: dict[str, tuple[float, Setting]] = {}
    for setting in (s for s in dense if s.model in named and not s.model.startswith("lstm")):
        weights, parameters = _weights(results, setting), mean_of(setting, "parameters_remaining")
        if weights and not math.isnan(parameters):
            shares[setting.model] = (parameters - weights) / weights, setting
    said = [f"{model}: at most {100 * share:.3f} %" for model, (share, _) in shares.items()]
    return judge([share < 0.01 for share, _ in shares.values()], "; ".join(said), [s for _, s in shares.values()])


def matrix_doubles(results: Results) -> Outcome:
    held, said, used = [], [], []
    for shapes in _by_shape(results):
        for setting in shapes["matrix"][:1]:
            weights, kept = _weights(results, setting), _kept(results, setting)
            remaining = mean_of(setting, "parameters_remaining")
            if not weights or math.isnan(remaining):
                continue
            parameters = weights + remaining - kept
            held.append((parameters + weights) / parameters >= 1.9)
            used.append(setting)
            said.append(f"{setting.model}: {(parameters + weights) / parameters:.3f} times")
    return judge(held, "; ".join(said), used)


def weights_within_one(results: Results) -> Outcome:
    found = [(s, s.done["weight_max"].dropna().astype(float)) for s in _dst(results)]
    values: dict[str, list[float]] = defaultdict(list)
    for setting, largest in found:
        if len(largest):
            values[setting.model] += list(largest)
    held = [value <= 1 for numbers in values.values() for value in numbers]
    said = [f"{m}: largest {min(v):.2f} to {max(v):.2f} in {len(v)} cells" for m, v in values.items()]
    return judge(held, "; ".join(said), [s for s, largest in found if len(largest)])


def thresholds_within_one(results: Results) -> Outcome:
    low: dict[str, list[float]] = defaultdict(list)
    high: dict[str, list[float]] = defaultdict(list)
    used = []
    for setting in _dst(results):
        rows = setting.done[["threshold_min", "threshold_max"]].dropna().astype(float)
        low[setting.model] += list(rows["threshold_min"])
        high[setting.model] += list(rows["threshold_max"])
        used += [setting] if len(rows) else []
    models = [model for model in low if low[model]]
    said = [f"{m}: from {several([min(low[m])])} to {several([max(high[m])])} in {len(low[m])} cells" for m in models]
    if not models:
        return not_run()
    inside = all(min(low[m]) >= 0 and max(high[m]) <= 1 for m in models)
    return judge([True] if inside else [True, False], "; ".join(said), used)


def _dst(results: Results) -> list[Setting]:
    protocol = {"paper", "official"}
    return [s for s in results.settings if s.method == "dst" and len(s.done) and protocol & set(s.protocols)]


def _rest(setting: Setting, *varied: str) -> str:
    """What a setting is but for these hyperparameters of its method."""
    method = {key: value for key, value in setting.spec["method"].items() if key not in varied}
    kept = {key: value for key, value in setting.spec.items() if key not in ("seed", "step_records")}
    return json.dumps({**kept, "method": method}, sort_keys=True)


def _by_shape(results: Results) -> Iterator[dict[str, list[Setting]]]:
    """Settings that differ in the thresholds' shape and alpha alone, by shape; where there is more than one shape."""
    groups: dict[str, dict[str, list[Setting]]] = {}
    for setting in _dst(results):
        shape = setting.spec["method"].get("threshold", "vector")
        if shape in SHAPES:
            group = groups.setdefault(_rest(setting, "threshold", "alpha"), {name: [] for name in SHAPES})
            group[shape].append(setting)
    yield from (group for group in groups.values() if sum(bool(found) for found in group.values()) > 1)


def _nearest_to_vector(shapes: dict[str, list[Setting]]) -> dict[str, Setting] | None:
    """Per shape the setting of two seeds or more whose density is nearest to the vector's at an alpha that all name."""
    several_seeds = {shape: [s for s in found if len(s.done) > 1] for shape, found in shapes.items()}
    if not all(several_seeds.values()):
        return None
    shared = {s.alpha for s in shapes["scalar"]} & {s.alpha for s in shapes["matrix"]}
    vectors = [s for s in several_seeds["vector"] if s.alpha in shared] or several_seeds["vector"]
    wanted = math.log(mean_of(vectors[0], "density"))

    def away(setting: Setting) -> float:
        density = mean_of(setting, "density")
        return abs(math.log(density) - wanted) if density > 0 else math.inf

    return {"vector": vectors[0], **{shape: min(several_seeds[shape], key=away) for shape in ("scalar", "matrix")}}


def _relative_spread(setting: Setting) -> float:
    summary = setting.summary("density")
    return summary.sd / summary.mean


def _both_ways(results: Results) -> Iterator[tuple[dict[float, Setting], dict[float, Setting]]]:
    """(with the reset, without it) by alpha, of networks that were run both ways at one alpha or more."""
    groups: dict[str, tuple[dict[float, Setting], dict[float, Setting]]] = {}
    for setting in (s for s in results.settings if s.method == "dst" and s.alpha is not None and len(s.rows)):
        off = setting.spec["method"].get("reset_density") == 0
        ways = groups.setdefault(_rest(setting, "reset_density", "alpha"), ({}, {}))
        ways[off].setdefault(setting.alpha or 0.0, setting)
    yield from (ways for ways in groups.values() if set(ways[0]) & set(ways[1]))


def _trains(results: Results, setting: Setting) -> bool:
    """No seed was lost, and every layer of every done one keeps weights."""
    kept = results.tables.layers_of(setting.done["run_id"])["kept"].astype(float)
    return bool(len(setting.done)) and not setting.lost() and bool((kept > 0).all())


def _weights(results: Results, setting: Setting) -> int:
    return _sum(results, setting.done["run_id"].iloc[:1], "weights")


def _kept(results: Results, setting: Setting) -> float:
    return _sum(results, setting.done["run_id"], "kept") / len(setting.done)


def _sum(results: Results, run_ids: Iterable[str], column: str) -> int:
    return int(results.tables.layers_of(run_ids)[column].astype(int).sum())
