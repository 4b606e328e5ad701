"""A linear layer computed block by block is the layer that computes with the whole masked weight."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from kernel_paths import use_kernels
from torch import Tensor, nn
from torch.nn.utils import parametrize

import methods
from methods import thresholds
from methods.thresholds import Effective

SHAPES = ("vector", "scalar", "matrix")
# one block, two of unequal size (512 KiB each at most), three whose rows are as few as they may be
SIZES = {"small": (7, 11), "two blocks": (301, 784), "long rows": (130, 2500), "one output": (1, 5)}


def example(size: str, shape: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, thresholds around its median and bias, all with a gradient."""
    torch.manual_seed(0)
    w = torch.randn(SIZES[size], dtype=dtype)
    t = torch.rand(thresholds.threshold_shape(shape, w), dtype=dtype) + 0.2
    return w.requires_grad_(), t.requires_grad_(), torch.randn(len(w), dtype=dtype).requires_grad_()


def is_in_blocks(y: Tensor) -> bool:
    """Whether a layer's outputs were computed block by block."""
    return "MaskedLinear" in y.grad_fn.name() or any(
        "MaskedLinear" in f.name() for f, _ in y.grad_fn.next_functions if f
    )


def in_float64(x: Tensor, w: Tensor, t: Tensor, b: Tensor | None, d_y: Tensor, estimator: str) -> list[Tensor]:
    """Outputs, and the gradients of inputs, weight and thresholds, by the equations of the paper."""
    x, w, t, d_y = (tensor.detach().double() for tensor in (x, w, t, d_y))
    product = thresholds.product(w, t)
    d_product = d_y.flatten(0, -2).t() @ x.flatten(0, -2)
    bias = None if b is None else b.detach().double()
    return [
        F.linear(x, product, bias),
        d_y @ product,
        *thresholds.gradients(d_product, w, t, thresholds.ESTIMATORS[estimator]),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("estimator", thresholds.ESTIMATORS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_it_agrees_with_float64(
    size: str, shape: str, estimator: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kernels("cpp", monkeypatch)
    w, t, b = example(size, shape, dtype)
    x = (torch.randn(6, w.shape[1], dtype=dtype) / w.shape[1] ** 0.5).requires_grad_()
    d_y = torch.randn(6, len(w), dtype=dtype)
    for bias in (b, None):
        y = Effective(estimator).linear(x, w, t, bias)
        assert is_in_blocks(y)
        found = [y, *torch.autograd.grad(y, [x, w, t], d_y, retain_graph=True)]
        for ours, want in zip(found, in_float64(x, w, t, bias, d_y, estimator), strict=True):
            close = {"rtol": 2e-5, "atol": 2e-5 * float(want.abs().max())}
            torch.testing.assert_close(ours.double(), want, **close)
        if bias is not None:
            torch.testing.assert_close(torch.autograd.grad(y, b, d_y)[0], d_y.sum(0))


@pytest.mark.parametrize("size", ["small", "two blocks"])
def test_inputs_of_any_shape_and_layout_are_taken(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    w, t, b = example(size, "vector")
    rows, columns = w.shape
    inputs = {
        "one example": torch.randn(columns),
        "a sequence": torch.randn(4, 3, columns),
        "turned": torch.randn(columns, 5).t(),
        "with gaps": torch.randn(5, columns, 2)[..., 1],
        "one for all": torch.randn(1, columns).expand(5, columns),
        "no example": torch.randn(0, columns),
    }
    for name, given in inputs.items():
        x = given.detach().requires_grad_()
        y, want = Effective("long_tailed").linear(x, w, t, b), F.linear(x, thresholds.product(w, t), b)
        for d_y in (torch.randn(*y.shape[:-1], rows), torch.ones(1).expand(y.shape)):
            found = torch.autograd.grad(y, [x, w, t, b], d_y, retain_graph=True)
            plain = plain_gradients(given, w, t, b, d_y)
            assert y.shape == want.shape, name
            assert is_in_blocks(y), name
            for ours, theirs in zip([y, *found], [want, *plain], strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: name + text)


def plain_gradients(given: Tensor, w: Tensor, t: Tensor, b: Tensor, d_y: Tensor) -> tuple[Tensor, ...]:
    x = given.detach().requires_grad_()
    product = thresholds.MaskedWeight.apply(w, t, thresholds.long_tailed)
    return torch.autograd.grad(F.linear(x, product, b), [x, w, t, b], d_y)


def test_only_the_gradients_that_are_asked_for_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)

    def layer(asked: tuple[bool, ...]) -> tuple[Tensor, list[Tensor]]:
        x = torch.linspace(-1, 1, 5 * 784).view(5, 784)
        tensors = [tensor.detach() for tensor in (x, *example("two blocks", "vector"))]
        given = [tensor.requires_grad_(wanted) for tensor, wanted in zip(tensors, asked, strict=True)]
        return Effective("long_tailed").linear(*given), given

    y, given = layer((True,) * 4)
    want = torch.autograd.grad(y.square().sum(), given, retain_graph=True)
    again = torch.autograd.grad(y.square().sum(), given, retain_graph=True)
    assert all(torch.equal(one, other) for one, other in zip(want, again, strict=True))
    for asked in itertools.product([False, True], repeat=4):
        if not any(asked):
            continue
        chosen = [index for index, wanted in enumerate(asked) if wanted]
        for of, tensors in (layer(asked), (y, given)):  # of tensors that have no other gradient, and that have
            assert torch.equal(of, y)
            parts = torch.autograd.grad(of.square().sum(), [tensors[i] for i in chosen], retain_graph=True)
            assert all(torch.equal(part, want[i]) for part, i in zip(parts, chosen, strict=True))


def test_no_gradient_is_kept_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    w, t, b = example("small", "vector")
    x = torch.randn(2, 11)
    want = Effective("long_tailed").linear(x, w, t, b)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            y = Effective("long_tailed").linear(x, w, t, b)
        assert not y.requires_grad
        assert torch.equal(y, want)


def test_what_does_not_fit_is_refused_as_torch_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("eager", "cpp"):
        use_kernels(path, monkeypatch)
        w, t, b = example("small", "vector")
        layer = Effective("long_tailed").linear
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            layer(torch.randn(11, 7), w, t, b)  # as many numbers as fit
        with pytest.raises(RuntimeError, match="same dtype"):
            layer(torch.randn(2, 11).double(), w, t, b)
        with pytest.raises(RuntimeError, match=r"must match the (existing )?size"):
            layer(torch.randn(2, 11), w, t, torch.randn(3))
        with pytest.raises(AttributeError, match="no attribute"):
            layer([1.0], w, t, b)


@pytest.mark.parametrize("path", ["eager", "cpp"])
def test_under_autocast_it_is_computed_in_bfloat16(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels(path, monkeypatch)
    w, t, b = example("small", "vector")
    x = torch.randn(2, 11)
    with torch.autocast("cpu", torch.bfloat16):
        y = Effective("long_tailed").linear(x, w, t, b)
        want = F.linear(x, thresholds.product(w, t), b)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, want)
    assert not is_in_blocks(y)


class Twice(Tensor):
    """A tensor that computes in its own way: the inputs of a product count twice."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Twice:
        return Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        factor = 2 if func is torch.ops.aten.addmm.default else 1
        return func(*(factor * arg.inner if isinstance(arg, Twice) else arg for arg in args), **(kwargs or {}))


@pytest.mark.parametrize("path", ["eager", "cpp"])
def test_a_tensor_of_another_class_is_left_to_torch(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels(path, monkeypatch)
    w, t, b = example("small", "vector")
    x = torch.randn(2, 11)
    y = Effective("long_tailed").linear(Twice(x), w, t, b)
    torch.testing.assert_close(y, F.linear(2 * x, thresholds.product(w, t), b))
    sequences = torch.nested.nested_tensor([torch.randn(n, 11) for n in (2, 5)])
    for part, whole in zip(
        Effective("long_tailed").linear(sequences, w, t, b).unbind(), sequences.unbind(), strict=True
    ):
        torch.testing.assert_close(part, F.linear(whole, thresholds.product(w, t), b))


def test_a_second_derivative_is_refused_but_of_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for path in ("eager", "cpp"):
        use_kernels(path, monkeypatch)
        w, t, b = example("small", "vector")
        x = torch.ones(2, 11, requires_grad=True)
        y = Effective("long_tailed").linear(x, w, t, b)
        if path == "cpp":
            with pytest.raises(RuntimeError, match="no second derivative: set SPARSE_TRAINING_KERNELS=eager"):
                torch.autograd.grad(y.square().sum(), [w], create_graph=True)
        slope, of_bias = torch.autograd.grad(y.square().sum(), [x, b], create_graph=True)
        found[path] = [slope, of_bias, *torch.autograd.grad(slope.square().sum() + of_bias.sum(), [x, w, t, b])]
    for ours, plain in zip(found["cpp"], found["eager"], strict=True):
        torch.testing.assert_close(ours, plain)


class Doubled(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, 2 * self.weight, self.bias)


class Named(nn.Linear):
    """A layer of another class, which computes as its base does."""


@pytest.mark.parametrize("changed", ["weight", "threshold", "inputs", "inputs of a frozen layer"])
def test_what_a_gradient_needs_may_not_change_before_it(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    w, t, b = example("small", "vector")
    if changed == "inputs of a frozen layer":
        w, t = w.detach(), t.detach()
    x = torch.randn(2, 11)
    y = Effective("long_tailed").linear(x, w, t, b)
    with torch.no_grad():
        {"weight": w, "threshold": t}.get(changed, x).add_(1)
    if changed == "inputs of a frozen layer":
        y.sum().backward()
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


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
        own = list(attached._context.thresholds.parameters().values())
        with torch.no_grad():
            for threshold in own:
                threshold.uniform_()
        value = attached._context.thresholds.regularization(scale)
        found[path] = [value, *torch.autograd.grad(3 * value, own)]
    by_hand = scale * sum(float(torch.exp(-threshold.detach().double()).sum()) for threshold in own)
    assert found["cpp"][0].item() == pytest.approx(by_hand, rel=1e-6)
    for ours, plain in zip(found["cpp"], found["eager"], strict=True):
        torch.testing.assert_close(ours, plain)


def test_a_linear_layer_on_cpp_never_asks_for_the_whole_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    model = nn.Linear(5, 4)
    methods.attach(model, "dst", total_steps=1, steps_per_epoch=1)
    monkeypatch.setattr(Effective, "__call__", lambda *given: pytest.fail("the masked weight was written out"))
    model(torch.randn(2, 5)).sum().backward()
    assert model.weight_threshold.grad is not None
