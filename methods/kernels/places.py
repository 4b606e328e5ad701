"""Where the kept weights of a matrix are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Places:
    """The places of the kept weights of a matrix [rows, columns], in the order of its rows.

    indices: five tensors, as the kernels read them. By row (CSR): row_starts [rows + 1] and column_of
    [kept]. By column (CSC): column_starts [columns + 1], row_of [kept] and order [kept], the position
    of each entry of the second list in the first. Starts are int64, the others int32, on the CPU.
    """

    shape: tuple[int, int]
    indices: tuple[Tensor, ...]

    @classmethod
    def of(cls, mask: Tensor) -> Places:
        """The places of a mask: bool [rows, columns], true where a weight is kept."""
        rows, columns = mask.nonzero(as_tuple=True)
        order = columns.argsort(stable=True)
        by_row = (_starts(mask.sum(1)), columns.int())
        by_column = (_starts(mask.sum(0)), rows[order].int(), order.int())
        return cls((mask.shape[0], mask.shape[1]), (*by_row, *by_column))

    @property
    def kept(self) -> int:
        """The number of kept weights."""
        return self.indices[1].numel()

    def positions(self) -> Tensor:
        """Where the kept weights are in the flattened matrix: int64 [kept]."""
        row_starts, column_of, *_ = self.indices
        rows = torch.arange(self.shape[0], device=row_starts.device)
        return rows.repeat_interleave(row_starts.diff(), output_size=self.kept) * self.shape[1] + column_of

    def mask(self) -> Tensor:
        """True where a weight is kept: bool [rows, columns]."""
        return self.scatter(torch.ones(self.kept, dtype=torch.bool, device=self.indices[1].device))

    def gather(self, matrix: Tensor) -> Tensor:
        """The kept entries of a matrix: [kept], a new tensor."""
        return matrix.reshape(-1)[self.positions().to(matrix.device)]

    def scatter(self, values: Tensor) -> Tensor:
        """The matrix with these values [kept] at the kept places and 0 elsewhere; differentiable."""
        flat = values.new_zeros(self.shape[0] * self.shape[1])
        return flat.index_copy(0, self.positions().to(values.device), values).view(self.shape)


def _starts(counts: Tensor) -> Tensor:
    """Where each row or column begins in a list of all entries, and the end: [counts + 1]."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
