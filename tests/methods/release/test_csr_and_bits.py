"""Masks as packed bits and weights as CSR arrays: worked examples, and what is refused."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from methods.release import csr_and_bits

# [2, 2, 2] as the matrix   0 5 0 7
#                           0 0 0 -1
WEIGHT = torch.tensor([[[0.0, 5.0], [0.0, 7.0]], [[0.0, 0.0], [0.0, -1.0]]])
GOOD = {
    "crow_indices": torch.tensor([0, 2, 3], dtype=torch.int32),
    "col_indices": torch.tensor([1, 3, 3], dtype=torch.int32),
    "values": torch.tensor([5.0, 7.0, -1.0]),
}


def test_a_mask_is_packed_from_the_lowest_bit_on() -> None:
    mask = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 1]], dtype=torch.bool)  # bits 0, 2 and 7; then bit 0
    assert csr_and_bits.packed(mask).tolist() == [1 + 4 + 128, 1]
    assert torch.equal(csr_and_bits.unpacked(csr_and_bits.packed(mask), mask.shape), mask)


@pytest.mark.parametrize("shape", [(), (1,), (8,), (3, 5), (4, 3, 2, 2), (0, 3)])
def test_every_mask_comes_back(shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    bits = csr_and_bits.packed(mask)
    assert bits.shape == (csr_and_bits.packed_bytes(shape),)
    assert torch.equal(csr_and_bits.unpacked(bits, shape), mask)


def test_a_bit_after_the_last_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="bits are set after the last weight"):
        csr_and_bits.unpacked(torch.tensor([0b1000], dtype=torch.uint8), (3,))


def test_a_weight_becomes_the_rows_of_its_matrix() -> None:
    made = csr_and_bits.csr(WEIGHT)
    assert all(
        torch.equal(made[name], GOOD[name]) and made[name].dtype == GOOD[name].dtype for name in csr_and_bits.CSR
    )
    assert torch.equal(csr_and_bits.dense(made, WEIGHT.shape), WEIGHT)
    assert torch.equal(
        torch.sparse_csr_tensor(*made.values(), size=(2, 4), check_invariants=True).to_dense(), WEIGHT.flatten(1)
    )


def test_an_empty_weight_comes_back() -> None:
    assert torch.equal(csr_and_bits.dense(csr_and_bits.csr(torch.zeros(3, 4)), (3, 4)), torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("crow_indices", torch.tensor([0, 2, 3]), "indices are not int32"),
        ("crow_indices", torch.tensor([0, 3], dtype=torch.int32), r"arrays have \[\[2\], \[3\], \[3\]\] entries"),
        ("crow_indices", torch.tensor([0, 4, 3], dtype=torch.int32), "row offsets do not rise from 0 to 3"),
        ("crow_indices", torch.tensor([-1, 2, 3], dtype=torch.int32), "row offsets do not rise from 0 to 3"),
        ("crow_indices", torch.tensor([0, 2, 2**30], dtype=torch.int32), "row offsets do not rise from 0 to 3"),
        ("col_indices", torch.tensor([1, 4, 3], dtype=torch.int32), "a column is outside 0 to 3"),
        ("col_indices", torch.tensor([1, -1, 3], dtype=torch.int32), "a column is outside 0 to 3"),
        ("col_indices", torch.tensor([3, 3, 3], dtype=torch.int32), "columns of a row do not increase"),
        ("col_indices", torch.tensor([3, 1, 3], dtype=torch.int32), "columns of a row do not increase"),
        ("values", torch.tensor([5.0, 7.0]), "entries"),
        ("values", torch.ones(3, 1), "entries"),
    ],
)
def test_arrays_that_are_no_matrix_are_refused(name: str, value: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        csr_and_bits.dense(GOOD | {name: value}, WEIGHT.shape)


def test_a_matrix_needs_rows_and_columns() -> None:
    with pytest.raises(ValueError, match=re.escape("its shape is [4]")):
        csr_and_bits.dense(GOOD, (4,))
