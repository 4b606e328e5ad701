"""Backend `inductor`: the equations compiled by torch.compile, for a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from methods.kernels.build import first_complaint
from methods.kernels.eager import Eager
from methods.thresholds import ESTIMATORS, Estimator, gradients, keep_count, product

VARIANTS = 256  # of one function in a process; torch.compile gives up after 8 by default


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled with sizes left open; it raises where torch would go on uncompiled.

    There is one variant for each shape of thresholds, type, estimator and autocast, and for axes of
    length 1.
    """
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, VARIANTS)
    compiled_function: Callable[..., Any] = torch.compile(function, dynamic=True, fullgraph=True)
    return compiled_function


def as_rows(weight: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Both in two dimensions, [c_out, -1] and what broadcasts against it.

    Layers of every kind then share the compiled variants.
    """
    rows = len(weight)
    shape = (rows, -1) if threshold.shape == weight.shape else (-1, 1)
    return weight.reshape(rows, -1), threshold.reshape(shape)


class _Product(torch.autograd.Function):
    """`product` forward, `gradients` backward, both compiled."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, threshold: Tensor, estimator: Estimator) -> Tensor:
        ctx.save_for_backward(weight, threshold)
        ctx.estimator = estimator
        masked: Tensor = compiled(product)(*as_rows(weight, threshold))
        return masked.view(weight.shape)

    @staticmethod
    def backward(ctx: Any, *d_products: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, threshold = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a second derivative; compiled code has only a first one
            return (*gradients(d_products[0], weight, threshold, ctx.estimator), None)
        rows = as_rows(weight, threshold)
        d_weight, d_threshold = compiled(gradients)(d_products[0].reshape(rows[0].shape), *rows, ctx.estimator)
        return d_weight.view(weight.shape), d_threshold.view(threshold.shape), None


class Inductor(Eager):
    """What is computed for each weight is compiled; what is computed once for all is not."""

    name = "inductor"

    def missing(self) -> str | None:
        try:
            compiled(torch.neg)(torch.ones(2, device="cuda" if torch.cuda.is_available() else "cpu"))
        except Exception as error:  # whatever a compiler or its driver raises
            return f"torch.compile does not work here ({first_complaint(error)})"
        return None

    def masked_weight(self, weight: Tensor, threshold: Tensor, estimator: str) -> Tensor:
        return cast(Tensor, _Product.apply(weight, threshold, ESTIMATORS[estimator]))  # type: ignore[no-untyped-call]

    def kept_count(self, weight: Tensor, threshold: Tensor) -> Tensor:
        return cast(Tensor, compiled(keep_count)(*as_rows(weight, threshold)))
