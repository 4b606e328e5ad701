"""The search for the value of a hyperparameter at which a training ends with a chosen density."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import methods
from methods import DensityKnob, DensityMatch, match_density
from methods.registry import method_class

PAGE = Path(__file__).resolve().parents[2] / "docs/loop-of-your-own.md"
CURVES: dict[str, Callable[[float], float]] = {
    "a power law, as DST's on LeNet-300-100": lambda alpha: min(1.0, 0.0834 * (alpha / 5e-4) ** -1.74),
    "a bend": lambda alpha: 1 / (1 + (alpha / 3e-4) ** 2),
    "a cliff": lambda alpha: 1 / (1 + (alpha / 3e-4) ** 12),
    "a floor at 2 %": lambda alpha: 0.02 + 0.98 / (1 + (alpha / 1e-4) ** 2),
}


def search(curve: Callable[[float], float | None], density: float, **options: float) -> DensityMatch:
    return match_density(curve, density=density, **{"low": 1e-8, "high": 1.0, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [1e-6, 5e-4, 1e-2])
@pytest.mark.parametrize("density", [0.05, 0.3])
@pytest.mark.parametrize("curve", CURVES)
def test_a_density_is_found_in_few_trainings(curve: str, density: float, start: float) -> None:
    found = search(CURVES[curve], density, start=start, probes=9)
    assert found.value is not None, found
    assert found.density == CURVES[curve](found.value) == pytest.approx(density, rel=0.05)
    assert (found.reason, found.between) == ("", None)
    assert found.value == float(f"{found.value:.2e}"), "a value that a table can show"


@pytest.mark.parametrize("curve", CURVES)
def test_a_density_that_rises_is_searched_the_other_way(curve: str) -> None:
    rising = search(lambda value: CURVES[curve](1e-8 / value), 0.05, start=1e-8 / 5e-4, rising=True)
    assert rising.density == pytest.approx(0.05, rel=0.05)
    assert len(rising.tried) <= 6


@pytest.mark.parametrize("seed", range(20))
def test_noise_within_the_tolerance_does_no_harm(seed: int) -> None:
    noise = random.Random(seed)
    curve = CURVES["a power law, as DST's on LeNet-300-100"]
    found = search(lambda alpha: min(1.0, curve(alpha) * math.exp(noise.gauss(0, 0.02))), 0.05, start=5e-4)
    assert found.value == pytest.approx(6.7e-4, rel=0.1)


@given(st.floats(1e-6, 1e-1), st.floats(0.5, 8), st.floats(0.02, 0.9))
def test_every_smooth_density_is_found_within_the_range(middle: float, power: float, density: float) -> None:
    found = search(lambda value: 1 / (1 + (value / middle) ** power), density, low=1e-12, high=1e6, probes=15)
    assert found.density == pytest.approx(density, rel=0.05)


def test_nothing_is_trained_where_a_known_value_will_do() -> None:
    found = search(pytest.fail, 0.025, known={5e-4: 0.083, 1e-3: 0.0258, 7.5e-4: 0.04})
    assert (found.value, found.density, found.tried) == (1e-3, 0.0258, ())
    assert list(found.densities) == [5e-4, 7.5e-4, 1e-3]


def test_known_values_are_where_the_search_starts() -> None:
    found = search(lambda alpha: 0.0834 * (alpha / 5e-4) ** -1.74, 0.05, known={5e-4: 0.0834, 1e-3: 0.025})
    assert len(found.tried) == 1
    assert 5e-4 < found.tried[0] < 1e-3


def test_a_search_that_is_interrupted_goes_on_as_if_nothing_had_happened() -> None:
    curve = CURVES["a cliff"]
    whole = search(curve, 0.05, start=1e-6, probes=12)
    for already in range(len(whole.tried)):
        rest = search(
            curve, 0.05, start=1e-6, probes=12, known={value: curve(value) for value in whole.tried[:already]}
        )
        assert rest.tried == whole.tried[already:]


def test_a_jump_is_named_by_the_values_beside_it() -> None:
    found = search(lambda alpha: 0.3 if alpha < 7e-4 else 0.004, 0.05, start=5e-4, probes=20)
    assert (found.value, found.reason) == (None, "the density jumps over it")
    assert found.between is not None
    assert found.between[0] < 7e-4 <= found.between[1] < 1.011 * found.between[0]


def test_a_floor_is_named_by_the_values_at_which_the_density_stops_falling() -> None:
    found = search(CURVES["a floor at 2 %"], 0.01, start=5e-4)
    assert (found.value, found.reason) == (None, "the density stops changing before it is reached")
    assert found.between is not None
    assert [found.densities[value] for value in found.between] == pytest.approx([0.02, 0.02], rel=0.05)
    assert len(found.tried) <= 6


def test_a_ceiling_ends_the_search_too() -> None:
    found = search(lambda alpha: 0.4 / (1 + alpha / 1e-3), 0.8, start=1e-2)
    assert found.reason == "the density stops changing before it is reached"


def test_a_plateau_before_the_density_falls_is_no_floor() -> None:
    known = {1e-7: 0.999, 1e-6: 0.998, 1e-5: 0.995}
    assert search(CURVES["a bend"], 0.05, known=known).value == pytest.approx(1.3e-3, rel=0.05)


def test_the_end_of_the_range_ends_the_search() -> None:
    found = search(lambda alpha: 1 - 0.1 * alpha, 0.5, start=0.01)
    assert (found.reason, found.between) == ("it is not reached at the end of the range", None)
    assert found.tried[-1] == 1.0


def test_values_without_a_density_count_as_too_sparse() -> None:
    diverges = search(lambda alpha: 0.3 if alpha < 2e-3 else None, 0.05, start=5e-4, probes=20)
    assert diverges.between is not None
    assert diverges.densities[diverges.between[1]] is None
    curve = CURVES["a bend"]
    avoids = search(lambda alpha: curve(alpha) if alpha < 2e-3 else None, 0.05, start=1e-2)
    assert avoids.density == pytest.approx(0.05, rel=0.05)


def test_a_density_that_rises_again_after_a_reset_is_left_alone() -> None:
    found = search(pytest.fail, 0.2, known={1e-5: 0.9, 1e-4: 0.2, 5e-4: 0.08, 1.5e-3: 0.0145, 2e-3: 0.22})
    assert found.value == 1e-4
    again = search(CURVES["a bend"], 0.2, known={5e-4: 0.26, 1.5e-3: 0.0145, 2e-3: 0.61})
    assert again.value is not None
    assert 5e-4 < again.value < 1.5e-3


def test_too_few_trainings_say_where_the_density_lies() -> None:
    found = search(CURVES["a bend"], 0.05, probes=0, known={1e-4: 0.9, 1e-2: 0.001})
    assert (found.value, found.reason, found.between) == (
        None,
        "none of the known values reaches it, and no new one may be tried",
        (1e-4, 1e-2),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, "density is 0.0: it must lie between 0 and 1"),
        ({"density": 5.0}, "density is 5.0"),
        ({"low": 0.0}, "low is 0.0 and high is 1.0: they must be positive"),
        ({"low": 2.0}, "low the smaller one"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"probes": -1}, "probes is -1"),
        ({"known": {0.5: math.nan}}, "the density at 0.5 is nan: it must lie in [0, 1], or be None"),
    ],
)
def test_what_is_out_of_range_is_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        search(lambda value: value, **{"density": 0.5, **options})


def test_a_callable_that_returns_no_density_is_named() -> None:
    with pytest.raises(ValueError, match=r"the density at 0\.0001 is 97\.6"):
        search(lambda value: 97.6, 0.5)


def test_a_knob_needs_a_positive_range() -> None:
    with pytest.raises(ValueError, match="the range of alpha is 0 to 1"):
        DensityKnob(name="alpha", low=0, high=1)


@pytest.mark.parametrize("name", methods.available())
def test_a_method_has_either_a_density_or_a_knob_of_its_own(name: str) -> None:
    cls = method_class(name)
    if cls.density_knob is not None:
        assert cls.density_knob.name in cls.hyperparameter_names()
        assert "density" not in cls.hyperparameter_names()
        cls(**{cls.density_knob.name: cls.density_knob.low})
        cls(**{cls.density_knob.name: cls.density_knob.high})


def test_the_example_for_a_loop_of_ones_own_finds_its_density() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (block,) = [text for text in blocks if "match_density" in text]
    names: dict[str, object] = {}
    exec(block, names)
    found = names["found"]
    assert isinstance(found, DensityMatch)
    assert found.density == pytest.approx(0.2, rel=0.05)
