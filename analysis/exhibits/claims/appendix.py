"""The claims of the appendix: A.1 (reset), A.2 (shapes of thresholds), A.3 (ranges)."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

from analysis.data.conditions import PROTOCOLS, PUBLISHED, Condition, Results
from analysis.exhibits.claims.claim import Outcome, claim, judge, mean_of, several

SHAPES = ("scalar", "vector", "matrix")


@claim(
    "reset-widens",
    section="A.1",
    claim="Resetting thresholds widens the range of alphas that train",
    paper='"This mechanism makes the training process smoother and enables a wider range choice of alpha"',
    tested_by=(
        "at the alphas run with and without it, those with every layer alive at the end (over 0 kept) and"
        " a done run: more with the reset"
    ),
)
def reset_widens_alphas(results: Results) -> Outcome:
    """A unit is a network: how many of its alphas train with the reset, and how many without."""
    held, said, used = [], [], []
    for with_reset, without in _both_ways(results):
        alphas = sorted(set(with_reset) & set(without))
        on, off = (sum(_trains(results, ways[alpha]) for alpha in alphas) for ways in (with_reset, without))
        held.append(on > off)
        pairs = [ways[alpha] for ways in (with_reset, without) for alpha in alphas]
        used += pairs
        said.append(f"{pairs[0].model}: of {len(alphas)} alphas {on} train with the reset, {off} without")
    return judge(held, "; ".join(said) or "no cells without the reset", used)


@claim(
    "matrix-like-vector",
    section="A.2",
    claim="Matrix thresholds leave about the same share as vector thresholds",
    paper='"the matrix threshold has almost the same model remaining ratio compared with the vector threshold"',
    tested_by="at the same alpha the densities' ratio lies in 0.8-1.25, for each network",
)
def matrix_is_like_vector(results: Results) -> Outcome:
    held, said, used = [], [], []
    for shapes in _by_shape(results):
        for vector in shapes["vector"]:
            for matrix in (m for m in shapes["matrix"] if m.alpha == vector.alpha):
                ratio = mean_of(matrix, "density") / mean_of(vector, "density")
                held.append(0.8 <= ratio <= 1.25)
                used += [vector, matrix]
                said.append(f"{vector.model} alpha {vector.alpha:g}: {ratio:.3g} times ({matrix.seeds})")
    return judge(held, "; ".join(said), used)


@claim(
    "scalar-less-robust",
    section="A.2",
    claim="Scalar thresholds are less robust than vector and matrix ones",
    paper='"The scalar threshold is less robust than the vector and matrix threshold"',
    tested_by=(
        "at each shape's alpha with the density nearest to the vector's, the scalar's density varies most"
        " over seeds, relative to its mean (ours: robust is not defined there)"
    ),
)
def scalar_is_less_robust(results: Results) -> Outcome:
    """A unit is a network: the relative spread of the density over seeds, at the nearest alphas."""
    held, said, used = [], [], []
    for shapes in _by_shape(results):
        chosen = _nearest_to_vector(shapes)
        if chosen is None:
            continue
        spread = {shape: _relative_spread(s) for shape, s in chosen.items()}
        held.append(spread["scalar"] > max(spread["vector"], spread["matrix"]))
        used += list(chosen.values())
        numbers = ", ".join(f"{shape} {100 * value:.1f} %" for shape, value in spread.items())
        said.append(f"{chosen['vector'].model}: {numbers} ({chosen['scalar'].seeds})")
    return judge(held, "; ".join(said), used)


@claim(
    "vector-overhead",
    section="A.2",
    claim="Vector thresholds add less than 1 % to the parameters in training",
    paper='"the vector threshold only adds less than 1% additional network parameter"',
    tested_by=(
        "from above: a layer has as many biases or normalisation parameters as thresholds at least, and "
        "all that is no weight is below 1 % of the weights"
    ),
)
def vector_adds_little(results: Results) -> Outcome:
    """An upper bound: a layer has a bias or normalisation parameter per output at least."""
    dense = [s for s in results.conditions if s.method == "dense" and len(s.done) and "parameters_remaining" in s.done]
    named = {s.model for shapes in _by_shape(results) for s in shapes["vector"]}
    shares: dict[str, tuple[float, Condition]] = {}
    for condition in (s for s in dense if s.model in named and not s.model.startswith("lstm")):
        weights, parameters = _weights(results, condition), mean_of(condition, "parameters_remaining")
        if weights and not math.isnan(parameters):
            shares[condition.model] = (parameters - weights) / weights, condition
    said = [f"{model}: at most {100 * share:.3f} %" for model, (share, _) in shares.items()]
    return judge([share < 0.01 for share, _ in shares.values()], "; ".join(said), [s for _, s in shares.values()])


@claim(
    "matrix-overhead",
    section="A.2",
    claim="Matrix thresholds about double the parameters in training",
    paper='"the matrix threshold almost doubles the amount of parameter during the training process"',
    tested_by=(
        "a threshold a weight: weights times two over all parameters, at least 1.9, for each network run with a matrix"
    ),
)
def matrix_doubles(results: Results) -> Outcome:
    held, said, used = [], [], []
    for shapes in _by_shape(results):
        for condition in shapes["matrix"][:1]:
            weights, kept = _weights(results, condition), _kept(results, condition)
            remaining = mean_of(condition, "parameters_remaining")
            if not weights or math.isnan(remaining):
                continue
            parameters = weights + remaining - kept
            held.append((parameters + weights) / parameters >= 1.9)
            used.append(condition)
            said.append(f"{condition.model}: {(parameters + weights) / parameters:.3f} times")
    return judge(held, "; ".join(said), used)


@claim(
    "weights-in-1",
    section="A.3",
    claim="All weights lie within [-1; 1]",
    paper='"all the elements in W are distributed within [-1,1]"',
    tested_by="largest weight magnitude at the end at most 1, every DST cell of a protocol",
)
def weights_within_one(results: Results) -> Outcome:
    found = [(s, s.done["weight_max"].dropna().astype(float)) for s in _dst(results)]
    values: dict[str, list[float]] = defaultdict(list)
    for condition, largest in found:
        if len(largest):
            values[condition.model] += list(largest)
    held = [value <= 1 for numbers in values.values() for value in numbers]
    said = [f"{m}: largest {min(v):.2f} to {max(v):.2f} in {len(v)} cells" for m, v in values.items()]
    return judge(held, "; ".join(said), [s for s, largest in found if len(largest)])


@claim(
    "thresholds-in-1",
    section="A.3",
    claim="Almost all thresholds lie within [0; 1]",
    paper='"almost all the elements in the vector threshold are distributed within [0,1]"',
    tested_by=(
        "lowest and highest threshold at the end within [0; 1]; only these are recorded, so a value outside "
        "does not refute almost all: mixed"
    ),
)
def thresholds_within_one(results: Results) -> Outcome:
    low: dict[str, list[float]] = defaultdict(list)
    high: dict[str, list[float]] = defaultdict(list)
    used = []
    for condition in _dst(results):
        rows = condition.done[["threshold_min", "threshold_max"]].dropna().astype(float)
        low[condition.model] += list(rows["threshold_min"])
        high[condition.model] += list(rows["threshold_max"])
        used += [condition] if len(rows) else []
    models = [model for model in low if low[model]]
    said = [f"{m}: from {several([min(low[m])])} to {several([max(high[m])])} in {len(low[m])} cells" for m in models]
    outside = any(min(low[m]) < 0 or max(high[m]) > 1 for m in models)
    return judge([True, False] if outside else [True] * bool(models), "; ".join(said), used)


def _dst(results: Results) -> list[Condition]:
    """DST and its variants in one of the protocols, with runs."""
    return [c for c in results.conditions if c.method == "dst" and len(c.done) and set(PROTOCOLS) & set(c.protocols)]


def _without(condition: Condition, *hyperparameters: str) -> str:
    """Its spec without these hyperparameters of its method, as JSON."""
    method = {key: value for key, value in condition.spec["method"].items() if key not in hyperparameters}
    return json.dumps({**condition.spec, "method": method}, sort_keys=True)


def _by_shape(results: Results) -> Iterator[dict[str, list[Condition]]]:
    """Conditions that differ only in alpha and the thresholds' shape, by shape."""
    groups: dict[str, dict[str, list[Condition]]] = {}
    for condition in _dst(results):
        shape = condition.spec["method"].get("threshold", "vector")
        if shape in SHAPES:
            group = groups.setdefault(_without(condition, "threshold", "alpha"), {name: [] for name in SHAPES})
            group[shape].append(condition)
    yield from (group for group in groups.values() if sum(bool(found) for found in group.values()) > 1)


