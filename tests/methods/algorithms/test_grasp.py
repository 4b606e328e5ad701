"""GraSP on eight weights worked by hand, and its masks beside those of the authors' code."""

from __future__ import annotations

from typing import Any

import authors_scores
import pytest
import torch
from torch import Tensor, nn

import methods


def half_square(outputs: Tensor, target: Tensor) -> Tensor:
    return outputs.square().sum() / 2


# L = (a1^2 + a2^2) / 2 with a_i = w_i x: g_ij = a_i x_j, and H g_i = a_i |x|^2 x with |x|^2 = 6.25
# x            1    2   -1   0.5                                     w H g / 6.25
# w1           2    1    1   -2      a1 =  2 + 2 - 1 - 1     =  2     4   4  -2  -2
# w2           1   -1   0.5   1      a2 =  1 - 2 - 0.5 + 0.5 = -1    -1   2  .5 -.5
X = torch.tensor([[1.0, 2.0, -1.0, 0.5]])
WEIGHT = torch.tensor([[2.0, 1.0, 1.0, -2.0], [1.0, -1.0, 0.5, 1.0]])


def attached(data: Any = None, **values: Any) -> methods.Attachment:
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(WEIGHT)
    batches = data or [(X, torch.tensor([0]))]
    return methods.attach(
        model, "grasp", total_steps=4, steps_per_epoch=2, train_batches=lambda: batches, loss_fn=half_square, **values
    )


def test_the_weights_without_which_the_gradient_is_smallest_are_kept() -> None:
    assert attached(density=0.25).masks()["weight"].int().tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert attached(density=0.5).masks()["weight"].int().tolist() == [[1, 1, 0, 0], [0, 1, 1, 0]]
    assert attached(density=0.625).masks()["weight"].int().tolist() == [[1, 1, 0, 0], [0, 1, 1, 1]]


def test_the_masks_are_those_of_the_authors_code() -> None:
    golden = authors_scores.read("grasp")
    theirs = authors_scores.theirs(golden)
    kept = sum(int(mask.sum()) for mask in theirs.values())
    assert kept == 43, "their code keeps one more than a quarter of 168"
    masks = authors_scores.masks_of("grasp", golden, density=kept / 168, samples_per_class=6)
    assert all(torch.equal(mask, masks[name]) for name, mask in theirs.items())


def test_the_temperature_divides_the_outputs() -> None:
    golden = authors_scores.read("grasp")
    cool = authors_scores.masks_of("grasp", golden, density=0.25, temperature=1.0)
    warm = authors_scores.masks_of("grasp", golden, density=0.25)
    assert any(not torch.equal(mask, warm[name]) for name, mask in cool.items())


def test_the_first_examples_of_each_class_are_scored() -> None:
    # the third example is the second one of class 0, and the fourth comes after both classes are full
    labels = torch.tensor([0, 1, 0, 1])
    inputs = torch.cat([X, torch.zeros_like(X), 100 * X.flip(1), 100 * X.flip(1)])
    at = attached([(inputs[:3], labels[:3]), (inputs[3:], labels[3:])], samples_per_class=1, density=0.5)
    assert at.scored_examples == 2 * 2, "two examples, for the gradient and for the product"
    assert at.masks()["weight"].int().tolist() == [[1, 1, 0, 0], [0, 1, 1, 0]]


def test_examples_are_scored_in_batches_no_larger_than_the_trainings_and_the_masks_are_the_same() -> None:
    golden = authors_scores.read("grasp")
    model, x, y = authors_scores.network(golden), torch.tensor(golden["inputs"]), torch.tensor(golden["targets"])
    sizes: list[int] = []
    model.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    at = methods.attach(
        model,
        "grasp",
        total_steps=4,
        steps_per_epoch=2,
        train_batches=lambda: list(zip(x.split(7), y.split(7), strict=True)),
        density=43 / 168,
        samples_per_class=6,
    )
    assert sizes[1:] == 2 * [6, 6, 6, 6], "24 examples, after one look at the number of outputs"
    assert all(torch.equal(mask, at.masks()[name]) for name, mask in authors_scores.theirs(golden).items())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"density": 0.0}, r"density is 0.0: it must lie in \(0, 1\]"),
        ({"samples_per_class": 0}, "samples_per_class is 0: it must be a whole number of at least 1"),
        ({"temperature": 0.0}, "temperature is 0.0: it must be above 0"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("grasp", **values)


def test_targets_that_are_no_classes_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"grasp: targets are torch.float32 \[1, 2\], not class numbers"):
        attached([(X, torch.zeros(1, 2))])
    with pytest.raises(ValueError, match="grasp: the loss of a batch to score on is nan"):
        attached([(X * torch.nan, torch.tensor([0]))])
