"""The operator that computes a linear layer block by block computes what one with the whole masked weight does."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from kernel_paths import is_in_blocks, use_kernels
from torch import Tensor

from methods import thresholds
from methods.kernels.eager import Eager
from methods.masked_layers import MaskedWeight

SHAPES = ("vector", "scalar", "matrix")
# of blocks of at most 512 KiB (float32: 1, 2, 3, 1) or, where that is fewer, of 64 rows
SIZES = {"small": (7, 11), "two blocks": (301, 784), "long rows": (130, 2500), "one output": (1, 5)}


def example(size: str, shape: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, thresholds around its median and bias, all with a gradient."""
    torch.manual_seed(0)
    w = torch.randn(SIZES[size], dtype=dtype)
    t = torch.rand(thresholds.threshold_shape(shape, w), dtype=dtype) + 0.2
    return w.requires_grad_(), t.requires_grad_(), torch.randn(len(w), dtype=dtype).requires_grad_()


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
        y = MaskedWeight(estimator).linear(x, w, t, bias)
        assert is_in_blocks(y)
        found = [y, *torch.autograd.grad(y, [x, w, t], d_y, retain_graph=True)]
        for ours, want in zip(found, in_float64(x, w, t, bias, d_y, estimator), strict=True):
            eps = 2e-5 if dtype == torch.float32 else 1e-13
            torch.testing.assert_close(ours.double(), want, rtol=eps, atol=eps * float(want.abs().max()))
        if bias is not None:
            torch.testing.assert_close(torch.autograd.grad(y, b, d_y)[0], d_y.sum(0))


