"""Layers and penalties that compute with trainable thresholds are those that their modules would compute."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from kernel_paths import is_in_blocks, use_kernels
from torch import Tensor, nn
from torch.nn.utils import parametrize

import methods
from methods.kernels.cpp import Cpp
from methods.layers import maskable_weights
from methods.thresholds import SHAPES
from methods.weights.reparametrization import EffectiveWeight, reparametrize


class Doubled(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, 2 * self.weight, self.bias)


class Named(nn.Linear):
    """A layer of another class, which computes as its base does."""


@pytest.mark.parametrize("path", ["eager", "cpp"])
@pytest.mark.parametrize("kind", [nn.Linear, Doubled, Named])
def test_a_layer_computes_as_its_class_says(kind: type[nn.Linear], path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels(path, monkeypatch)
    torch.manual_seed(0)
    model, x = kind(11, 7), torch.randn(3, 11)
    methods.attach(model, "dst", total_steps=1, steps_per_epoch=1)
    with torch.no_grad():
        model.weight_threshold.fill_(0.15)
    for copied in (model, copy.deepcopy(model)):
        found = copied(x)
        if path == "cpp":
            assert is_in_blocks(found) == (kind is not Doubled)
        methods.finalize(copied)
        assert type(copied) is kind
        assert int((copied.weight == 0).sum()) > 0
        torch.testing.assert_close(found, copied(x))


def test_inputs_may_be_named_as_in_a_dense_layer() -> None:
    model, x = nn.Linear(4, 3), torch.randn(2, 4)
    methods.attach(model, "dst", total_steps=1, steps_per_epoch=1)
    assert torch.equal(model(input=x), model(x))


def test_thresholds_of_two_types_are_regularized(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3).double())
    attached = methods.attach(model, "dst", total_steps=1, steps_per_epoch=1, alpha=0.5)
    value = attached.penalty()
    assert value.item() == 3.5
    value.backward()
    assert model[0].weight_threshold.grad.dtype == torch.float32
    assert model[1].weight_threshold.grad.dtype == torch.float64


@pytest.mark.slow
def test_a_compiled_model_traces_the_plain_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(11, 7), nn.ReLU(), nn.Linear(7, 3)), torch.randn(4, 11)
    methods.attach(model, "dst", total_steps=1, steps_per_epoch=1)
    with torch.no_grad():
        model[0].weight_threshold.fill_(0.15)
    want = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    found = torch.autograd.grad(torch.compile(model, fullgraph=True)(x).square().sum(), list(model.parameters()))
    for ours, plain in zip(found, want, strict=True):
        torch.testing.assert_close(ours, plain)


def test_a_bias_that_is_computed_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)

    class Doubling(nn.Module):
        def forward(self, bias: Tensor) -> Tensor:
            return 2 * bias

    model = nn.Linear(4, 3)
    given = model.bias.detach().clone()
    parametrize.register_parametrization(model, "bias", Doubling())
    methods.attach(model, "dst", total_steps=1, steps_per_epoch=1)
    torch.testing.assert_close(model(torch.zeros(1, 4))[0], 2 * given)


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_regularization_is_that_of_plain_operations(
    shape: str, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for path in ("eager", "cpp"):
        use_kernels(path, monkeypatch)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(50, 40), nn.Conv2d(1, 3, 3))  # matrix: 2000 numbers are more than few
        attached = methods.attach(model, "dst", total_steps=1, steps_per_epoch=1, threshold=shape)
        own = list(attached.context.thresholds.parameters().values())
        with torch.no_grad():
            for threshold in own:
                threshold.uniform_()
        value = attached.context.thresholds.regularization(scale)
        found[path] = [value, *torch.autograd.grad(3 * value, own)]
    by_hand = scale * sum(float(torch.exp(-threshold.detach().double()).sum()) for threshold in own)
    assert found["cpp"][0].item() == pytest.approx(by_hand, rel=1e-6)
    for ours, plain in zip(found["cpp"], found["eager"], strict=True):
        torch.testing.assert_close(ours, plain)


def test_a_linear_layer_on_cpp_never_asks_for_the_whole_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    model = nn.Linear(5, 4)
    methods.attach(model, "dst", total_steps=1, steps_per_epoch=1)
    monkeypatch.setattr(Cpp, "masked_weight", lambda *given: pytest.fail("the masked weight was written out"))
    y = model(torch.randn(2, 5))
    assert is_in_blocks(y)
    y.sum().backward()
    assert model.weight_threshold.grad is not None


class Scaled(EffectiveWeight):
    def __call__(self, weight: Tensor, extra: Tensor, /) -> Tensor:
        return weight * extra


@pytest.mark.parametrize(
    "model", [nn.Linear(5, 4), nn.Conv1d(5, 4, 1), nn.LSTM(5, 4)], ids=lambda model: type(model).__name__
)
def test_an_effective_weight_needs_to_say_no_more_than_its_value(model: nn.Module) -> None:
    x, want = torch.randn(5, 5), copy.deepcopy(model)
    for name, weight in maskable_weights(model).items():
        reparametrize(weight, Scaled(), torch.full((), 0.5))
        want.get_parameter(name).data.mul_(0.5)
    found, expected = model(x), want(x)
    torch.testing.assert_close(found, expected)
