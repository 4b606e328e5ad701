"""L1 norms of filters on eight weights drawn in a comment, and what stays dense."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from methods.algorithms.l1_filters import l1_norms


def attached(model: nn.Module, steps: int = 4, **values: Any) -> methods.Attachment:
    at = methods.attach(model, "l1_filters", total_steps=steps, steps_per_epoch=2, **values)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.0))
    return at


def trained(model: nn.Module, x: Tensor, **values: Any) -> methods.Attachment:
    """Trained with learning rate 0, so that the weights stay as they are."""
    at = attached(model, **values)
    for _ in range(at.total_steps):
        model(x).square().sum().backward()
        at.step()
    return at


def rows(at: methods.Attachment, name: str) -> list[bool]:
    mask = at.masks()[name].flatten(1)
    assert bool((mask.all(1) | ~mask.any(1)).all()), "whole filters only"
    return mask[:, 0].tolist()


def eight() -> nn.Sequential:
    """Four neurons of two weights, and the output layer, which is dense."""
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.5, -0.5], [2.0, 0.0], [-0.3, 0.1], [-1.0, -0.7]]))
        model[2].weight.fill_(1.0)
    return model


# neuron    0            1           2            3
# weights   0.5 -0.5     2.0 0.0     -0.3 0.1     -1.0 -0.7      and four dense ones of the output layer
# norm      1.0          2.0         0.4          1.7
@pytest.mark.parametrize(
    ("density", "want"),
    [
        (1.0, [True, True, True, True]),
        (10 / 12, [True, True, False, True]),  # 10 - 4 = 6 weights: 3 neurons
        (9 / 12, [False, True, False, True]),  # 5 weights: 2 neurons, 1 weight is left over
        (8 / 12, [False, True, False, True]),
        (6 / 12, [False, True, False, False]),
    ],
)
def test_the_filters_of_least_l1_norm_are_pruned(density: float, want: list[bool]) -> None:
    model = eight()
    assert l1_norms(model[0].weight).tolist() == pytest.approx([1.0, 2.0, 0.4, 1.7])
    at = trained(model, torch.ones(1, 2), density=density)
    assert rows(at, "0.weight") == want
    assert rows(at, "2.weight") == [True]


def test_layers_keep_filters_at_the_rates_of_the_allocation() -> None:
    # 4 filters of 9 weights and 8 neurons of 16, output 2 * 8 = 16. Uniform, half: 180 / 2 + ... = 98 kept,
    # of which 82 are for 36 + 128 = 164, half of them: 2 filters and 4 neurons
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 2))
    at = trained(model, torch.ones(1, 1, 4, 4), density=98 / 180, allocation="uniform")
    assert [sum(rows(at, f"{index}.weight")) for index in (0, 2, 3)] == [2, 4, 2]
    assert at.density() == 98 / 180


def test_all_is_dense_until_the_training_ends_and_fine_tuning_adds_a_quarter() -> None:
    model = eight()
    at = attached(model, steps=8, density=0.5)
    assert [(phase.name, phase.steps, phase.lr, phase.lr_scale) for phase in at.phases] == [
        ("train", 8, "continue", 1.0),
        ("fine-tune", 2, "restart", 1.0),
    ]
    for step in range(at.total_steps):
        assert at.density() == (1 if step < 8 else 0.5)
        model(torch.ones(1, 2)).sum().backward()
        assert at.step() == (step == 7)


def test_a_filter_of_a_recurrent_layer_is_one_gate_of_one_unit() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.head(self.lstm(x)[0][:, -1])
            return output

    at = trained(Net(), torch.ones(1, 2, 3), density=0.5)
    assert len(rows(at, "lstm.weight_ih_l0")) == len(rows(at, "lstm.weight_hh_l0")) == 20
    assert bool(at.masks()["head.weight"].all())
    assert 85 - 5 < sum(int(mask.sum()) for mask in at.masks().values()) <= 85


def test_the_models_last_weight_decides_where_it_is_excluded() -> None:
    model = eight()
    at = methods.attach(model, "l1_filters", total_steps=1, steps_per_epoch=1, density=0.5, exclude=["2"])
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.0))
    F.mse_loss(model(torch.ones(1, 2)), torch.zeros(1, 1)).backward()
    at.step()
    assert rows(at, "0.weight") == [False, True, False, True]


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (eight(), {"density": 0.4}, r"l1_filters: 5 weights are too few: 6 are needed .* and all of 2\.weight"),
        (nn.Linear(4, 2), {"density": 0.5}, r"l1_filters: 4 weights are too few: 8 are needed .* and all of weight"),
        (eight(), {"density": 0.0}, r"density is 0.0: it must lie in \(0, 1\]"),
        (eight(), {"allocation": "most"}, "allocation is 'most'; valid: "),
        (eight(), {"fine_tune": 0.0}, "fine_tune is 0.0: it must be above 0"),
        (eight(), {"fine_tune_lr": float("nan")}, "fine_tune_lr is nan: it must be above 0"),
    ],
)
def test_what_cannot_be_had_is_refused_at_attach(model: nn.Module, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attached(model, **values)
