"""Backend `cpp`: C++ operators for the CPU (masked_weight.cpp, masked_linear.cpp, kept_linear.cpp)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from methods.kernels import build
from methods.kernels.backend import Backend
from methods.kernels.places import Places
from methods.thresholds import ESTIMATORS, ResetRule

TYPES = (torch.float32, torch.float64)
NUMBERS = {name: number for number, name in enumerate(ESTIMATORS)}  # what the operators call them


@functools.cache
def _missing() -> str | None:
    """Why the operators are unavailable; None once they are loaded."""
    try:
        build.load()
    except Exception as error:  # no compiler, no headers, no room, a cache that cannot be written
        return f"the C++ operators cannot be built here ({build.first_complaint(error)})"
    return None


class Cpp(Backend):
    """One pass over a weight forward, and one backward.

    A linear layer is computed block by block where that is faster (docs/decisions/0021).
    """

    name = "cpp"

    def missing(self) -> str | None:
        return _missing()

    def supports(self, tensor: Tensor) -> bool:
        return tensor.is_cpu and tensor.dtype in TYPES

    def masked_weight(self, weight: Tensor, threshold: Tensor, estimator: str) -> Tensor:
        masked: Tensor = torch.ops.sparse_training.masked_weight.default(weight, threshold, NUMBERS[estimator])
        return masked

    def masked_linear(
        self, inputs: Tensor, weight: Tensor, threshold: Tensor, bias: Tensor | None, estimator: str
    ) -> Tensor:
        if type(inputs) is not Tensor or inputs.is_nested:
            return super().masked_linear(inputs, weight, threshold, bias, estimator)
        number = NUMBERS[estimator]
        outputs: Tensor = torch.ops.sparse_training.masked_linear.default(inputs, weight, threshold, bias, number)
        return outputs

    def kept_linear(self, inputs: Tensor, values: Tensor, places: Places, bias: Tensor | None) -> Tensor:
        if type(inputs) is not Tensor or not _fits(inputs, values, places) or torch.is_autocast_enabled("cpu"):
            return super().kept_linear(inputs, values, places, bias)
        outputs: Tensor = torch.ops.sparse_training.kept_linear.default(inputs, values, bias, places.indices)
        return outputs

    def regularization(self, thresholds: Sequence[Tensor], scale: float) -> Tensor:
        total: Tensor = torch.ops.sparse_training.regularization.default(thresholds, scale)
        return total

    def update_thresholds_(
        self, weights: Sequence[Tensor], thresholds: Sequence[Tensor], rule: ResetRule | None, resets: Tensor
    ) -> Tensor:
        limits, reset_to = (None, 0.0) if rule is None else (rule.limits, rule.reset_to)
        update = torch.ops.sparse_training.update_thresholds.default
        kept: Tensor = update(weights, thresholds, limits, reset_to, resets)
        return kept

    def zero_(self, tensors: Sequence[Tensor], where: Sequence[Tensor]) -> None:
        torch.ops.sparse_training.zero_where.default(tensors, where)


def _fits(inputs: Tensor, values: Tensor, places: Places) -> bool:
    """Whether the C++ operator takes these inputs; torch's operators compute or refuse all others."""
    if inputs.is_nested or inputs.layout != torch.strided or inputs.dtype != values.dtype:
        return False
    return inputs.is_cpu and inputs.dim() > 0 and inputs.shape[-1] == places.shape[1]