def test_a_weight_with_gaps_and_thresholds_in_another_order_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    for shape in SHAPES:
        w, t, b = (tensor.detach() for tensor in example("two blocks", shape))
        x, d_y = torch.randn(5, 784), torch.randn(5, 301)
        want = plain_gradients(x, *(tensor.clone().requires_grad_() for tensor in (w, t, b)), d_y)
        turned = [w.t().contiguous().t(), torch.stack([w, w], dim=2)[..., 0]]
        for weight in turned:
            threshold = t.t().contiguous().t() if shape == "matrix" else t.clone()
            given = [weight.requires_grad_(), threshold.requires_grad_(), b.clone().requires_grad_()]
            y = MaskedWeight("long_tailed").linear(x, *given)
            assert is_in_blocks(y)
            for ours, plain in zip(torch.autograd.grad(y, given, d_y), want[1:], strict=True):
                torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_many_examples_are_left_to_torch_where_blocks_have_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    rows = {"small": None, "two blocks": 2**19 // (4 * 784), "long rows": 64}
    for size, most in rows.items():
        w, t, b = example(size, "vector")
        for examples, blocks in ((most or 1000, True), ((most or 1000) + 1, most is None)):
            x = torch.randn(examples, w.shape[1])
            y = MaskedWeight("long_tailed").linear(x, w, t, b)
            assert is_in_blocks(y) == blocks
            torch.testing.assert_close(y, F.linear(x, thresholds.product(w, t), b), rtol=1e-4, atol=1e-4)


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
        y, want = MaskedWeight("long_tailed").linear(x, w, t, b), F.linear(x, thresholds.product(w, t), b)
        for d_y in (torch.randn(*y.shape[:-1], rows), torch.ones(1).expand(y.shape)):
            found = torch.autograd.grad(y, [x, w, t, b], d_y, retain_graph=True)
            plain = plain_gradients(given, w, t, b, d_y)
            assert y.shape == want.shape, name
            assert is_in_blocks(y), name
            for ours, theirs in zip([y, *found], [want, *plain], strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: name + text)


def plain_gradients(given: Tensor, w: Tensor, t: Tensor, b: Tensor, d_y: Tensor) -> tuple[Tensor, ...]:
    x = given.detach().requires_grad_()
    product = Eager().masked_weight(w, t, "long_tailed")
    return torch.autograd.grad(F.linear(x, product, b), [x, w, t, b], d_y)


def products(computed: Callable[[], Any]) -> int:
    """How many matrix products are computed."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        computed()
    return sum(event.count for event in profile.key_averages() if event.key in ("aten::mm", "aten::addmm"))


def test_only_the_gradients_that_are_asked_for_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)

    def layer(asked: tuple[bool, ...]) -> tuple[Tensor, list[Tensor]]:
        x = torch.linspace(-1, 1, 5 * 784).view(5, 784)
        tensors = [tensor.detach() for tensor in (x, *example("two blocks", "vector"))]
        given = [tensor.requires_grad_(wanted) for tensor, wanted in zip(tensors, asked, strict=True)]
        return MaskedWeight("long_tailed").linear(*given), given

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
            found: list[Tensor] = []
            loss, wanted = of.square().sum(), [tensors[i] for i in chosen]
            count = products(lambda: found.extend(torch.autograd.grad(loss, wanted, retain_graph=True)))  # noqa: B023
            assert all(torch.equal(part, want[i]) for part, i in zip(found, chosen, strict=True))
            of_inputs, of_layer = asked[0], asked[1] or asked[2]
            assert count == 2 * of_inputs + 2 * of_layer


def test_no_gradient_is_kept_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    w, t, b = example("small", "vector")
    x = torch.randn(2, 11)
    want = MaskedWeight("long_tailed").linear(x, w, t, b)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            y = MaskedWeight("long_tailed").linear(x, w, t, b)
            inference = w.detach().clone(), t.detach().clone()
        assert not y.requires_grad
        assert torch.equal(y, want)
        MaskedWeight("long_tailed").linear(x, *inference, b).sum().backward()  # keeps none of them


def test_what_does_not_fit_is_refused_as_torch_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("eager", "cpp"):
        use_kernels(path, monkeypatch)
        w, t, b = example("small", "vector")
        layer = MaskedWeight("long_tailed").linear
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            layer(torch.randn(11, 7), w, t, b)  # as many numbers as fit
        with pytest.raises(RuntimeError, match="same dtype"):
            layer(torch.randn(2, 11).double(), w, t, b)
        with pytest.raises(RuntimeError, match=r"must match the (existing )?size"):
            layer(torch.randn(2, 11), w, t, torch.randn(3))
        with pytest.raises(TypeError, match="must be Tensor, not list"):
            layer([1.0], w, t, b)
        with pytest.raises(RuntimeError, match="at least 1D"):
            layer(torch.tensor(1.0), w, t, b)


@pytest.mark.parametrize("path", ["eager", "cpp"])
@pytest.mark.parametrize("shape", [(3, 0), (0, 5)], ids=str)
def test_a_layer_without_weights_is_left_to_torch(
    shape: tuple[int, int], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kernels(path, monkeypatch)
    w, t, b = torch.zeros(shape), torch.zeros(shape[0]), torch.ones(shape[0])
    assert torch.equal(MaskedWeight("long_tailed").linear(torch.ones(2, shape[1]), w, t, b), torch.ones(2, shape[0]))


@pytest.mark.parametrize("path", ["eager", "cpp"])
def test_under_autocast_it_is_computed_in_bfloat16(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels(path, monkeypatch)
    w, t, b = example("small", "vector")
    x = torch.randn(2, 11)
    with torch.autocast("cpu", torch.bfloat16):
        y = MaskedWeight("long_tailed").linear(x, w, t, b)
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


class Watched(Tensor):
    """A tensor that is told of torch's functions, and not of ours."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            return "watched"
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("path", ["eager", "cpp"])
def test_a_tensor_of_another_class_is_left_to_torch(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels(path, monkeypatch)
    w, t, b = example("small", "vector")
    x = torch.randn(2, 11)
    y = MaskedWeight("long_tailed").linear(Twice(x), w, t, b)
    torch.testing.assert_close(y, F.linear(2 * x, thresholds.product(w, t), b))
    assert MaskedWeight("long_tailed").linear(x.as_subclass(Watched), w, t, b) == "watched"
    sequences = torch.nested.nested_tensor([torch.randn(n, 11) for n in (2, 5)])
    for part, whole in zip(
        MaskedWeight("long_tailed").linear(sequences, w, t, b).unbind(), sequences.unbind(), strict=True
    ):
        torch.testing.assert_close(part, F.linear(whole, thresholds.product(w, t), b))


@pytest.mark.parametrize("shape", [(11,), (2, 11), (3, 2, 11)], ids=str)
def test_second_derivatives_are_those_of_plain_operations(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for path in ("eager", "cpp"):
        use_kernels(path, monkeypatch)
        w, t, b = example("small", "vector", torch.float64)
        x = torch.ones(shape, dtype=torch.float64, requires_grad=True)
        y = MaskedWeight("long_tailed").linear(x, w, t, b)
        assert is_in_blocks(y) == (path == "cpp")
        slopes = torch.autograd.grad(y.square().sum(), [x, w, t, b], create_graph=True)
        of_inputs = torch.autograd.grad(slopes[0].square().sum() + slopes[3].sum(), [x, w, t, b], retain_graph=True)
        found[path] = [*slopes, *of_inputs, *torch.autograd.grad(sum(d.square().sum() for d in slopes), [x, w, t, b])]
    for ours, plain in zip(found["cpp"], found["eager"], strict=True):
        torch.testing.assert_close(ours, plain)


def test_tensors_whose_memory_is_not_their_numbers_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negated views, forward-mode tangents and the batches of vmap."""
    use_kernels("cpp", monkeypatch)
    for size in ("small", "one output"):
        w, t, b = example(size, "vector")
        x, d_y = torch.randn(3, w.shape[1]).requires_grad_(), torch.randn(3, len(w))
        negated = torch._neg_view(b.detach())
        torch.testing.assert_close(
            MaskedWeight("long_tailed").linear(x, w, t, negated), MaskedWeight("long_tailed").linear(x, w, t, -b)
        )
        y = MaskedWeight("long_tailed").linear(x, w, t, b)
        of = functools.partial(torch.autograd.grad, y, [x, w, t, b], retain_graph=True)
        for ours, want in zip(of(torch._neg_view(d_y)), of(-d_y), strict=True):
            assert torch.equal(ours, want)
        for out, given in ((y, [x, w, t, b]), (MaskedWeight("long_tailed")(w, t), [w, t])):
            one = torch.randn_like(out)
            batched = torch.autograd.grad(
                out, given, torch.stack([one, 2 * one]), is_grads_batched=True, retain_graph=True
            )
            single = torch.autograd.grad(out, given, one, retain_graph=True)
            for ours, want in zip(batched, single, strict=True):
                torch.testing.assert_close(ours, torch.stack([want, 2 * want]), rtol=1e-5, atol=1e-5)
        frozen = w.detach(), t.detach(), b.detach()
        with forward_ad.dual_level():
            dual = MaskedWeight("long_tailed").linear(forward_ad.make_dual(x.detach(), torch.ones_like(x)), *frozen)
            tangent = forward_ad.unpack_dual(dual).tangent
        torch.testing.assert_close(tangent, F.linear(torch.ones_like(x), thresholds.product(*frozen[:2])))


@pytest.mark.parametrize("changed", ["weight", "threshold", "inputs", "inputs of a frozen layer", "frozen weight"])
def test_what_a_gradient_needs_may_not_change_before_it(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)
    w, t, b = example("small", "vector")
    if "frozen" in changed:
        w, t = w.detach(), t.detach()
    x = torch.randn(2, 11)
    y = MaskedWeight("long_tailed").linear(x, w, t, b)
    with torch.no_grad():
        {"weight": w, "frozen weight": w, "threshold": t}.get(changed, x).add_(1)
    if "frozen" in changed:
        y.sum().backward()
        assert torch.equal(b.grad, torch.full_like(b, 2))
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
