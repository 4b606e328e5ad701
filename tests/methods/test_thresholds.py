"""The paper's equations at points computed by hand."""

from __future__ import annotations

import pytest
import torch

from methods import thresholds


@pytest.mark.parametrize(
    ("x", "want"),
    [
        *[(0.0, 2.0), (0.1, 1.6), (-0.1, 1.6), (0.25, 1.0), (-0.25, 1.0), (0.4, 0.4), (-0.4, 0.4)],
        *[(0.7, 0.4), (1.0, 0.4), (-1.0, 0.4), (1.0000001, 0.0), (-1.0000001, 0.0), (1.5, 0.0), (-30.0, 0.0)],
    ],
)
def test_long_tailed_estimator_at_points_computed_by_hand(x: float, want: float) -> None:
    got = thresholds.long_tailed(torch.tensor([x], dtype=torch.float64))
    assert got.item() == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize(("x", "want"), [(0.0, 1), (0.4, 1), (-1.0, 1), (1.0, 1), (1.0000001, 0), (-2.0, 0)])
def test_straight_through_estimator_is_one_up_to_one(x: float, want: float) -> None:
    assert thresholds.straight_through(torch.tensor([x], dtype=torch.float64)).tolist() == [want]


def test_a_weight_is_kept_where_its_magnitude_is_strictly_above_the_threshold() -> None:
    weight = torch.tensor([[0.5, -0.5, 0.5000001, -0.6], [0.0, 0.1, -0.1, 0.0]])
    keep = thresholds.keep_mask(weight, torch.tensor([0.5, 0.0]))
    assert keep.tolist() == [[False, False, True, True], [False, True, True, False]]


def test_a_negative_threshold_keeps_everything() -> None:
    assert thresholds.keep_mask(torch.tensor([0.0, -0.1]), torch.tensor(-0.01)).all()


def test_the_reset_rule_zeroes_the_thresholds_of_layers_below_their_limit_and_only_of_those() -> None:
    """Shares of 1 % of 300, 1000 and 1000 weights; the last layer is never reset."""
    rule = thresholds.ResetRule.below(
        0.01, [300, 1000, 1000], resettable=[True, True, False], device=torch.device("cpu")
    )
    assert rule.limits.tolist() == [3, 10, -1]
    given, resets = [torch.ones(2), torch.ones(()), torch.ones(3)], torch.tensor(5)
    kept = rule.apply_(torch.tensor([2, 10, 0]), given, resets)
    assert kept.tolist() == [300, 10, 0]
    assert [threshold.any().item() for threshold in given] == [False, True, True]
    assert resets.item() == 6


def test_thresholds_return_to_the_value_that_the_rule_says() -> None:
    rule = thresholds.ResetRule.below(0.1, [100, 100], resettable=[True, True], device=torch.device("cpu"), reset_to=-2)
    given = [torch.ones(2), torch.ones(())]
    assert rule.apply_(torch.tensor([9, 10]), given, torch.tensor(0)).tolist() == [100, 10]
    assert [threshold.tolist() for threshold in given] == [[-2, -2], 1]
