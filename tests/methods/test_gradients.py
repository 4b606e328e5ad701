"""Appendix A.3 in float64: the gradients of masked layers against its formulas, written out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from kernel_paths import use_kernels
from torch import Tensor, nn

import methods


@dataclass(frozen=True)
class Layer:
    make: Callable[[], nn.Module]
    input_shape: tuple[int, ...]


LAYERS = {
    "linear": Layer(lambda: nn.Linear(5, 7), (3, 5)),
    "conv1d": Layer(lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (2, 4, 9)),
    "conv2d": Layer(lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (2, 4, 9, 8)),
    "conv2d, reflected": Layer(lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 2, 4, 5)),
    "conv3d": Layer(lambda: nn.Conv3d(2, 4, (1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 1), groups=2), (2, 2, 3, 4, 4)),
    "lstm": Layer(lambda: nn.LSTM(4, 3), (5, 2, 4)),
    "lstm, deep, bidirectional": Layer(lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True), (5, 2, 4)),
    "gru": Layer(lambda: nn.GRU(4, 3, batch_first=True), (2, 5, 4)),
    "gru, deep, bidirectional": Layer(lambda: nn.GRU(4, 3, num_layers=2, bidirectional=True), (5, 2, 4)),
}


def long_tail(q: float) -> float:
    """H(x), eq. 3."""
    if abs(q) <= 0.4:
        return 2 - 4 * abs(q)
    return 0.4 if abs(q) <= 1 else 0.0


def straight_through(q: float) -> float:
    return 1.0 if abs(q) <= 1 else 0.0


ESTIMATORS = {"long_tailed": long_tail, "straight_through": straight_through}


def full_size(threshold: Tensor, shape: torch.Size) -> Tensor:
    """T with T[i, ...] the threshold of that entry, whichever shape the thresholds have."""
    if threshold.shape == shape:
        return threshold
    index = [-1] + [1] * (len(shape) - 1) if threshold.dim() else [1] * len(shape)
    return threshold.reshape(index).expand(shape)


def appendix_a3(w: Tensor, threshold: Tensor, d_product: Tensor, h: Callable[[float], float]) -> tuple[Tensor, Tensor]:
    """dW = dP M + dP W H(Q) sgn(W) and dT = -dP W H(Q), summed over what shares a threshold."""
    dP = d_product
    Q = w.abs() - full_size(threshold, w.shape)
    M = (Q > 0).to(w.dtype)
    H = torch.tensor([h(q) for q in Q.flatten().tolist()], dtype=w.dtype).reshape(w.shape)
    dW = dP * M + dP * w * H * torch.sign(w)
    dT = -dP * w * H
    if threshold.shape == w.shape:
        return dW, dT
    return dW, dT.sum() if threshold.dim() == 0 else torch.stack([row.sum() for row in dT])


def output_and_weights(module: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, nn.Parameter]]:
    out = module(x)
    weights = {name: p for name, p in module.named_parameters() if p.dim() > 1}
    return (out[0] if isinstance(out, tuple) else out), weights


@pytest.mark.parametrize("path", ["eager", "cpp"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("shape", ["vector", "scalar", "matrix"])
@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_are_those_of_appendix_A3(
    layer: str, shape: str, estimator: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kernels(path, monkeypatch)
    torch.manual_seed(0)
    masked = LAYERS[layer].make().double()
    plain = copy.deepcopy(masked)
    attached = methods.attach(masked, "dst", total_steps=1, steps_per_epoch=1, threshold=shape, estimator=estimator)
    parameters = dict(masked.named_parameters())
    names = list(attached.masks())
    with torch.no_grad():
        for name in names:
            parameters[name].uniform_(-2, 2)
            threshold = parameters[f"{name}_threshold"]
            threshold.uniform_(0, 1) if threshold.dim() else threshold.fill_(0.7)
            plain.get_parameter(name).copy_(parameters[name] * attached.masks()[name])
    x = torch.randn(LAYERS[layer].input_shape, dtype=torch.float64, requires_grad=True)
    x_plain = x.detach().clone().requires_grad_()
    y, _ = output_and_weights(masked, x)
    y_plain, products = output_and_weights(plain, x_plain)
    assert torch.equal(y, y_plain)
    d_y = torch.randn_like(y)
    y.backward(d_y)
    y_plain.backward(d_y)

    torch.testing.assert_close(x.grad, x_plain.grad, rtol=1e-12, atol=1e-12)
    for name in names:
        weight, threshold, dP = parameters[name], parameters[f"{name}_threshold"], products[name].grad
        assert dP is not None
        assert 0 < int(attached.masks()[name].sum()) < weight.numel(), "the example must keep some and prune some"
        dW, dt = appendix_a3(weight.detach(), threshold.detach(), dP, ESTIMATORS[estimator])
        torch.testing.assert_close(weight.grad, dW, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(threshold.grad, dt, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", LAYERS)
def test_biases_get_the_gradient_of_the_plain_layer(layer: str) -> None:
    torch.manual_seed(0)
    masked = LAYERS[layer].make().double()
    plain = copy.deepcopy(masked)
    attached = methods.attach(masked, "dst", total_steps=1, steps_per_epoch=1)
    parameters = dict(masked.named_parameters())
    with torch.no_grad():
        for name in attached.masks():
            parameters[f"{name}_threshold"].fill_(float(parameters[name].abs().median()))
            plain.get_parameter(name).mul_(attached.masks()[name])
    x = torch.randn(LAYERS[layer].input_shape, dtype=torch.float64)
    for module in (masked, plain):
        output_and_weights(module, x)[0].square().sum().backward()
    biases = [name for name in parameters if "bias" in name]
    assert biases
    for name in biases:
        torch.testing.assert_close(parameters[name].grad, plain.get_parameter(name).grad, rtol=1e-12, atol=1e-12)


def test_pruned_weights_get_the_structure_gradient_alone() -> None:
    # one output, W = (0.5, -0.2, 0.9), t = 0.4: Q = (0.1, -0.2, 0.5), M = (1, 0, 1), H(Q) = (1.6, 1.2, 0.4)
    model = nn.Linear(3, 1, bias=False).double()
    attached = methods.attach(model, "dst", total_steps=1, steps_per_epoch=1)
    with torch.no_grad():
        dict(model.named_parameters())["weight"].copy_(torch.tensor([[0.5, -0.2, 0.9]]))
        dict(model.named_parameters())["weight_threshold"].fill_(0.4)
    assert attached.masks()["weight"].tolist() == [[True, False, True]]
    model(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)).sum().backward()  # dP = (1, 2, 3)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    # dP M = (1, 0, 3); dP W H sgn(W) = (0.8, 0.48, 1.08); dt = -(0.8 - 0.48 + 1.08)
    torch.testing.assert_close(gradients["weight"], torch.tensor([[1.8, 0.48, 4.08]], dtype=torch.float64))
    torch.testing.assert_close(gradients["weight_threshold"], torch.tensor([-1.4], dtype=torch.float64))