def _nearest_to_vector(shapes: dict[str, list[Condition]]) -> dict[str, Condition] | None:
    """For each shape the condition of several seeds with the density nearest to the vector's."""
    several_seeds = {shape: [s for s in found if len(s.done) > 1] for shape, found in shapes.items()}
    if not all(several_seeds.values()):
        return None
    shared = {s.alpha for s in shapes["scalar"]} & {s.alpha for s in shapes["matrix"]}
    vectors = [s for s in several_seeds["vector"] if s.alpha in shared] or several_seeds["vector"]
    wanted = math.log(mean_of(vectors[0], "density"))

    def distance(condition: Condition) -> float:
        density = mean_of(condition, "density")
        return abs(math.log(density) - wanted) if density > 0 else math.inf

    return {"vector": vectors[0], **{shape: min(several_seeds[shape], key=distance) for shape in ("scalar", "matrix")}}


def _relative_spread(condition: Condition) -> float:
    summary = condition.summary("density")
    return summary.sd / summary.mean


def _both_ways(results: Results) -> Iterator[tuple[dict[float, Condition], dict[float, Condition]]]:
    """(with the reset, without it) by alpha, of networks that were run both ways at some alpha."""
    groups: dict[str, tuple[dict[float, Condition], dict[float, Condition]]] = {}
    for condition in (s for s in results.conditions if s.method == "dst" and s.alpha is not None and len(s.rows)):
        off = not condition.spec["method"].get("reset_density", PUBLISHED["dst"]["reset_density"])
        ways = groups.setdefault(_without(condition, "reset_density", "alpha"), ({}, {}))
        ways[off].setdefault(condition.alpha or 0.0, condition)
    yield from (ways for ways in groups.values() if set(ways[0]) & set(ways[1]))


def _trains(results: Results, condition: Condition) -> bool:
    """No seed was lost, and every layer of every done one keeps weights."""
    kept = results.tables.layers_of(condition.done["run_id"])["kept"].astype(float)
    return bool(len(condition.done)) and not condition.lost() and bool((kept > 0).all())


def _weights(results: Results, condition: Condition) -> int:
    return _sum(results, condition.done["run_id"].iloc[:1], "weights")


def _kept(results: Results, condition: Condition) -> float:
    return _sum(results, condition.done["run_id"], "kept") / len(condition.done)


def _sum(results: Results, run_ids: Iterable[str], column: str) -> int:
    return int(results.tables.layers_of(run_ids)[column].astype(int).sum())
