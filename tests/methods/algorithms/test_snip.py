"""SNIP on eight weights worked by hand, and its masks beside those of an independent code."""

from __future__ import annotations

from typing import Any

import authors_scores
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods


def half_square(outputs: Tensor, target: Tensor) -> Tensor:
    return outputs.square().sum() / 2


# L = (a1^2 + a2^2) / 2 with a_i = w_i x, so that dL/dw_ij = a_i x_j
# x            1    2   -1   0.5
# w1           2    1    1   -2      a1 =  2 + 2 - 1 - 1     =  2     |w x a|   4   4   2   2
# w2           1   -1   0.5   1      a2 =  1 - 2 - 0.5 + 0.5 = -1               1   2  .5  .5
X = torch.tensor([[1.0, 2.0, -1.0, 0.5]])
WEIGHT = torch.tensor([[2.0, 1.0, 1.0, -2.0], [1.0, -1.0, 0.5, 1.0]])


ONE = (X, torch.tensor([0]))
OTHER = (torch.tensor([[0.0, 0.0, 0.0, 9.0]]), torch.tensor([0]))  # a = (-18, 9): |w x a| is 324 and 81 at the end


def attached(weight: Tensor = WEIGHT, **values: Any) -> methods.Attachment:
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(weight)
    data = [ONE, OTHER]
    return methods.attach(
        model, "snip", total_steps=4, steps_per_epoch=2, train_batches=lambda: data, loss_fn=half_square, **values
    )


def test_the_weights_of_largest_connection_sensitivity_are_kept() -> None:
    at = attached(density=0.25)
    assert at.masks()["weight"].int().tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    at = attached(density=0.625)
    assert at.masks()["weight"].int().tolist() == [[1, 1, 1, 1], [0, 1, 0, 0]]
    assert torch.equal(at.weights()["weight"].detach(), WEIGHT * at.masks()["weight"])
    assert at.scored_examples == 1


def test_scores_are_of_the_mean_loss_over_the_batches_asked_for() -> None:
    # both: 4 / 2, 4 / 2, 2 / 2, (324 + 2) / 2 and 1 / 2, 2 / 2, .5 / 2, (81 - .5) / 2
    at = attached(density=0.25, batches=2)
    assert at.masks()["weight"].int().tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]
    assert at.scored_examples == 2


def test_the_masks_are_those_of_an_independent_code() -> None:
    golden = authors_scores.read("snip")
    masks = authors_scores.masks_of("snip", golden, density=golden["density"])
    assert all(torch.equal(mask, masks[name]) for name, mask in authors_scores.theirs(golden).items())


def test_the_mask_never_changes_and_pruned_weights_stay_zero() -> None:
    golden = authors_scores.read("snip")
    model, batch = authors_scores.network(golden), (torch.tensor(golden["inputs"]), torch.tensor(golden["targets"]))
    at = methods.attach(model, "snip", total_steps=4, steps_per_epoch=2, train_batches=lambda: [batch], density=0.2)
    at.bind(torch.optim.SGD(at.parameter_groups(weight_decay=0.01), lr=0.1, momentum=0.9))
    masks = at.masks()
    for _ in range(4):
        F.cross_entropy(model(batch[0]), batch[1]).backward()
        at.step()
        assert all(torch.equal(mask, masks[name]) for name, mask in at.masks().items())
        assert not any(weight[~masks[name]].any() for name, weight in at.weights().items())
    assert at.density() == round(0.2 * 168) / 168


def test_a_layer_that_keeps_no_weight_is_warned_of_by_name() -> None:
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(WEIGHT)
        model[1].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    # outputs (2, 2): |w x (2 + 2)| is 8 8 4 4 in the first row of the first layer, |w a1 2| is 4 and 4 in the second
    with pytest.warns(UserWarning, match=r"snip: 1\.weight keeps no weight at density 0\.166667"):
        methods.attach(
            model,
            "snip",
            total_steps=1,
            steps_per_epoch=1,
            train_batches=lambda: [ONE],
            loss_fn=half_square,
            density=1 / 6,
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"density": 1.5}, r"density is 1.5: it must lie in \(0, 1\]"),
        ({"batches": 0}, "batches is 0: it must be a whole number of at least 1"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("snip", **values)


def test_scores_that_rank_nothing_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="snip: the scores of all weights are 0"):
        attached(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"snip: density 0\.01 keeps none of 8 weights"):
        attached(density=0.01)
    with pytest.raises(ValueError, match="snip: the loss of a batch to score on is nan"):
        attached(WEIGHT * torch.nan)
