"""Top-KAST on eight weights drawn in a comment: what computes, what trains, and the penalty."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import methods

# weight    0.1  0.9  -0.8  0.2   0.05  0.3  -0.6  0.7
# A               x    x                           x      density 3/8
# B               x    x                 x    x    x      density 5/8
WEIGHTS = [[0.1, 0.9, -0.8, 0.2], [0.05, 0.3, -0.6, 0.7]]
A = [[False, True, True, False], [False, False, False, True]]
B = [[False, True, True, False], [False, True, True, True]]


def eight(lr: float = 0.1, **values: Any) -> tuple[nn.Linear, methods.Attachment]:
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(WEIGHTS))
    given: dict[str, Any] = {"density": 3 / 8, "backward_density": 5 / 8, "l2": 0.0} | values
    at = methods.attach(model, "top_kast", total_steps=10, steps_per_epoch=5, **given)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=lr))
    return model, at


def test_the_layer_computes_with_the_largest_weights() -> None:
    model, at = eight()
    assert at.masks()["weight"].tolist() == A
    assert model(torch.ones(1, 4)).tolist() == [pytest.approx([0.9 - 0.8, 0.7])]
    assert at.weights()["weight"].tolist() == [pytest.approx(row) for row in WEIGHTS]


def test_the_step_moves_the_larger_set_by_the_gradient_of_the_product() -> None:
    # x = (1, 2, 3, 4), loss the sum of both outputs: the gradient of each row is x
    model, at = eight(lr=0.1)
    model(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().backward()
    assert at.gradient_counts().tolist() == [5]
    assert at.kept_counts().tolist() == [3]
    at.step()
    want = [[0.1, 0.9 - 0.2, -0.8 - 0.3, 0.2], [0.05, 0.3 - 0.2, -0.6 - 0.3, 0.7 - 0.4]]
    assert at.weights()["weight"].tolist() == [pytest.approx(row) for row in want]


def test_both_sets_are_chosen_anew_at_each_update() -> None:
    # after the step above: 0.1 0.7 -1.1 0.2 | 0.05 0.1 -0.9 0.3: A is -1.1, -0.9, 0.7, and B has 0.3 and 0.2 too
    model, at = eight(lr=0.1, update_every=1)
    model(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).sum().backward()
    at.step()
    assert at.masks()["weight"].tolist() == [[False, True, True, False], [False, False, True, False]]
    model.zero_grad()
    model(torch.ones(1, 4)).sum().backward()
    before = at.weights()["weight"].detach().clone()
    at.step()
    moved = (at.weights()["weight"] != before).tolist()
    assert moved == [[False, True, True, True], [False, False, True, True]]


def test_the_penalty_is_stronger_on_weights_that_train_and_do_not_compute() -> None:
    _, at = eight(l2=0.2)
    active, others = 0.9**2 + 0.8**2 + 0.7**2, 0.3**2 + 0.6**2
    penalty = at.penalty()
    assert penalty.item() == pytest.approx(0.1 * (active + others / (3 / 8)))
    penalty.backward()
    factors = [[0.0, 1.0, 1.0, 0.0], [0.0, 8 / 3, 8 / 3, 1.0]]
    want = [[0.2 * f * w for f, w in zip(*rows, strict=True)] for rows in zip(factors, WEIGHTS, strict=True)]
    assert at.weights()["weight"].grad.tolist() == [pytest.approx(row) for row in want]


def test_the_density_is_exact_at_every_step_and_twice_of_it_trains_by_default() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 5))
    at = methods.attach(model, "top_kast", total_steps=9, steps_per_epoch=3, density=0.1, update_every=2)
    at.bind(torch.optim.Adam(at.parameter_groups(), lr=0.1))
    masks, changed = at.masks(), False
    for _ in range(9):
        model.zero_grad()
        (F.cross_entropy(model(torch.randn(16, 20)), torch.arange(16) % 5) + at.penalty()).backward()
        at.step()
        assert (int(at.kept_counts().sum()), int(at.gradient_counts().sum())) == (75, 150)
        changed |= any(not torch.equal(mask, masks[name]) for name, mask in at.masks().items())
    assert changed, "weights join A"


def test_a_choice_after_the_last_step_is_a_change_of_the_masks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        methods.attach(nn.Linear(20, 10), "top_kast", total_steps=20, steps_per_epoch=5, update_every=20)
    with pytest.warns(UserWarning, match="top_kast changes its masks every 21 steps"):
        methods.attach(nn.Linear(20, 10), "top_kast", total_steps=20, steps_per_epoch=5, update_every=21)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_any_precision_train(dtype: torch.dtype) -> None:
    model = nn.Linear(20, 10).to(dtype)
    at = methods.attach(model, "top_kast", total_steps=2, steps_per_epoch=1, density=0.3, update_every=1)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.1))
    for _ in range(2):
        (model(torch.ones(3, 20, dtype=dtype)).square().mean() + at.penalty()).backward()
        at.step()
    assert at.density() == 0.3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"density": 0.0}, r"density is 0.0: it must lie in \(0, 1\]"),
        ({"density": 0.5, "backward_density": 0.4}, r"backward_density is 0.4: it must lie in \[0.5, 1\]"),
        ({"backward_density": 1.5}, "backward_density is 1.5"),
        ({"l2": -1.0}, "l2 is -1.0: it must be 0 or more"),
        ({"allocation": "all"}, "allocation is 'all'; valid: "),
        ({"update_every": 0}, "duration 0 is not"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("top_kast", **values)


def test_a_density_that_leaves_a_layer_empty_names_the_method() -> None:
    with pytest.raises(ValueError, match=r"top_kast: density 0\.01 keeps 0 weights, fewer than the 1 layers"):
        methods.attach(nn.Linear(4, 2), "top_kast", total_steps=4, steps_per_epoch=2, density=0.01)
