"""Scores, and the choice of the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from methods import scores


def true_at(mask: Tensor) -> list[int]:
    return mask.flatten().nonzero().flatten().tolist()


def test_magnitude_is_the_absolute_value_without_gradient() -> None:
    score = scores.magnitude(nn.Parameter(torch.tensor([[-2.0, 0.5], [0.0, 1.0]])))
    assert score.tolist() == [[2.0, 0.5], [0.0, 1.0]]
    assert not score.requires_grad


def test_top_keeps_the_highest_scores_in_the_shape_given() -> None:
    mask = scores.top(torch.tensor([[1.0, 4.0, 2.0], [5.0, -1.0, 3.0]]), 3)
    assert mask.tolist() == [[False, True, False], [True, False, True]]


def test_ties_go_to_the_earlier_entry() -> None:
    assert true_at(scores.top(torch.ones(6), 2)) == [0, 1]
    assert true_at(scores.top(torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0]), 3)) == [0, 1, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_scores_do_not_repeat_the_numbers_of_an_initialisation_with_the_same_seed(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = nn.Linear(40, 50, dtype=dtype).weight.detach()
    score = scores.random(weight, torch.Generator().manual_seed(0))
    assert abs(torch.stack([weight.flatten().float(), score.flatten()]).corrcoef()[0, 1]) < 0.1


def test_among_limits_the_choice() -> None:
    among = torch.tensor([False, True, True, False, True])
    assert true_at(scores.top(torch.tensor([9.0, 1.0, 2.0, 8.0, 3.0]), 2, among=among)) == [2, 4]
    assert true_at(scores.top(torch.tensor([9.0, 1.0, 2.0, 8.0, 3.0]), 3, among=among)) == [1, 2, 4]


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot choose 7 of 6 entries"):
        scores.top(torch.ones(2, 3), 7)
    with pytest.raises(ValueError, match="cannot choose 2 of 1 entries"):
        scores.top(torch.ones(3), 2, among=torch.tensor([True, False, False]))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.data())
def test_top_chooses_exactly_the_count_and_nothing_better_is_left(values: list[int], data: st.DataObject) -> None:
    score = torch.tensor(values, dtype=torch.float32)
    count = data.draw(st.integers(0, len(values)))
    mask = scores.top(score, count)
    assert int(mask.sum()) == count
    if 0 < count < len(values):
        assert score[mask].min() >= score[~mask].max()


VALUES = st.one_of(st.integers(-3, 3), st.sampled_from([math.nan, math.inf, 0.0, -0.0]))


@given(st.lists(st.tuples(VALUES, st.booleans()), min_size=1, max_size=40), st.data())
def test_top_chooses_what_a_stable_sort_puts_first(entries: list[tuple[float, bool]], data: st.DataObject) -> None:
    score = torch.tensor([value for value, _ in entries], dtype=torch.float32)
    among = torch.tensor([allowed for _, allowed in entries])
    count = data.draw(st.integers(0, int(among.sum())))
    ordered = torch.where(among, score, -torch.inf).argsort(descending=True, stable=True)
    assert true_at(scores.top(score, count, among=among)) == sorted(ordered[:count].tolist())


def test_a_score_of_minus_infinity_is_chosen_before_an_entry_that_may_not_be() -> None:
    among = torch.tensor([False, True, True])
    assert true_at(scores.top(torch.tensor([1.0, -torch.inf, 2.0]), 2, among=among)) == [1, 2]


def test_random_scores_come_from_the_generator_alone() -> None:
    like = torch.zeros(50, 40)
    state = torch.get_rng_state()
    first = scores.random(like, torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, scores.random(like, torch.Generator().manual_seed(3)))
    assert not torch.equal(first, scores.random(like, torch.Generator().manual_seed(4)))
    assert first.shape == like.shape
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    assert abs(float(first.mean()) - 0.5) < 0.03


class Lion(torch.optim.Optimizer):
    """Keeps exp_avg and nothing else."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1, "betas": (0.9, 0.99)})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                self.state[parameter].setdefault("exp_avg", torch.zeros_like(parameter)).lerp_(parameter.grad, 0.01)


class Forgetful(torch.optim.Adam):
    """Has betas, and remembers something that nobody knows."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["row_var"] = torch.zeros(2)


GRADIENT = torch.tensor([1.0, -2.0, 0.0])


def stepped(make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> tuple[torch.optim.Optimizer, Tensor, Tensor]:
    updated, untouched = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    optimizer = make([updated, untouched])
    updated.grad = GRADIENT.clone()
    optimizer.step()
    return optimizer, updated, untouched


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        # after one step with gradient g: SGD g; Adam 0.1 g / sqrt(0.001 g^2); Adamax 0.1 g / |g|; Lion 0.01 g
        (lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.9), GRADIENT),
        (lambda p: torch.optim.Adam(p), 0.1 / 0.001**0.5 * GRADIENT.sign()),
        (lambda p: torch.optim.Adamax(p), 0.1 * GRADIENT.sign()),
        (Lion, 0.01 * GRADIENT),
        # RMSprop g / sqrt(0.01 g^2)
        (lambda p: torch.optim.RMSprop(p, momentum=0.9), 10 * GRADIENT.sign()),
    ],
)
def test_momentum_is_what_the_optimizer_remembers_of_the_direction(make: Any, expected: Tensor) -> None:
    optimizer, updated, untouched = stepped(make)
    scores.check_momentum(optimizer)
    assert torch.allclose(scores.momentum(optimizer, updated), expected, rtol=1e-4)
    assert scores.has_momentum(optimizer, updated)
    assert not scores.has_momentum(optimizer, untouched)
    with pytest.raises(ValueError, match="it had no gradient so far"):
        scores.momentum(optimizer, untouched)
    updated.requires_grad_(False)
    assert not scores.has_momentum(optimizer, updated)


def test_an_optimizer_that_hides_its_momentum_is_named_with_what_it_has() -> None:
    optimizer, updated, _ = stepped(Forgetful)
    with pytest.raises(ValueError, match=r"Forgetful has no momentum: use .* \(its state holds row_var\)"):
        scores.momentum(optimizer, updated)
