"""Layer-wise budgets: golden ERK densities, exact totals, errors."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.budgets import (
    ALLOCATIONS,
    allocate,
    check_allocation,
    er,
    erk,
    from_pattern,
    least_density,
    round_to_total,
    share,
    share_overflow_evenly,
)

LENET_300_100 = {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}
LENET_5 = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}

layers = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple),
    min_size=1,
    max_size=6,
)


def test_the_networks_have_the_printed_number_of_weights() -> None:
    assert sum(math.prod(shape) for shape in LENET_300_100.values()) == 266_200
    assert sum(math.prod(shape) for shape in LENET_5.values()) == 430_500


@pytest.mark.parametrize(
    ("shapes", "density", "printed"),
    [
        (LENET_300_100, 0.10, ".080 .230 1"),
        (LENET_300_100, 0.05, ".0385 .111 .918"),
        (LENET_300_100, 0.02, ".0154 .0445 .367"),
        (LENET_300_100, 0.01, ".0077 .0223 .184"),
        (LENET_5, 0.10, "1 .0871 .0884 1"),
        (LENET_5, 0.05, ".726 .0375 .0381 1"),
        (LENET_5, 0.02, ".278 .0143 .0146 .457"),
        (LENET_5, 0.01, ".139 .0072 .0073 .229"),
    ],
)
def test_erk_gives_the_printed_densities(shapes: dict[str, tuple[int, ...]], density: float, printed: str) -> None:
    got = erk(shapes, density=density)
    assert list(got) == list(shapes)
    for value, want in zip(got.values(), printed.split(), strict=True):
        last_digit = 10.0 ** -len(want.partition(".")[2]) if "." in want else 0.0
        assert abs(value - float(want)) <= 0.6 * last_digit  # .9185069 is printed as .918


def test_er_leaves_the_kernel_out() -> None:
    # LeNet-5 at 5 %: 21,525 weights. (n_in + n_out) / (n_in n_out) times the size:
    #   conv1 21/20 * 500 = 525, conv2 70/1000 * 25,000 = 1750, fc1 1300, fc2 510
    # conv1 would pass 1 and keeps its 500; the rest is scaled by 21,025 / (1750 + 1300 + 510) = 5.906
    assert list(er(LENET_5, density=0.05).values()) == pytest.approx([1, 0.41341, 0.019194, 0.60240], rel=1e-4)
    assert er(LENET_300_100, density=0.05) == erk(LENET_300_100, density=0.05)


def test_a_pattern_at_its_own_density_gives_its_own_counts_and_is_scaled_to_others() -> None:
    kept = (4000, 2500, 400)  # as layers.csv has them: 6900 of 266,200 weights
    pattern = [count / size for count, size in zip(kept, (235_200, 30_000, 1000), strict=True)]
    own = allocate(LENET_300_100, density=6900 / 266_200, allocation="pattern", pattern=pattern)
    assert tuple(own.values()) == kept
    half = allocate(LENET_300_100, density=3450 / 266_200, allocation="pattern", pattern=pattern)
    assert tuple(half.values()) == (2000, 1250, 200)


def test_a_pattern_is_never_capped() -> None:
    # a of 10 weights at .5, b of 90 at .1: 14 of 100. At density .3 a would get .5 * 30 / 14 = 1.07
    shapes = {"a": (10, 1), "b": (90, 1)}
    assert from_pattern(shapes, density=0.28, pattern=(0.5, 0.1)) == pytest.approx({"a": 1.0, "b": 0.2})
    with pytest.raises(
        ValueError, match=r"at density 0.3 the pattern gives a a density of 1.071, above 1: at most 0.28"
    ):
        allocate(shapes, density=0.3, allocation="pattern", pattern=(0.5, 0.1))


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ((0.5, 0.0), "pattern has 0.0 for layer 2: a layer's density must lie in (0, 1]"),
        ((float("nan"), 0.1), "pattern has nan for layer 1"),
        ((0.5, 1.5), "pattern has 1.5 for layer 2"),
        (("a", 0.1), "pattern has 'a' for layer 1"),
        ((0.5, True), "pattern has True for layer 2"),
        ((0.5,), "pattern has 1 densities for 2 layers: a, b"),
        (None, "allocation='pattern' and pattern=(a density for each layer, ...) go together"),
    ],
)
def test_a_pattern_that_fits_no_network_is_refused(pattern: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        allocate({"a": (10, 1), "b": (90, 1)}, density=0.1, allocation="pattern", pattern=pattern)
    with pytest.raises(ValueError, match="go together"):
        check_allocation("erk", (0.5, 0.1))


def test_erk_keeps_the_total_density_where_layers_are_capped() -> None:
    sizes = {name: math.prod(shape) for name, shape in LENET_5.items()}
    for density in (0.3, 0.1, 0.01):
        kept = sum(value * sizes[name] for name, value in erk(LENET_5, density=density).items())
        assert kept == pytest.approx(density * 430_500)


@pytest.mark.parametrize("allocation", [*ALLOCATIONS, "pattern"])
@given(shapes=layers, density=st.floats(0.0, 1.0))
def test_counts_sum_to_the_rounded_total_and_leave_no_layer_empty(
    allocation: str, shapes: dict[str, tuple[int, ...]], density: float
) -> None:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(density * sum(sizes.values()))
    pattern = (0.5,) * len(shapes) if allocation == "pattern" else None
    if total < len(shapes):
        with pytest.raises(ValueError, match=r"fewer than .*; give a density of at least \S+$") as refused:
            allocate(shapes, density=density, allocation=allocation, pattern=pattern)
        density = float(str(refused.value).rpartition(" ")[2])
        total = len(shapes)
    counts = allocate(shapes, density=density, allocation=allocation, pattern=pattern)
    assert list(counts) == list(shapes)
    assert sum(counts.values()) == total
    assert all(1 <= count <= sizes[name] for name, count in counts.items())


@given(
    layers=st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=6),
    share=st.floats(0, 1),
)
def test_rounding_hits_any_total_that_fits(layers: list[tuple[int, float]], share: float) -> None:
    sizes = {str(i): size for i, (size, _) in enumerate(layers)}
    wanted = {str(i): size * density for i, (size, density) in enumerate(layers)}
    total = len(sizes) + round(share * (sum(sizes.values()) - len(sizes)))
    counts = round_to_total(wanted, sizes, total)
    assert sum(counts.values()) == total
    assert all(1 <= counts[name] <= sizes[name] for name in sizes)


def test_counts_are_within_one_of_the_wanted_densities() -> None:
    wanted = {name: density * math.prod(LENET_5[name]) for name, density in erk(LENET_5, density=0.05).items()}
    counts = allocate(LENET_5, density=0.05, allocation="erk")
    assert all(abs(counts[name] - wanted[name]) <= 1 for name in wanted)


def test_the_largest_remainders_are_rounded_up() -> None:
    # 3.7 + 3.4 + 2.9 = 10: the floors leave 2, for .9 and .7
    counts = round_to_total({"a": 3.7, "b": 3.4, "c": 2.9}, {"a": 9, "b": 9, "c": 9}, 10)
    assert counts == {"a": 4, "b": 3, "c": 3}


def test_uniform_gives_every_layer_the_same_density() -> None:
    assert allocate({"a": (10, 10), "b": (5, 4)}, density=0.3, allocation="uniform") == {"a": 30, "b": 6}


@given(weights=st.integers(1, 10**9), part=st.floats(0.0, 1.0))
def test_the_least_density_of_three_digits_keeps_the_count_and_a_lower_one_does_not(weights: int, part: float) -> None:
    count = max(1, round(part * weights))
    density = float(f"{least_density(count, weights):g}")
    assert float(f"{density:.3g}") == density
    assert round(density * weights) >= count
    place = 10.0 ** (math.floor(math.log10((count - 0.5) / weights)) - 2)
    assert density - place <= 0 or round((density - place) * (1 - 1e-9) * weights) < count


def test_density_one_keeps_everything() -> None:
    for allocation in (*ALLOCATIONS, "pattern"):
        pattern = (0.3,) * len(LENET_5) if allocation == "pattern" else None
        counts = allocate(LENET_5, density=1.0, allocation=allocation, pattern=pattern)
        assert counts == {name: math.prod(shape) for name, shape in LENET_5.items()}


def test_unknown_allocations_and_impossible_densities_are_refused() -> None:
    with pytest.raises(ValueError, match="allocation is 'random'; valid: er, erk, pattern, uniform"):
        allocate(LENET_5, density=0.1, allocation="random")
    with pytest.raises(
        ValueError, match=r"keeps 0 weights, fewer than the 4 layers: conv1 would get 0.00\d+ of its 500"
    ):
        allocate(LENET_5, density=1e-7, allocation="erk")
    with pytest.raises(ValueError, match="no room for"):
        allocate(LENET_5, density=1.1, allocation="uniform")


def test_share_gives_in_proportion_and_passes_on_what_has_no_room() -> None:
    assert share({"a": 3, "b": 1}, room={"a": 10, "b": 10}, total=8) == {"a": 6, "b": 2}
    assert share({"a": 3, "b": 1}, room={"a": 2, "b": 10}, total=8) == {"a": 2, "b": 6}
    assert share({"a": 1, "b": 0}, room={"a": 2, "b": 10}, total=8) == {"a": 2, "b": 6}
    with pytest.raises(ValueError, match="cannot place 13 weights in 12 free"):
        share({"a": 1, "b": 1}, room={"a": 2, "b": 10}, total=13)


SHARES = (share, share_overflow_evenly)
LAYERS = st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 1000)), min_size=1, max_size=8)


@pytest.mark.parametrize("rule", SHARES)
@given(layers=LAYERS, part=st.floats(0, 1))
def test_share_is_exact_and_within_the_room(rule: Any, layers: list[tuple[float, int]], part: float) -> None:
    weights = {str(i): weight for i, (weight, _) in enumerate(layers)}
    room = {str(i): space for i, (_, space) in enumerate(layers)}
    total = int(part * sum(room.values()))
    counts = rule(weights, room=room, total=total)
    assert sum(counts.values()) == total
    assert all(0 <= counts[name] <= room[name] for name in room)


def test_overflow_is_divided_evenly_among_the_layers_until_none_exceeds_its_room() -> None:
    # 12 to place  a    b    c
    # weight       6    4    2
    # share        6    4    2
    # room         2    5    9
    # fits         2    4    2     4 left: 4/3 for each, of which a has no room for any
    # again        2    5    3.33  1.67 left: 0.56 for each, and so on: b stays full, c takes the rest
    room = {"a": 2, "b": 5, "c": 9}
    assert share_overflow_evenly({"a": 6, "b": 4, "c": 2}, room=room, total=12) == {"a": 2, "b": 5, "c": 5}
    # in proportion, b and c divide a's 4 as 4 to 2; here as 1 to 1
    room = {"a": 2, "b": 9, "c": 9}
    assert share({"a": 6, "b": 4, "c": 2}, room=room, total=12) == {"a": 2, "b": 7, "c": 3}
    assert share_overflow_evenly({"a": 6, "b": 4, "c": 2}, room=room, total=12) == {"a": 2, "b": 6, "c": 4}


def test_overflow_goes_to_layers_of_weight_0_too() -> None:
    assert share_overflow_evenly({"a": 1, "b": 0}, room={"a": 2, "b": 9}, total=8) == {"a": 2, "b": 6}
    assert share_overflow_evenly({"a": 0, "b": 0}, room={"a": 9, "b": 9}, total=8) == {"a": 4, "b": 4}
    assert share_overflow_evenly({"a": 1, "b": 0}, room={"a": 9, "b": 9}, total=8) == {"a": 8, "b": 0}
    with pytest.raises(ValueError, match="cannot place 13 weights in 12 free"):
        share_overflow_evenly({"a": 1, "b": 1}, room={"a": 2, "b": 10}, total=13)


@given(layers=LAYERS, part=st.floats(0, 0.9))
def test_overflow_divided_at_once_is_what_dividing_it_again_and_again_ends_in(
    layers: list[tuple[float, int]], part: float
) -> None:
    mass, total = sum(weight for weight, _ in layers), int(part * sum(space for _, space in layers))
    given_out = [total * (weight / mass if mass > 0 else 1 / len(layers)) for weight, _ in layers]
    for _ in range(1000):
        fits = [min(space, count) for count, (_, space) in zip(given_out, layers, strict=True)]
        left = sum(given_out) - sum(fits)
        given_out = [count + left / len(layers) for count in fits]
    counts = share_overflow_evenly(
        {str(i): weight for i, (weight, _) in enumerate(layers)},
        room={str(i): space for i, (_, space) in enumerate(layers)},
        total=total,
    )
    assert all(abs(counts[str(i)] - count) < 1 + 1e-6 for i, count in enumerate(given_out))
