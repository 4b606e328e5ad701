"""STR on eight weights worked by hand, the decay of its thresholds, and its promises."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import methods
from methods.conformance import check_method

# two rows of four weights; s = -ln 3, so that g(s) = 1/4 and g'(s) = 1/4 * 3/4 = 3/16
# W           1    -0.5   0.25  -0.125        S_g(W, s)    0.75  -0.25   0     0
#             0.2   0.75  -1     0.3                       0      0.5   -0.75  0.05
WEIGHT = torch.tensor([[1.0, -0.5, 0.25, -0.125], [0.2, 0.75, -1.0, 0.3]])
EFFECTIVE = torch.tensor([[0.75, -0.25, 0.0, 0.0], [0.0, 0.5, -0.75, 0.05]])
S = -math.log(3)


def attached(**values: Any) -> tuple[nn.Linear, methods.Attachment]:
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(WEIGHT)
    return model, methods.attach(model, "str", total_steps=40, steps_per_epoch=4, **values)


def test_the_layer_computes_with_the_soft_threshold() -> None:
    model, at = attached(initial_s=S)
    torch.testing.assert_close(model(torch.eye(4)).t(), EFFECTIVE)
    assert at.masks()["weight"].int().tolist() == [[1, 1, 0, 0], [0, 1, 1, 1]]
    assert at.density() == 5 / 8
    torch.testing.assert_close(at.thresholds()["weight"], torch.tensor(0.25))
    methods.finalize(model)
    torch.testing.assert_close(model.weight.detach(), EFFECTIVE)


def test_kept_weights_and_s_get_the_gradient_of_the_task_and_pruned_ones_get_none() -> None:
    # with D = dL/dS_g: dL/dW = D where kept, dL/ds = -3/16 * sum over kept of sign(W) * D
    # D           1     1     1     1
    #             2     2     2     2        sum = 1 - 1 + 2 - 2 + 2 = 2, so dL/ds = -3/8
    model, at = attached(initial_s=S)
    (model(torch.ones(1, 4)) * torch.tensor([1.0, 2.0])).sum().backward()
    gradient = at.weights()["weight"].grad
    assert gradient is not None
    assert gradient.tolist() == [[1, 1, 0, 0], [0, 2, 2, 2]]
    s = dict(model.named_parameters())["weight_threshold"]
    assert s.grad is not None
    assert s.grad.item() == pytest.approx(-3 / 8)


def test_without_a_gradient_of_the_task_weight_decay_brings_s_towards_zero() -> None:
    # lr 0.1, decay 0.5, no momentum: s is multiplied by 0.95 a step
    model, at = attached(initial_s=-8.0, threshold_weight_decay=0.5)
    groups = at.parameter_groups(weight_decay=0.0)
    assert [group["weight_decay"] for group in groups] == [0.0, 0.5]
    at.bind(torch.optim.SGD(groups, lr=0.1))
    for _ in range(10):
        model.zero_grad()
        (0 * model(torch.ones(1, 4)).sum()).backward()
        at.step()
    s = dict(model.named_parameters())["weight_threshold"]
    assert s.item() == pytest.approx(-8 * 0.95**10, rel=1e-5)
    assert torch.equal(at.weights()["weight"].detach(), WEIGHT)


def test_a_larger_decay_keeps_fewer_weights() -> None:
    kept = []
    for decay in (0.0, 0.02, 0.05):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))
        at = methods.attach(
            model, "str", total_steps=60, steps_per_epoch=6, initial_s=-5.0, threshold_weight_decay=decay
        )
        at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.1, momentum=0.9))
        x, y = torch.randn(30, 12), torch.arange(30) % 3
        for _ in range(60):
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
            at.step()
        assert at.density() == float(at.kept_counts().sum()) / (12 * 16 + 16 * 3)
        kept.append(at.density())
    assert kept[0] > kept[1] > kept[2] > 0


def test_it_starts_dense_at_the_papers_value() -> None:
    model, at = attached(initial_s=-3200.0)
    assert at.density() == 1
    assert torch.equal(model.weight.detach(), WEIGHT)


@pytest.mark.slow
def test_the_kit_passes_where_thresholds_prune() -> None:
    check_method("str", initial_s=-3.0, threshold_weight_decay=0.05)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold_weight_decay": -1e-4}, "threshold_weight_decay is -0.0001: it must be 0 or more"),
        ({"initial_s": float("nan")}, "initial_s is nan: it must be a finite number"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("str", **values)
