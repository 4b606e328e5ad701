"""Backend `eager`: plain torch operations on any device, the reference for the other backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from methods.kernels.backend import Backend
from methods.thresholds import (
    ESTIMATORS,
    Estimator,
    ResetRule,
    differentiable_product,
    gradients,
    keep_count,
    product,
    regularization,
)


class _Product(torch.autograd.Function):
    """`product` forward, `gradients` backward."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, threshold: Tensor, estimator: Estimator) -> Tensor:
        ctx.save_for_backward(weight, threshold)
        ctx.estimator = estimator
        return product(weight, threshold)

    @staticmethod
    def backward(ctx: Any, *d_products: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, threshold = ctx.saved_tensors
        return (*gradients(d_products[0], weight, threshold, ctx.estimator), None)


class Eager(Backend):
    """The equations as they are written."""

    name = "eager"

    def masked_weight(self, weight: Tensor, threshold: Tensor, estimator: str) -> Tensor:
        return cast(Tensor, _Product.apply(weight, threshold, ESTIMATORS[estimator]))  # type: ignore[no-untyped-call]

    def regularization(self, thresholds: Sequence[Tensor], scale: float) -> Tensor:
        return scale * regularization(thresholds)

    def kept_count(self, weight: Tensor, threshold: Tensor) -> Tensor:
        """The number of kept weights: 0-dim int64."""
        return keep_count(weight, threshold)

    def update_thresholds_(
        self, weights: Sequence[Tensor], thresholds: Sequence[Tensor], rule: ResetRule | None, resets: Tensor
    ) -> Tensor:
        kept = torch.stack([self.kept_count(w, t) for w, t in zip(weights, thresholds, strict=True)])
        return kept if rule is None else rule.apply_(kept, thresholds, resets)

    def zero_(self, tensors: Sequence[Tensor], where: Sequence[Tensor]) -> None:
        for tensor, entries in zip(tensors, where, strict=True):
            tensor.masked_fill_(entries, 0)


class Differentiable(Eager):
    """The equations as operations that torch differentiates by itself, in any mode and order."""

    def masked_weight(self, weight: Tensor, threshold: Tensor, estimator: str) -> Tensor:
        return differentiable_product(weight, threshold, ESTIMATORS[estimator])
