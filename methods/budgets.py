"""Divides a total density among layers: the exact number of weights that each layer keeps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

ALLOCATIONS = ("er", "erk", "uniform")  # these need only the shapes of the layers; `pattern` needs densities too


def allocate(
    shapes: Mapping[str, Sequence[int]],
    *,
    density: float,
    allocation: str,
    pattern: Sequence[float] | None = None,
) -> dict[str, int]:
    """Kept weights of each layer; they sum to round(density * all weights), each at least 1.

    shapes: the shapes of the weights, by name. pattern: the layer densities that the allocation
    `pattern` scales, in the order of the shapes. Raises ValueError, with the layer and its value,
    for a density that the allocation cannot give, and for an unknown allocation.
    """
    check_allocation(allocation, pattern)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(density * sum(sizes.values()))
    densities = layer_densities(shapes, density=density, allocation=allocation, pattern=pattern)
    wanted = {name: densities[name] * sizes[name] for name in sizes}
    if total < len(sizes):
        emptiest = min(wanted, key=lambda name: wanted[name])
        raise ValueError(
            f"density {density:g} keeps {total} weights, fewer than the {len(sizes)} layers: {emptiest} would get "
            f"{wanted[emptiest]:.2g} of its {sizes[emptiest]}; give a density of at least "
            f"{least_density(len(sizes), sum(sizes.values())):g}"
        )
    return round_to_total(wanted, sizes, total)


def least_density(count: int, weights: int) -> float:
    """The smallest density of three digits with round(density * weights) >= count."""
    exact = (count - 0.5) / weights  # the next density above it rounds to the count
    scale = 10.0 ** (2 - math.floor(math.log10(exact)))
    densities = (digits / scale for digits in itertools.count(math.ceil(exact * scale)))
    return next(density for density in densities if round(density * weights) >= count)


def check_allocation(allocation: str, pattern: Sequence[float] | None) -> None:
    """Raises ValueError for an unknown allocation, and for a pattern of other values than densities.

    The allocation `pattern` needs a pattern; the others take none.
    """
    if allocation not in (valid := sorted([*ALLOCATIONS, "pattern"])):
        raise ValueError(f"allocation is '{allocation}'; valid: {', '.join(valid)}")
    if (allocation == "pattern") != (pattern is not None):
        raise ValueError("allocation='pattern' and pattern=(a density for each layer, ...) go together: give both")
    for place, density in enumerate(pattern or (), 1):
        if isinstance(density, bool) or not isinstance(density, (int, float)) or not 0 < density <= 1:
            raise ValueError(f"pattern has {density!r} for layer {place}: a layer's density must lie in (0, 1]")


def layer_densities(
    shapes: Mapping[str, Sequence[int]],
    *,
    density: float,
    allocation: str,
    pattern: Sequence[float] | None = None,
) -> dict[str, float]:
    """The density of each layer before its count is rounded. Raises ValueError as `allocate`."""
    if allocation == "uniform":
        return dict.fromkeys(shapes, density)
    if allocation == "pattern":
        return from_pattern(shapes, density=density, pattern=pattern or ())
    return erk(shapes, density=density) if allocation == "erk" else er(shapes, density=density)


def er(shapes: Mapping[str, Sequence[int]], *, density: float) -> dict[str, float]:
    """Erdos-Renyi densities: proportional to (n_in + n_out) / (n_in * n_out), at most 1.

    n_out, n_in: the first two sizes of a weight, so that the kernel of a convolution does not
    count (Mocanu et al., "Scalable training ...", eq. 1; Evci et al., arXiv:1911.11134).
    """
    return _at_most_one(
        {name: sum(shape[:2]) / math.prod(shape[:2]) for name, shape in shapes.items()}, shapes, density
    )


def erk(shapes: Mapping[str, Sequence[int]], *, density: float) -> dict[str, float]:
    """Erdos-Renyi-Kernel densities: proportional to sum(shape) / prod(shape), at most 1.

    Evci et al., "Rigging the Lottery", arXiv:1911.11134, section 3 and appendix. For [c_out, c_in]
    this is the Erdos-Renyi initialisation of SET.
    """
    return _at_most_one({name: sum(shape) / math.prod(shape) for name, shape in shapes.items()}, shapes, density)


def _at_most_one(raw: Mapping[str, float], shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """The raw densities, scaled so that all layers together have this density.

    Where a layer would pass 1 it is kept dense and the rest is scaled again.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        rest = [name for name in shapes if name not in dense]
        budget = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        scale = budget / sum(raw[name] * sizes[name] for name in rest) if rest else 0.0
        full = {name for name in rest if raw[name] * scale > 1}
        if not full:
            return {name: 1.0 if name in dense else raw[name] * scale for name in shapes}
        dense |= full


