"""The interface of a backend: what it computes with masked weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from methods.kernels.places import Places
from methods.thresholds import ResetRule


class Backend(ABC):
    """One way to compute with masked weights; `methods.thresholds` has the equations.

    A weight is [c_out, ...]; its thresholds are [c_out], [] or of its shape; estimators have the
    names of `thresholds.ESTIMATORS`.
    """

    name: ClassVar[str]

    def missing(self) -> str | None:
        """Why this backend is unavailable on this machine; None where it is available.

        Builds or loads it where that is needed.
        """
        return None

    def supports(self, tensor: Tensor) -> bool:
        """Whether it computes with a weight or threshold of this type, on this device."""
        return True

    @abstractmethod
    def masked_weight(self, weight: Tensor, threshold: Tensor, estimator: str) -> Tensor:
        """W * M, differentiable in both; shape of the weight."""

    def masked_linear(
        self, inputs: Tensor, weight: Tensor, threshold: Tensor, bias: Tensor | None, estimator: str
    ) -> Tensor:
        """What a linear layer computes with W * M: [..., c_out] of inputs [..., c_in]."""
        return F.linear(inputs, self.masked_weight(weight, threshold, estimator), bias)

    def kept_linear(self, inputs: Tensor, values: Tensor, places: Places, bias: Tensor | None) -> Tensor:
        """What a linear layer computes with only its kept weights: [..., rows] of inputs [..., columns].

        values: the kept weights [kept] of a weight [rows, columns]. places: where they are in it.
        """
        return F.linear(inputs, places.scatter(values), bias)

    @abstractmethod
    def regularization(self, thresholds: Sequence[Tensor], scale: float) -> Tensor:
        """scale times L_s, 0-dim, differentiable in the thresholds."""

    @abstractmethod
    def update_thresholds_(
        self, weights: Sequence[Tensor], thresholds: Sequence[Tensor], rule: ResetRule | None, resets: Tensor
    ) -> Tensor:
        """Apply the reset rule, if any, in place; return the kept weights, int64 [layers].

        resets: 0-dim int64; the number of layers that were reset is added to it.
        """

    @abstractmethod
    def zero_(self, tensors: Sequence[Tensor], where: Sequence[Tensor]) -> None:
        """Set entries to 0, in place, where a bool tensor of the same shape is true.

        Whatever was there is gone: infinities and NaN too.
        """
