"""torch.func's transforms, forward mode and second derivatives over masked layers, on every kernel path."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from kernel_paths import use_kernels
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import methods
from methods import thresholds
from methods.masked_layers import MaskedWeight

PATHS = ["eager", "cpp", pytest.param("inductor", marks=pytest.mark.slow)]
SHAPES = ("vector", "scalar", "matrix")
Parameters = dict[str, Tensor]


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 3, 3), nn.Linear(3 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv(x).flatten(1).tanh())


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)), (5,)),
    "conv": (Convolutional, (1, 6, 6)),
}


def attached_network(
    network: str, shape: str = "vector"
) -> tuple[nn.Module, Callable[[Parameters, Tensor, Tensor], Tensor], Parameters, Tensor, Tensor]:
    """A float64 model with thresholds around its median, its loss of one example or of a batch, and a batch."""
    torch.manual_seed(0)
    make, in_shape = NETWORKS[network]
    model = make().double()
    methods.attach(model, "dst", total_steps=1, steps_per_epoch=1, threshold=shape)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("threshold"):
                parameter.copy_(torch.rand_like(parameter) * 0.3)

    def loss(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        single = y.dim() == 0
        out = functional_call(model, parameters, (x[None] if single else x,))
        return F.cross_entropy(out, y[None] if single else y)

    parameters = {name: p.detach().clone() for name, p in model.named_parameters()}
    return model, loss, parameters, torch.randn(7, *in_shape, dtype=torch.float64), torch.randint(4, (7,))


def reverse(model: nn.Module, x: Tensor, y: Tensor) -> Parameters:
    """The gradients of an ordinary backward pass."""
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("network", NETWORKS)
def test_per_sample_gradients_average_to_the_gradient_of_the_batch(
    network: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kernels(path, monkeypatch)
    for shape in SHAPES:
        model, loss, parameters, x, y = attached_network(network, shape)
        want = reverse(model, x, y)
        found = vmap(grad(loss), (None, 0, 0))(parameters, x, y)
        torch.testing.assert_close({name: g.mean(0) for name, g in found.items()}, want)
        torch.testing.assert_close(grad(loss)(parameters, x, y), want)
        (pulled,) = vjp(lambda p, loss=loss, x=x, y=y: loss(p, x, y), parameters)[1](torch.ones((), dtype=x.dtype))
        torch.testing.assert_close(pulled, want)
        torch.testing.assert_close(jacrev(loss)(parameters, x, y), want)
        torch.testing.assert_close(jacfwd(loss)(parameters, x, y), want)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_tangent_is_the_gradient_in_its_direction(network: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels(path, monkeypatch)
    model, loss, parameters, x, y = attached_network(network)
    tangents = {name: torch.randn_like(p) for name, p in parameters.items()}
    want = sum(((g * tangents[name]).sum() for name, g in reverse(model, x, y).items()), torch.zeros(()))
    value, slope = jvp(lambda p: loss(p, x, y), (parameters,), (tangents,))
    torch.testing.assert_close(slope, want)
    torch.testing.assert_close(value, F.cross_entropy(model(x), y))
    with forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(p, tangents[name]) for name, p in parameters.items()}
        torch.testing.assert_close(forward_ad.unpack_dual(loss(duals, x, y)).tangent, want)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("estimator", thresholds.ESTIMATORS)
def test_a_transformed_product_has_the_bits_and_the_gradients_of_the_ordinary_one(
    estimator: str, shape: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of weights of 0, NaN and infinity, and of distances where the estimator has a corner."""
    use_kernels(path, monkeypatch)
    torch.manual_seed(0)
    w = torch.randn(6, 9)
    w[0, :6] = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 0.5])
    t = torch.rand(thresholds.threshold_shape(shape, w))
    masked = MaskedWeight(estimator)
    product, pull = vjp(masked, w, t)
    assert torch.equal(product.view(torch.int32), masked(w, t).view(torch.int32))
    w, d_product = torch.randn(6, 9, dtype=torch.float64), torch.randn(6, 9, dtype=torch.float64)
    t = t.double()
    if shape != "scalar":
        t[..., :2] = 0.5
        w[:2, 0] = w[0, :2] = torch.tensor([0.5, 1.5], dtype=torch.float64)
    _, pull = vjp(masked, w, t)
    want = thresholds.gradients(d_product, w, t, thresholds.ESTIMATORS[estimator])
    for found, expected in zip(pull(d_product), want, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_second_derivatives_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """P = W S(|W| - t) at W = -0.5, t = 0.4: Q = 0.1, S = 1, H(Q) = 2 - 4 Q = 1.6, H'(Q) = -4.

    With dS = H dQ: P_WW = sgn(W) (2 H + |W| H') = -1.2, P_Wt = -H - |W| H' = 0.4, P_tt = W H' = 2.
    """
    want = torch.tensor([[-1.2, 0.4], [0.4, 2.0]], dtype=torch.float64)
    for path in ("eager", "cpp"):
        use_kernels(path, monkeypatch)

        def product(both: Tensor) -> Tensor:
            return MaskedWeight("long_tailed")(both[0].view(1, 1), both[1].view(1)).sum()

        given = torch.tensor([-0.5, 0.4], dtype=torch.float64)
        torch.testing.assert_close(hessian(product)(given), want)
        torch.testing.assert_close(torch.autograd.functional.hessian(product, given), want)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_gradient_penalty_has_the_gradient_that_transforms_give(
    network: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `create_graph=True`, by nested transforms, and the product of the Hessian and a vector."""
    use_kernels(path, monkeypatch)
    for shape in SHAPES:
        model, loss, parameters, x, y = attached_network(network, shape)

        def penalty(parameters: Parameters, loss=loss, x=x, y=y) -> Tensor:  # type: ignore[no-untyped-def]
            return sum((g.square().sum() for g in grad(loss)(parameters, x, y).values()), torch.zeros(()))

        own = dict(model.named_parameters())
        first = torch.autograd.grad(F.cross_entropy(model(x), y), list(own.values()), create_graph=True)
        total = sum((g.square().sum() for g in first), torch.zeros(()))
        second = dict(zip(own, torch.autograd.grad(total, list(own.values())), strict=True))
        torch.testing.assert_close(second, grad(penalty)(parameters))
        slopes = dict(zip(own, (g.detach() for g in first), strict=True))
        _, along_slopes = jvp(lambda p, loss=loss, x=x, y=y: grad(loss)(p, x, y), (parameters,), (slopes,))
        torch.testing.assert_close({name: 2 * g for name, g in along_slopes.items()}, second)


@pytest.mark.parametrize("method", ["static", "set"])
def test_masks_in_place_take_transforms(method: str) -> None:
    """Per-sample gradients average to that of the batch, wherever weights are kept."""
    torch.manual_seed(0)
    model = NETWORKS["linear"][0]().double()
    attached = methods.attach(model, method, total_steps=1, steps_per_epoch=1, density=0.5)
    x, y = torch.randn(7, 5, dtype=torch.float64), torch.randint(4, (7,))
    parameters = {name: p.detach().clone() for name, p in model.named_parameters()}

    def loss(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    want, masks = reverse(model, x, y), attached.masks()
    for name, found in vmap(grad(loss), (None, 0, 0))(parameters, x, y).items():
        kept = masks.get(name, torch.ones_like(found[0], dtype=torch.bool))
        torch.testing.assert_close(found.mean(0)[kept], want[name][kept])
