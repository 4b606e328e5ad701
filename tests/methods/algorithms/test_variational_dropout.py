"""Variational dropout on eight weights worked by hand, its noise, and its promises."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import methods
from methods.algorithms.variational_dropout import divergence, log_alpha

E = math.e
# sigma^2 = 1, so that log alpha = -2 log |theta|; pruned where it is 3 or more
# theta      e^2   e^-1  e^-2   -1        log alpha   -4    2    4    0
#            e     -e^-1 e^-1.6 -e^-3                 -2    2   3.2   6
THETA = torch.tensor([[E**2, E**-1, E**-2, -1.0], [E, -(E**-1), E**-1.6, -(E**-3)]])
KEPT = [[1, 1, 0, 1], [1, 1, 0, 0]]


def attached(model: nn.Module | None = None, **values: Any) -> tuple[nn.Module, methods.Attachment]:
    if model is None:
        model = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            model.weight.copy_(THETA)
    given = {"initial_log_sigma2": 0.0, "train_examples": 100} | values
    return model, methods.attach(model, "variational_dropout", total_steps=40, steps_per_epoch=4, **given)


def next_noise(at: methods.Attachment, *shape: int) -> Tensor:
    """What the method draws next from its generator."""
    return torch.randn(shape, generator=at.context.generator.clone_state())


def test_weights_are_pruned_where_log_alpha_reaches_the_threshold() -> None:
    model, at = attached()
    torch.testing.assert_close(
        log_alpha(THETA, torch.zeros(2, 4)), torch.tensor([[-4.0, 2, 4, 0], [-2, 2, 3.2, 6]]), atol=1e-4, rtol=0
    )
    assert at.masks()["weight"].int().tolist() == KEPT
    assert at.density() == 5 / 8
    assert attached(threshold=1.0)[1].masks()["weight"].int().tolist() == [[1, 0, 0, 1], [1, 0, 0, 0]]
    x = torch.randn(3, 4)
    assert torch.equal(model.eval()(x), x @ (THETA * torch.tensor(KEPT)).t())
    assert torch.equal(model(x), model(x)), "an evaluation draws nothing"
    methods.finalize(model)
    assert torch.equal(model.weight.detach(), THETA * torch.tensor(KEPT))


def test_a_linear_layer_adds_noise_to_each_output() -> None:
    # x = (1, 2, 2, 4): the variance of each output is 1 + 4 + 4 + 16 = 25, that of pruned weights included
    model, at = attached()
    x = torch.tensor([[1.0, 2.0, 2.0, 4.0], [0.0, 0.0, 0.0, 1.0]])
    noise = next_noise(at, 2, 2)
    deviation = torch.tensor([[5.0], [1.0]])
    torch.testing.assert_close(model(x), x @ (THETA * torch.tensor(KEPT)).t() + deviation * noise, rtol=1e-4, atol=1e-4)
    assert not torch.equal(model(x), model(x)), "each forward pass draws anew"


def test_a_convolution_draws_a_weight_for_the_whole_batch() -> None:
    conv, theta = nn.Conv2d(1, 2, 2, bias=False), torch.linspace(-1, 1.8, 8).view(2, 1, 2, 2)
    with torch.no_grad():
        conv.weight.copy_(theta)
    model, at = attached(conv, initial_log_sigma2=-2.0)
    noise = next_noise(at, 2, 1, 2, 2)
    x = torch.randn(1, 1, 3, 3).expand(5, 1, 3, 3)
    got = model(x)
    want = theta * at.masks()["weight"] + math.exp(-1) * noise
    torch.testing.assert_close(got, F.conv2d(x, want), rtol=1e-3, atol=1e-3)
    assert torch.equal(got[0], got[4])


LAYERS: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "convolution": (nn.Conv1d(2, 2, 2), (torch.ones(1, 2, 4),)),
    "bilinear": (nn.Bilinear(2, 3, 4), (torch.ones(1, 2), torch.ones(1, 3))),
    "cell": (nn.GRUCell(2, 3), (torch.ones(1, 2), torch.ones(1, 3))),
    "attention": (nn.MultiheadAttention(4, 2), (torch.rand(3, 1, 4),) * 3),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_every_weight_of_every_layer_has_noise(layer: str, compiled: bool) -> None:
    given, inputs = LAYERS[layer]
    torch._dynamo.reset()
    model, _ = attached(copy.deepcopy(given), initial_log_sigma2=-2.0)
    forward = torch.compile(model, backend="eager") if compiled else model

    def outputs() -> Tensor:
        found = forward(*inputs)
        return found if isinstance(found, Tensor) else found[0]

    first = outputs()
    assert not torch.equal(first, outputs())
    first.square().sum().backward()
    spread = {name: p.grad for name, p in model.named_parameters() if name.endswith("_threshold")}
    assert all(gradient is not None and bool(gradient.any()) for gradient in spread.values()), spread


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_that_would_draw_other_noise_in_the_backward_pass_is_refused(reentrant: bool) -> None:
    model, _ = attached()
    x = torch.randn(3, 4, requires_grad=True)
    loss = checkpoint(model, x, use_reentrant=reentrant).square().sum()
    with pytest.raises(RuntimeError, match="activation checkpointing computes this layer again, with other noise"):
        loss.backward()
    checkpoint(model.eval(), x, use_reentrant=reentrant).square().sum().backward()


def test_pruned_weights_get_the_gradient_of_their_noise_only() -> None:
    model, at = attached()
    x = torch.tensor([[1.0, 2.0, 2.0, 4.0]])
    noise = next_noise(at, 1, 2)
    model(x).sum().backward()
    theta, log_sigma2 = at.weights()["weight"], dict(model.named_parameters())["weight_threshold"]
    assert theta.grad is not None
    assert log_sigma2.grad is not None
    # dy_i/dtheta_ij = x_j where kept; dy_i/dlog sigma_ij^2 = e_i x_j^2 / (2 * 5)
    torch.testing.assert_close(theta.grad, x * torch.tensor(KEPT), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(log_sigma2.grad, noise.t() * x.square() / 10, rtol=1e-4, atol=1e-4)


def test_the_divergence_is_the_papers_approximation() -> None:
    # log alpha 0: 0.63576 * (1 - S(1.8732)) + 0.5 log 2 = 0.63576 * 0.13316 + 0.34657 = 0.43123
    # log alpha -4: 0.63576 * (1 - S(-4.0746)) + 0.5 log(1 + e^4) = 0.63576 * 0.98328 + 2.00907 = 2.63420
    assert divergence(torch.tensor([0.0])).item() == pytest.approx(0.43123, abs=1e-4)
    assert divergence(torch.tensor([-4.0])).item() == pytest.approx(2.63420, abs=1e-4)
    assert divergence(torch.tensor([8.0])).item() == pytest.approx(0.0, abs=1e-3)
    assert divergence(torch.tensor([0.0, -4.0])).item() == pytest.approx(3.06543, abs=1e-4)


def test_the_penalty_warms_up_and_is_divided_by_the_number_of_examples() -> None:
    _, at = attached(warm_up=(0.25, 0.75))  # steps 10 to 30 of 40
    full = divergence(log_alpha(THETA, torch.zeros(2, 4))).item() / 100
    seen = {}
    for step in (0, 10, 20, 30, 39):
        at.context.step = step
        seen[step] = at.penalty().item()
    assert seen == pytest.approx({0: 0.0, 10: 0.0, 20: full / 2, 30: full, 39: full})


def test_the_number_of_examples_is_that_of_an_epoch_of_first_batches() -> None:
    batch = torch.randn(25, 4), torch.zeros(25, dtype=torch.int64)
    _, at = attached(train_examples=None, train_batches=lambda: [batch])
    _, given = attached()
    at.context.step = given.context.step = 39
    assert at.penalty().item() == pytest.approx(given.penalty().item())
    _, at = attached(train_examples=None, train_batches=lambda: [batch] * 16)  # four of them in each step
    at.context.step = 39
    assert 4 * at.penalty().item() == pytest.approx(given.penalty().item())
    with pytest.raises(ValueError, match="variational_dropout: give train_examples=…, the number of training examples"):
        attached(train_examples=None)


def test_noise_is_drawn_from_the_methods_generator_and_a_copy_has_its_own() -> None:
    model, _ = attached()
    same, _ = attached()
    other = methods.attach(
        copied := nn.Linear(4, 2, bias=False),
        "variational_dropout",
        total_steps=4,
        steps_per_epoch=4,
        seed=1,
        initial_log_sigma2=0.0,
        train_examples=100,
    )
    with torch.no_grad():
        other.weights()["weight"].copy_(THETA)
    x, before = torch.randn(3, 4), torch.get_rng_state()
    copied_model = copy.deepcopy(model)
    first = model(x)
    assert torch.equal(same(x), first)
    assert torch.equal(copied_model(x), first)
    assert not torch.equal(copied(x), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_prunes_weights_that_the_task_does_not_need() -> None:
    torch.manual_seed(0)
    x = torch.randn(500, 8)
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    model = nn.Linear(8, 4)
    at = methods.attach(
        model, "variational_dropout", total_steps=400, steps_per_epoch=4, train_examples=500, initial_log_sigma2=-4.0
    )
    at.bind(torch.optim.Adam(at.parameter_groups(), lr=0.02))
    for _ in range(400):
        model.zero_grad()
        (F.cross_entropy(model(x), y) + at.penalty()).backward()
        at.step()
    mask = at.masks()["weight"]
    assert mask[:, :2].all()
    assert int(mask[:, 2:].sum()) <= 12, "of 24 weights of inputs that say nothing of the class"
    assert float((model.eval()(x).argmax(1) == y).float().mean()) > 0.9


@pytest.mark.slow
@pytest.mark.rare
def test_a_compiled_model_trains_and_draws_each_time() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    at = methods.attach(model, "variational_dropout", total_steps=4, steps_per_epoch=4, train_examples=100)
    at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.1))
    compiled, x = torch.compile(model), torch.randn(5, 1, 4, 4)
    assert not torch.equal(compiled(x), compiled(x))
    F.cross_entropy(compiled(x), torch.arange(5) % 3).backward()
    at.step()
    model.eval()
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": 9.0}, r"threshold is 9\.0: it must lie in \(-8, 8\], as log alpha does"),
        ({"initial_log_sigma2": float("inf")}, "initial_log_sigma2 is inf: it must be a finite number"),
        ({"warm_up": (0.5, 0.5)}, r"warm_up is \(0\.5, 0\.5\): it must be two fractions of the training"),
        ({"warm_up": [0.5]}, r"warm_up is \(0\.5,\): it must be two fractions"),
        ({"train_examples": 0}, "train_examples is 0: it must be a whole number of at least 1"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.create("variational_dropout", **values)