def from_pattern(shapes: Mapping[str, Sequence[int]], *, density: float, pattern: Sequence[float]) -> dict[str, float]:
    """The pattern's layer densities, scaled so that all layers together have this density.

    pattern: the density of each layer, in the order of the shapes, such as those of a finished
    training. Raises ValueError where it has another number of layers, and where scaling takes a
    layer above 1: capping that layer would give another pattern.
    """
    if len(pattern) != len(shapes):
        raise ValueError(f"pattern has {len(pattern)} densities for {len(shapes)} layers: {', '.join(shapes)}")
    given = dict(zip(shapes, pattern, strict=True))
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    scale = density * sum(sizes.values()) / sum(given[name] * sizes[name] for name in sizes)
    densities = {name: value * scale for name, value in given.items()}
    fullest = max(densities, key=lambda name: densities[name])
    if densities[fullest] > 1 + 1e-9:
        raise ValueError(
            f"at density {density:g} the pattern gives {fullest} a density of {densities[fullest]:.4g}, above 1: "
            f"at most {math.floor(1e6 * density / densities[fullest]) / 1e6:g} is possible"
        )
    return {name: min(1.0, value) for name, value in densities.items()}


def share(weights: Mapping[str, float], *, room: Mapping[str, int], total: int) -> dict[str, int]:
    """Whole counts that sum to `total`, in proportion to the weights, none above its room.

    What a layer has no room for is shared among the others in the same proportion, or evenly where
    their weights are 0. Raises ValueError where the total exceeds the room of all layers.
    """
    if total > sum(room.values()):
        raise ValueError(f"cannot place {total} weights in {sum(room.values())} free positions")
    wanted: dict[str, float] = {}
    while True:
        rest = [name for name in weights if name not in wanted]
        budget = total - sum(wanted.values())
        mass = sum(weights[name] for name in rest)
        parts = {n: budget * (weights[n] / mass if mass > 0 else 1 / len(rest)) for n in rest}
        full = [name for name in rest if parts[name] >= room[name]]
        if not full:
            return round_to_total(wanted | parts, room, total, least=0)
        wanted |= {name: float(room[name]) for name in full}
        if len(full) == len(rest):
            return round_to_total(wanted, room, total, least=0)


def share_overflow_evenly(weights: Mapping[str, float], *, room: Mapping[str, int], total: int) -> dict[str, int]:
    """Whole counts that sum to `total`, in proportion to the weights, none above its room.

    What exceeds a layer's room is divided evenly among all layers, and again where that exceeds a
    layer's room: each layer gets min(room, its share + level), with one level for all. Raises
    ValueError where the total exceeds the room of all layers.
    """
    if total > sum(room.values()):
        raise ValueError(f"cannot place {total} weights in {sum(room.values())} free positions")
    mass = sum(weights.values())
    shares = {name: total * (weight / mass if mass > 0 else 1 / len(weights)) for name, weight in weights.items()}
    headroom = {name: room[name] - shares[name] for name in weights}
    overflow = level = 0.0
    for index, name in enumerate(sorted(headroom, key=lambda name: headroom[name])):
        level = overflow / (len(headroom) - index)
        if level <= headroom[name]:
            break
        overflow -= headroom[name]
    return round_to_total({n: min(room[n], part + level) for n, part in shares.items()}, room, total, least=0)


def round_to_total(
    wanted: Mapping[str, float], sizes: Mapping[str, int], total: int, *, least: int = 1
) -> dict[str, int]:
    """Whole counts near `wanted` that sum to `total`, each within [least, size].

    Layers with the largest remainders are rounded up first. Raises ValueError where no such counts
    exist.
    """
    counts = {name: min(max(math.floor(wanted[name]), least), sizes[name]) for name in wanted}
    by_remainder = sorted(wanted, key=lambda name: counts[name] - wanted[name])
    while (missing := total - sum(counts.values())) != 0:
        step = 1 if missing > 0 else -1
        order = by_remainder if step > 0 else by_remainder[::-1]
        open_names = [name for name in order if least <= counts[name] + step <= sizes[name]]
        if not open_names:
            raise ValueError(f"no room for {total} weights in layers of {dict(sizes)}")
        for name in open_names[: abs(missing)]:
            counts[name] += step
    return counts
