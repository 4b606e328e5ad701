"""SynFlow on eight weights worked by hand, and its masks beside those of the authors' code."""

from __future__ import annotations

from typing import Any

import authors_scores
import pytest
import torch
from torch import Tensor, nn

import methods

FIRST = torch.tensor([[5.0, -4.0], [4.0, 3.0]])
SECOND = torch.tensor([[-4.0, 3.0], [1.0, 5.0]])


def two_layers() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(FIRST)
        model[2].weight.copy_(SECOND)
    return model


def attached(model: nn.Module, x: Tensor | None = None, **values: Any) -> methods.Attachment:
    batch = (torch.randn(3, 2) if x is None else x, torch.tensor([0, 1, 0]))
    return methods.attach(model, "synflow", total_steps=4, steps_per_epoch=2, train_batches=lambda: [batch], **values)


def kept(at: methods.Attachment) -> list[list[list[int]]]:
    return [mask.int().tolist() for mask in at.masks().values()]


def test_one_round_keeps_the_largest_flow() -> None:
    # |W1|  5  4   rows sum to 9     |W2|  4  3            S1 = |W1| times a column sum of |W2|   25  20
    #       4  3               7           1  5                                                   32  24
    #                            columns   5  8            S2 = |W2| times a row sum of |W1|      36  21
    #                                                                                              9  35
    assert kept(attached(two_layers(), density=0.5, rounds=1)) == [[[1, 0], [1, 0]], [[1, 0], [0, 1]]]


def test_each_round_scores_the_network_that_the_rounds_before_have_left() -> None:
    # the first of two rounds keeps round(0.5^(1/2) * 8) = 6: without 9 and 20
    # |W1|  5  .   rows sum to 5     |W2|  4  3            S1   20   .
    #       4  3               7           .  5                 32  24
    #                            columns   4  8            S2   20  21
    #                                                            .  35
    at = attached(two_layers(), density=0.5, rounds=2)
    assert kept(at) == [[[0, 0], [1, 1]], [[0, 1], [0, 1]]]  # 35, 32, 24 and 21
    assert at.scored_examples == 2
    weights = [weight.detach() for weight in at.weights().values()]
    assert torch.equal(weights[0], torch.tensor([[0.0, 0.0], [4.0, 3.0]]))
    assert torch.equal(weights[1], torch.tensor([[0.0, 3.0], [0.0, 5.0]]))


def test_the_masks_are_those_of_the_authors_code() -> None:
    golden = authors_scores.read("synflow")
    theirs = authors_scores.theirs(golden)
    masks = authors_scores.masks_of("synflow", golden, density=sum(int(m.sum()) for m in theirs.values()) / 168)
    assert all(torch.equal(mask, masks[name]) for name, mask in theirs.items())


def test_the_values_of_the_data_do_not_matter_and_the_model_is_as_before() -> None:
    golden = authors_scores.read("synflow")
    other = golden | {"inputs": (100 * torch.randn(24, 12)).tolist()}
    mine, others = (authors_scores.masks_of("synflow", each, density=0.1) for each in (golden, other))
    assert all(torch.equal(mask, others[name]) for name, mask in mine.items())
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Linear(2, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masks = attached(model, density=0.5).masks()
    assert model[1].training
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name] * masks[name] if name in masks else before[name])


def test_a_deep_network_does_not_overflow() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(20, 20, bias=False) for _ in range(40)))
    with torch.no_grad():
        for layer in model:
            layer.weight.mul_(10)
    batch = (torch.randn(2, 20), torch.tensor([0, 1]))
    at = methods.attach(
        model, "synflow", total_steps=1, steps_per_epoch=1, train_batches=lambda: [batch], density=0.05, rounds=20
    )
    assert min(int(mask.sum()) for mask in at.masks().values()) > 0
    assert at.density() == 0.05


def test_a_flow_beyond_float64_is_refused_by_name() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(9)))
    with torch.no_grad():
        for layer in model:
            layer.weight.fill_(1e38)
    with pytest.raises(ValueError, match="synflow: R, the sum of the outputs, is inf"):
        attached(model)
    assert model[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"density": -0.1}, r"density is -0.1: it must lie in \(0, 1\]"),
        ({"rounds": 0}, "rounds is 0: it must be a whole number of at least 1"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("synflow", **values)


def test_a_model_that_casts_inside_is_refused_by_name() -> None:
    class Casts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2).bfloat16()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.second(self.first(x).bfloat16())
            return output

    batch = (torch.ones(2, 4), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="synflow: the model cannot compute in float64, so it casts inside"):
        methods.attach(Casts(), "synflow", total_steps=4, steps_per_epoch=2, train_batches=lambda: [batch], density=0.5)
