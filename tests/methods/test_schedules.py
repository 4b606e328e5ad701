"""Schedules are pure functions of the step."""

from __future__ import annotations

import pytest

from methods.schedules import cosine, every, steps_of


@pytest.mark.parametrize(
    ("duration", "want"),
    [
        *[(1, 1), (250, 250), ("100 steps", 100), ("1 step", 1), (" 3 steps ", 3)],
        *[("1 epoch", 40), ("2 epochs", 80), ("0.5 epochs", 20), ("2.5epochs", 100), ("0.001 epochs", 1)],
    ],
)
def test_a_duration_is_resolved_to_steps(duration: int | str, want: int) -> None:
    assert steps_of(duration, steps_per_epoch=40) == want


@pytest.mark.parametrize("duration", [0, -3, True, "0 epochs", "1 week", "epoch", "", "-1 steps", 2.0, None])
def test_what_is_no_duration_is_refused(duration: object) -> None:
    with pytest.raises(ValueError, match="is not a number of steps, '100 steps' or '1 epoch'"):
        steps_of(duration, steps_per_epoch=40)  # type: ignore[arg-type]


def test_every_is_true_after_each_full_period_and_not_at_the_start() -> None:
    assert [step for step in range(11) if every(step, 3)] == [3, 6, 9]
    assert [step for step in range(4) if every(step, 1)] == [1, 2, 3]


def test_cosine_goes_from_start_to_end_along_half_a_wave() -> None:
    assert cosine(0, 100, start=0.3) == pytest.approx(0.3)
    assert cosine(25, 100, start=1.0) == pytest.approx((1 + 0.5**0.5) / 2)
    assert cosine(50, 100, start=0.5, end=0.1) == pytest.approx(0.3)
    assert cosine(100, 100, start=0.5, end=0.1) == pytest.approx(0.1)


def test_cosine_stays_at_the_end() -> None:
    assert cosine(1000, 100, start=0.5, end=0.1) == pytest.approx(0.1)
