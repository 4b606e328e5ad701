"""The Taylor criterion on eight weights drawn in a comment, and pruning in iterations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from methods.algorithms.taylor import Taylor, mean_products, ranked
from methods.layers import maskable_weights

Batches = list[tuple[Tensor, Tensor]]


def summed(output: Tensor, target: Tensor) -> Tensor:
    """A loss whose gradient is easy: the mean over examples of their outputs."""
    return output.sum() / len(target)


def eight() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.ReLU(), nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1.0], [2.0, 0.0], [-1.0, 3.0], [0.5, 0.5]]))
        model[2].weight.copy_(torch.tensor([[1.0, -0.5, 0.2, 4.0]]))
    return model


def attach(model: nn.Module, batches: Batches, **values: Any) -> methods.Attachment:
    given = {"total_steps": 4, "steps_per_epoch": 2, "loss_fn": summed} | values
    return methods.attach(model, "taylor", train_batches=lambda: iter(batches), **given)


BATCH = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2))


def test_eight_weights() -> None:
    # neuron        0          1          2          3
    # weights       1 1        2 0        -1 3       0.5 0.5
    # output on x1  1          2          -1         0.5          x1 = (1, 0)
    # output on x2  2          0          6          1            x2 = (0, 2)
    # dC/dz         1          -0.5       0.2        4            0 where the output is not positive
    # |dC/dz z|     1, 2       1, 0       0, 1.2     2, 4
    # Theta         1.5        0.5        0.6        3
    model = eight()
    at = attach(model, [BATCH], density=0.5)
    theta = Taylor().changes(at.context, {"0.weight": maskable_weights(model)["0.weight"]})["0.weight"]
    assert theta.tolist() == pytest.approx([1.5, 0.5, 0.6, 3.0])
    # Theta_hat: over the l2 norm of the kept ones; neuron 3 is pruned
    norm = math.sqrt(1.5**2 + 0.5**2 + 0.6**2)
    hat = ranked(theta, torch.tensor([True, True, True, False])).tolist()
    assert hat == pytest.approx([1.5 / norm, 0.5 / norm, 0.6 / norm, -math.inf])


def test_positions_of_a_filter_are_averaged_before_the_absolute_value() -> None:
    # one example, two filters, 2 x 2 positions: (1 - 1 + 2 + 4) / 4 and (1 - 1) / 4
    conv = maskable_weights(nn.Conv2d(1, 2, 1))["weight"]
    outputs = torch.tensor([[[[1.0, -1.0], [2.0, 4.0]], [[1.0, -1.0], [0.0, 0.0]]]])
    assert mean_products(conv, outputs, torch.ones_like(outputs)).tolist() == [[1.5, 0.0]]
    # a linear layer over [batch, time, features] has its units on the last axis: (1 + 3) / 2, (2 + 4) / 2
    linear = maskable_weights(nn.Linear(1, 2))["weight"]
    sequence = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert mean_products(linear, sequence, torch.ones_like(sequence)).tolist() == [[2.0, 3.0]]


class Shortcut(nn.Module):
    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.first, self.last, self.in_place = nn.Linear(4, 4), nn.Linear(4, 1), in_place

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        if self.in_place:
            z += x
        else:
            z = z + x
        result: Tensor = self.last(z.square())
        return result


def test_an_output_that_the_model_changes_in_place_is_scored_as_the_layer_gave_it() -> None:
    torch.manual_seed(0)
    apart, in_place = Shortcut(in_place=False), Shortcut(in_place=True)
    in_place.load_state_dict(apart.state_dict())
    batch = (torch.randn(6, 4), torch.zeros(6))
    found = []
    for model in (apart, in_place):
        at = attach(model, [batch], density=0.5)
        found.append(Taylor().changes(at.context, {"first.weight": maskable_weights(model)["first.weight"]}))
    assert torch.equal(found[0]["first.weight"], found[1]["first.weight"])


def test_a_gate_is_scored_by_the_change_of_the_loss_where_its_row_becomes_zero() -> None:
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, 2, batch_first=True), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.head(self.lstm(x)[0][:, -1])
            return output

    model, batch = Net(), (torch.randn(6, 4, 3), torch.arange(6) % 2)
    at = attach(model, [batch], loss_fn=F.cross_entropy, density=0.9)
    weights = maskable_weights(model)
    theta = Taylor().changes(at.context, {"lstm.weight_ih_l0": weights["lstm.weight_ih_l0"]})["lstm.weight_ih_l0"]
    with torch.no_grad():
        weight, before = model.lstm.weight_ih_l0, F.cross_entropy(model(batch[0]), batch[1])
        changes, step = [], 1e-3
        for row in range(len(weight)):
            kept = weight[row].clone()
            weight[row] *= 1 - step
            changes.append(float((F.cross_entropy(model(batch[0]), batch[1]) - before).abs()) / step)
            weight[row] = kept
    assert theta.tolist() == pytest.approx(changes, abs=2e-3)


def test_the_weights_fall_linearly_over_the_pruning_phase_and_pruned_filters_stay_pruned() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 40), nn.ReLU(), nn.Linear(40, 2))  # filters of 4, 80 dense weights
    batches = [(torch.randn(8, 4), torch.arange(8) % 2) for _ in range(2)]
    values: dict[str, Any] = {"density": 0.5, "update_every": 2, "prune": 1.0, "fine_tune": 0.5, "score_batches": 2}
    at = attach(model, batches, total_steps=8, loss_fn=F.cross_entropy, **values)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.1))
    assert [(phase.name, phase.steps) for phase in at.phases] == [("train", 8), ("prune", 8), ("fine-tune", 4)]
    kept, masks = [], at.masks()
    for step in range(at.total_steps):
        F.cross_entropy(model(batches[step % 2][0]), batches[step % 2][1]).backward()
        at.step()
        model.zero_grad()
        kept.append(int(at.kept_counts().sum()))
        assert not any(bool((mask & ~masks[name]).any()) for name, mask in at.masks().items())
        masks = at.masks()
    # 240 weights to 120 in four iterations: 210, 180, 150, 120; 80 are dense, and a filter has 4
    assert kept == [240] * 9 + [208] * 2 + [180] * 2 + [148] * 2 + [120] * 5
    assert at.scored_examples == 4 * 16


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"density": 0.4}, r"taylor: 5 weights are too few: 6 are needed .* and all of 2\.weight"),
        ({"density": 2.0}, r"density is 2.0: it must lie in \(0, 1\]"),
        ({"prune": 0.0}, "prune is 0.0: it must be above 0"),
        ({"fine_tune": -1.0}, "fine_tune is -1.0: it must be above 0"),
        ({"score_batches": 0}, "score_batches is 0: it must be a whole number of at least 1"),
        ({"update_every": "never"}, "duration 'never' is not"),
    ],
)
def test_what_cannot_be_had_is_refused_at_attach(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attach(eight(), [BATCH], **values)


def test_no_batches_are_refused_at_attach_and_a_score_that_is_not_finite_names_the_layer() -> None:
    with pytest.raises(ValueError, match=r"taylor: train_batches\(\) gave no batch"):
        attach(eight(), [], density=0.5)
    model = eight()
    at = attach(model, [BATCH], density=0.5, loss_fn=lambda output, _: (0 * output.sum()).abs().sqrt())
    with pytest.raises(ValueError, match=r"taylor: [0-9]+ scores of 0\.weight are not finite, such as nan"):
        Taylor().changes(at.context, {"0.weight": maskable_weights(model)["0.weight"]})
