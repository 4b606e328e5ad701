"""Top-KAST: the largest weights compute, a larger set trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from methods import scores
from methods.base import Context, Method, check_choice, check_duration, check_fraction, check_positive
from methods.budgets import ALLOCATIONS
from methods.drop_grow import layer_counts, warn_where_never_due
from methods.schedules import every, steps_of


@dataclass(kw_only=True)
class TopKAST(Method):
    """Computes with the largest weights of each layer and trains a larger set of them.

    Jayakumar, Pascanu, Rae, Osindero, Elsen, "Top-KAST: Top-K Always Sparse Training", NeurIPS
    2020, arXiv:2106.03517.

    With theta the weights of a layer, D the density of the forward pass and D + M that of the
    backward pass:
        A = TopK(theta, D) by magnitude; the layer computes with theta on A and 0 elsewhere
        B = TopK(theta, D + M), which contains A
        delta theta = -eta grad on B, and 0 elsewhere
        penalty = l2 / 2 (sum over A of theta^2 + sum over B without A of theta^2 / D)
    The gradient is that of the product, so weights of B outside of A get one although the layer
    computes without them. They join A when they outgrow its smallest weights. The penalty shrinks
    the weights of A, and so lets others in. It is stronger outside of A, which keeps weights from
    moving in and out.

    | hyperparameter | symbol | paper (not verified) |
    |---|---|---|
    | density | D | 0.05 to 0.5 |
    | backward_density | D + M | up to 1; None is twice D |
    | allocation | | uniform, the first and the last layer dense |
    | l2 | factor of the penalty | 1e-4 |
    | update_every | steps between two choices of A and B | 1, or 100 with little loss |

    Departures: `budgets.allocate` divides the density among the layers, by `erk` if nothing else is
    given, with exact counts, and no layer is left out. The optimizer sees gradients of 0 outside of
    B, but its momentum and its own weight decay still move those weights. Clipping before the step
    sees the gradients of all weights. Frozen layers keep their masks.
    """

    name = "top_kast"
    version = 1
    reference = "arXiv:2106.03517"
    density_promise = "exact"
    masking = "forward"

    density: float = 0.05
    backward_density: float | None = None
    allocation: str = "erk"
    l2: float = 1e-4
    update_every: int | str = "100 steps"
    _factors: dict[str, Tensor] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_choice("allocation", self.allocation, ALLOCATIONS)
        check_duration("update_every", self.update_every)
        if self.backward_density is not None and not self.density <= self.backward_density <= 1:
            raise ValueError(f"backward_density is {self.backward_density}: it must lie in [{self.density}, 1]")
        check_positive("l2", self.l2, or_zero=True)

    def enter_phase(self, ctx: Context) -> None:
        warn_where_never_due(ctx, self.update_every, stops=ctx.total_steps + 1)  # after the last step too
        self._choose(ctx)

    def after_step(self, ctx: Context) -> None:
        if every(ctx.step, steps_of(self.update_every, steps_per_epoch=ctx.steps_per_epoch)):
            self._choose(ctx)

    @torch.no_grad()
    def _choose(self, ctx: Context) -> None:
        """Choose A and B of each layer anew."""
        backward = min(1.0, 2 * self.density) if self.backward_density is None else self.backward_density
        active = layer_counts(ctx, density=self.density, allocation=self.allocation)
        trained = layer_counts(ctx, density=backward, allocation=self.allocation)
        sizes = {name: scores.magnitude(weight.parameter) for name, weight in ctx.weights.items()}
        masks = {name: scores.top(size, active[name]) for name, size in sizes.items()}
        ctx.masks.set(masks)
        for name, size in sizes.items():
            factor = penalty_factor(masks[name], scores.top(size, trained[name]), self.density)
            self._factors[name] = factor.to(size.dtype)

    def gradient_counts(self, ctx: Context) -> Tensor:
        return torch.stack([torch.count_nonzero(self._factors[name]) for name in ctx.weights])

    def penalty(self, ctx: Context) -> Tensor | None:
        if self.l2 == 0:
            return None
        parts = []
        for name, weight in ctx.weights.items():
            scaled = self._factors[name].to(weight.parameter.dtype) * weight.parameter.detach()
            parts.append(torch.dot(scaled.flatten(), weight.parameter.flatten()))
        total = torch.stack([part.to(parts[0].device) for part in parts]).sum()
        return self.l2 * (total - total.detach() / 2)  # the gradient is l2 * scaled

    def after_backward(self, ctx: Context) -> bool:
        for name, weight in ctx.weights.items():
            if weight.parameter.grad is not None:
                weight.parameter.grad.masked_fill_(self._factors[name] == 0, 0)
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"factors": dict(self._factors)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._factors = {name: factor.to(self._factors[name].device) for name, factor in state["factors"].items()}


def penalty_factor(active: Tensor, trained: Tensor, density: float) -> Tensor:
    """1 on A, 1 / D on B without A, 0 where a weight does not train: float, shape of the masks."""
    return torch.where(active, 1.0, trained / density)
