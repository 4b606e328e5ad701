"""Masks as packed bits, and sparse weights as CSR arrays.

A mask is uint8 [ceil(n / 8)]: bit i of byte j is weight 8 j + i of the flattened mask, and the bits
after the last weight are 0.

A weight W [c_out, ...] is a matrix of c_out rows, W.flatten(1), in compressed sparse row format:
`crow_indices` int32 [c_out + 1], `col_indices` int32 [nnz] and `values` [nnz]. Row r holds the
entries from crow_indices[r] up to crow_indices[r + 1], in increasing columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

CSR = ("crow_indices", "col_indices", "values")
MOST_INDEX = 2**31 - 1
BITS = 2 ** torch.arange(8, dtype=torch.uint8)


def packed(mask: Tensor) -> Tensor:
    """The bits of a bool mask."""
    flat = mask.flatten().cpu()
    padded = torch.cat([flat, flat.new_zeros(-len(flat) % 8)]).view(-1, 8)
    return (padded * BITS).sum(1, dtype=torch.uint8)


def packed_bytes(shape: Sequence[int]) -> int:
    """How many bytes the bits of a mask take."""
    return -(-math.prod(shape) // 8)


def unpacked(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """The bool mask of packed bits, `packed_bytes(shape)` of them.

    Raises ValueError where a bit after the last weight is set.
    """
    flags = (bits[:, None] & BITS).flatten().bool()
    count = math.prod(shape)
    if flags[count:].any():
        raise ValueError("bits are set after the last weight")
    return flags[:count].reshape(tuple(shape))


def fits_csr(weight: Tensor) -> bool:
    """Whether a weight can be a matrix with int32 indices."""
    return weight.dim() >= 2 and weight.flatten(1).shape[1] <= MOST_INDEX and weight.numel() <= MOST_INDEX


def csr(weight: Tensor) -> dict[str, Tensor]:
    """The CSR arrays of a weight [c_out, ...]."""
    matrix = weight.flatten(1)
    rows, columns = matrix.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(matrix))
    crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return {"crow_indices": crow.int(), "col_indices": columns.int(), "values": matrix[rows, columns].contiguous()}


def dense(arrays: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """The weight of CSR arrays. Raises ValueError for arrays that are no matrix of this shape."""
    crow, columns, values = (arrays[name] for name in CSR)
    if len(shape) < 2:
        raise ValueError(f"its shape is {list(shape)}")
    rows, width = shape[0], math.prod(shape[1:])
    if (crow.dtype, columns.dtype) != (torch.int32, torch.int32):
        raise ValueError("indices are not int32")
    if crow.shape != (rows + 1,) or columns.dim() != 1 or columns.shape != values.shape:
        raise ValueError(f"its arrays have {[list(a.shape) for a in (crow, columns, values)]} entries")
    counts = crow.long().diff()
    if int(crow[0]) != 0 or int(crow[-1]) != len(columns) or (counts < 0).any():
        raise ValueError(f"row offsets do not rise from 0 to {len(columns)}")
    row = torch.arange(rows).repeat_interleave(counts)
    if len(columns) and (int(columns.min()) < 0 or int(columns.max()) >= width):
        raise ValueError(f"a column is outside 0 to {width - 1}")
    place = row * width + columns
    if (place.diff() <= 0).any():
        raise ValueError("columns of a row do not increase")
    weight = values.new_zeros(rows * width)
    weight[place] = values
    return weight.reshape(tuple(shape))
