"""OBD on eight weights drawn in a comment, its second derivatives, and its rounds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from methods.algorithms.obd import OBD, output_hessian, projection, second_derivatives

Batches = list[tuple[Tensor, Tensor]]


def attach(model: nn.Module, batches: Batches, **values: Any) -> methods.Attachment:
    given = {"total_steps": 4, "steps_per_epoch": 2} | values
    at = methods.attach(model, "obd", train_batches=lambda: iter(batches), **given)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.0))
    return at


def finish(model: nn.Module, at: methods.Attachment, batches: Batches) -> list[int]:
    """Train to the end with learning rate 0; the kept counts after each step."""
    kept = []
    for step in range(at.total_steps):
        x, y = batches[step % len(batches)]
        at.context.loss_fn(model(x), y).backward()
        at.step()
        kept.append(int(at.kept_counts().sum()))
    return kept


def test_eight_weights() -> None:
    # E = ((z_0 - t_0)^2 + (z_1 - t_1)^2) / 2, so d^2E/dz^2 = 1 and h = x^2 = 1, 4, 0, 9 in each row
    # weight    0.9    0.4   5  0.2     -1.0  -0.5  3  -0.1
    # h u^2 / 2 0.405  0.32  0  0.18    0.5   0.5   0  0.045
    # 3 stay    x                       x     x
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.9, 0.4, 5.0, 0.2], [-1.0, -0.5, 3.0, -0.1]]))
    batches = [(torch.tensor([[1.0, 2.0, 0.0, 3.0]]), torch.zeros(1, 2))]
    at = attach(model, batches, loss_fn=F.mse_loss, density=3 / 8, rounds=1)
    want = [[0.405, 0.32, 0.0, 0.18], [0.5, 0.5, 0.0, 0.045]]
    assert OBD().saliencies(at.context)["weight"].tolist() == [pytest.approx(row) for row in want]
    assert finish(model, at, batches) == [8] * 3 + [3] * 2
    assert at.masks()["weight"].tolist() == [[True, False, False, False], [True, True, False, False]]


def test_the_hessian_of_the_outputs_is_that_of_cross_entropy() -> None:
    """diag(p) - p p^T, over the number of examples."""
    torch.manual_seed(0)
    outputs, target = torch.randn(3, 4), torch.tensor([0, 3, 1])
    p = outputs.softmax(1)
    want = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) / 3
    torch.testing.assert_close(output_hessian(F.cross_entropy, outputs, target), want)
    assert not output_hessian(lambda z, _: z.sum(), outputs, target).any()


def test_the_estimate_has_the_expectation_of_the_hessians_diagonal() -> None:
    """For a network with ReLU, over 600 draws of the signs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    x, y = torch.randn(20, 5), torch.randint(3, (20,))
    at = attach(model, [(x, y)] * 600, density=0.5)
    found = second_derivatives(at.context, batches=600)
    assert at.scored_examples == 600 * 20
    for name, estimate in found.items():
        others = {n: p.detach() for n, p in model.named_parameters()}

        def loss(weight: Tensor, name: str = name, others: dict[str, Tensor] = others) -> Tensor:
            return F.cross_entropy(torch.func.functional_call(model, others | {name: weight}, (x,)), y)

        size = estimate.numel()
        hessian = torch.autograd.functional.hessian(loss, others[name]).reshape(size, size)
        want = hessian.diagonal().reshape(estimate.shape)
        assert bool((estimate >= 0).all())
        assert float((estimate - want).abs().sum() / want.sum()) < 0.1
        assert float(estimate.sum() / want.sum()) == pytest.approx(1, abs=0.05)


def test_the_signs_come_from_the_given_generator() -> None:
    outputs, target = torch.randn(6, 4), torch.arange(6) % 4
    values = [
        float(projection(F.cross_entropy, torch.Generator().manual_seed(seed), outputs, target)) for seed in (0, 0, 1)
    ]
    assert values[0] == values[1] != values[2]


def test_rounds_delete_geometrically_and_what_is_deleted_stays_0() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 30), nn.Tanh(), nn.Linear(30, 10))  # 600 weights
    batches = [(torch.randn(16, 10), torch.arange(16) % 10) for _ in range(2)]
    at = attach(model, batches, total_steps=4, density=0.125, rounds=3, retrain=0.5)
    assert [(phase.name, phase.steps) for phase in at.phases] == [("train", 4), *((f"round {r}", 2) for r in (1, 2, 3))]
    assert at.density() == 1
    assert finish(model, at, batches) == [600] * 3 + [300] * 2 + [150] * 2 + [75] * 3
    for name, mask in at.masks().items():
        assert bool((model.get_parameter(name)[~mask] == 0).all())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"density": 0.0}, r"density is 0.0: it must lie in \(0, 1\]"),
        ({"rounds": 0}, "rounds is 0: it must be a whole number of 1 to 1000"),
        ({"score_batches": 0}, "score_batches is 0: it must be a whole number of at least 1"),
        ({"retrain": 0.0}, "retrain is 0.0: it must be above 0"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("obd", **values)


def test_no_batches_fail_at_attach_and_a_loss_that_is_not_finite_is_named() -> None:
    with pytest.raises(ValueError, match=r"obd: train_batches\(\) gave no batch"):
        attach(nn.Linear(4, 2), [])
    batches = [(torch.full((1, 4), float("inf")), torch.tensor([0]))]
    at = attach(nn.Linear(4, 2), batches, density=0.5)
    with pytest.raises(ValueError, match="obd: the loss of a batch to score on is nan"):
        OBD().saliencies(at.context)
