"""Divides a total density among layers: the exact number of weights that each layer keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

ALLOCATIONS = ("erk", "uniform")


def allocate(shapes: Mapping[str, Sequence[int]], *, density: float, allocation: str) -> dict[str, int]:
    """Kept weights of each layer; they sum to round(density * all weights), each at least 1.

    shapes: the shapes of the weights, by name. Raises ValueError for an unknown allocation, or a
    density that leaves a layer without a weight.
    """
    if allocation not in ALLOCATIONS:
        raise ValueError(f"unknown allocation '{allocation}'; valid: {', '.join(ALLOCATIONS)}")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(density * sum(sizes.values()))
    if total < len(sizes):
        raise ValueError(f"density {density:g} keeps {total} weights, fewer than the {len(sizes)} layers")
    densities = erk(shapes, density=density) if allocation == "erk" else dict.fromkeys(shapes, density)
    return round_to_total({name: densities[name] * sizes[name] for name in sizes}, sizes, total)


def erk(shapes: Mapping[str, Sequence[int]], *, density: float) -> dict[str, float]:
    """Erdos-Renyi-Kernel densities: proportional to sum(shape) / prod(shape), at most 1.

    Where a layer would pass 1 it is kept dense and the rest is scaled again (Evci et al.,
    "Rigging the Lottery", arXiv:1911.11134, section 3 and appendix). For [c_out, c_in] this is
    the Erdos-Renyi initialisation of SET.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        rest = [name for name in shapes if name not in dense]
        budget = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        scale = budget / sum(raw[name] * sizes[name] for name in rest) if rest else 0.0
        full = {name for name in rest if raw[name] * scale > 1}
        if not full:
            return {name: 1.0 if name in dense else raw[name] * scale for name in shapes}
        dense |= full


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
