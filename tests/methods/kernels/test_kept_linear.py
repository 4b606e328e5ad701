"""A linear layer of kept weights only computes what a dense one with zeros computes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods import kernels
from methods.kernels.places import Places

EXAMPLES = (0, 1, 7, 8, 9, 16, 33, 64, 65, 100, 200)
ROWS, COLUMNS = 13, 21
CPP = kernels.BACKENDS["cpp"]


@pytest.fixture(autouse=True)
def _needs_the_operators() -> None:
    if reason := kernels.missing("cpp"):
        pytest.skip(reason)


def mask(density: float = 0.3) -> Tensor:
    """Row 2 and column 3 keep nothing, row 4 everything else."""
    kept = torch.rand(ROWS, COLUMNS, generator=torch.Generator().manual_seed(1)) < density
    kept[4] = True
    kept[2] = False
    kept[:, 3] = False
    return kept


def layer(dtype: torch.dtype, *, density: float = 0.3) -> tuple[Places, Tensor, Tensor]:
    """Places, kept weights and bias."""
    generator = torch.Generator().manual_seed(2)
    places = Places.of(mask(density))
    values = torch.randn(places.kept, generator=generator, dtype=torch.float64)
    return places, values.to(dtype), torch.randn(ROWS, generator=generator, dtype=torch.float64).to(dtype)


def inputs_of(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)


def outcomes(x: Tensor, values: Tensor, bias: Tensor | None, places: Places, *, dense: bool) -> list[Tensor]:
    """Outputs, and the gradients of inputs, kept weights and bias."""
    wanted = [t.detach().clone().requires_grad_() for t in (x, values)]
    b = None if bias is None else bias.clone().requires_grad_()
    y = F.linear(wanted[0], places.scatter(wanted[1]), b) if dense else CPP.kept_linear(*wanted, places, b)
    d_y = torch.randn(y.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(y.dtype)
    of = wanted if b is None else [*wanted, b]
    return [y.detach(), *torch.autograd.grad(y, of, d_y)]


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("examples", EXAMPLES)
def test_outputs_and_gradients_are_those_of_a_dense_layer(
    examples: int, dtype: torch.dtype, tolerance: float, with_bias: bool
) -> None:
    places, values, bias = layer(dtype)
    x = inputs_of(examples, COLUMNS, dtype=dtype)
    pair = [outcomes(x, values, bias if with_bias else None, places, dense=dense) for dense in (False, True)]
    for ours, expected in zip(*pair, strict=True):
        torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)


def _shapes() -> Iterator[Tensor]:
    yield inputs_of(COLUMNS)
    yield inputs_of(2, 9, COLUMNS)
    yield inputs_of(2, 0, COLUMNS)
    yield inputs_of(COLUMNS, 12).T
    yield inputs_of(20, COLUMNS)[::2]
    yield inputs_of(10, 2 * COLUMNS)[:, ::2]
    yield inputs_of(1, COLUMNS).expand(9, COLUMNS)
    yield torch._neg_view(inputs_of(9, COLUMNS))


@pytest.mark.parametrize("x", list(_shapes()), ids=lambda x: f"{tuple(x.shape)}-{tuple(x.stride())}-{x.is_neg()}")
def test_inputs_of_any_shape_and_stride(x: Tensor) -> None:
    places, values, bias = layer(torch.float64)
    y = CPP.kept_linear(x, values, places, bias)
    torch.testing.assert_close(y, F.linear(x, places.scatter(values), bias), rtol=0, atol=1e-12)
    assert y.is_contiguous()


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_hardly_any_and_nearly_all_weights(density: float) -> None:
    places, values, bias = layer(torch.float64, density=density)
    x = inputs_of(17, COLUMNS)
    for ours, expected in zip(*(outcomes(x, values, bias, places, dense=d) for d in (False, True)), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("wanted", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1)])
def test_gradients_are_computed_of_what_is_trained_only(wanted: tuple[int, int, int]) -> None:
    places, values, bias = layer(torch.float64)
    tensors = [
        t.clone().requires_grad_(bool(w)) for t, w in zip((inputs_of(9, COLUMNS), values, bias), wanted, strict=True)
    ]
    trained = [t for t in tensors if t.requires_grad]
    ours = torch.autograd.grad(CPP.kept_linear(tensors[0], tensors[1], places, tensors[2]).sin().sum(), trained)
    dense = F.linear(tensors[0], places.scatter(tensors[1]), tensors[2])
    for one, expected in zip(ours, torch.autograd.grad(dense.sin().sum(), trained), strict=True):
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, COLUMNS), (COLUMNS,), (2, 2, COLUMNS)])
def test_first_and_second_derivatives(shape: tuple[int, ...]) -> None:
    places, values, bias = layer(torch.float64, density=0.05)
    tensors = [t.requires_grad_() for t in (inputs_of(*shape), values, bias)]

    def linear(x: Tensor, kept: Tensor, b: Tensor) -> Tensor:
        return CPP.kept_linear(x, kept, places, b)

    assert torch.autograd.gradcheck(linear, tensors)
    assert torch.autograd.gradgradcheck(linear, tensors)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    kept = torch.rand(300, 400, generator=torch.Generator().manual_seed(1)) < 0.2
    places, x = Places.of(kept), inputs_of(150, 400, dtype=torch.float32)
    values, bias = inputs_of(places.kept, dtype=torch.float32), inputs_of(300, dtype=torch.float32)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(outcomes(x, values, bias, places, dense=False))
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, *found))


def test_a_batch_gives_the_bits_of_the_same_batch_again() -> None:
    places, values, bias = layer(torch.float32)
    x = inputs_of(100, COLUMNS, dtype=torch.float32)
    assert torch.equal(CPP.kept_linear(x, values, places, bias), CPP.kept_linear(x.clone(), values, places, bias))


@pytest.mark.parametrize("x", [inputs_of(4, COLUMNS - 1), inputs_of(4, COLUMNS, dtype=torch.bfloat16)])
def test_inputs_that_a_dense_layer_refuses_get_its_error(x: Tensor) -> None:
    places, values, bias = layer(torch.float64)
    with pytest.raises(RuntimeError) as dense:
        F.linear(x, places.scatter(values), bias)
    with pytest.raises(RuntimeError) as ours:
        CPP.kept_linear(x, values, places, bias)
    assert str(ours.value) == str(dense.value)


def test_a_change_between_the_passes_is_refused_by_name() -> None:
    places, values, bias = layer(torch.float64)
    values.requires_grad_()
    loss = CPP.kept_linear(inputs_of(4, COLUMNS), values, places, bias).sum()
    with torch.no_grad():
        values.mul_(2)
    with pytest.raises(RuntimeError, match=r"between its forward and backward pass.*execution='dense'"):
        loss.backward()


def test_places_give_back_what_they_were_made_of() -> None:
    kept = mask()
    places, matrix = Places.of(kept), inputs_of(ROWS, COLUMNS)
    assert torch.equal(places.mask(), kept)
    assert torch.equal(places.gather(matrix), matrix[kept])
    assert torch.equal(places.scatter(places.gather(matrix)), matrix * kept)
    assert torch.equal(places.gather(matrix.T.contiguous().T), matrix[kept])
