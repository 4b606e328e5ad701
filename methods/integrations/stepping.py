"""An optimizer whose `step` steps a method too, for trainers that call `optimizer.step()` themselves."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch

from methods.attachment import Attachment
from methods.checks.bound_optimizer import unwanted_decay


def check_phases(attached: Attachment) -> None:
    """Raises ValueError for a method whose phases need another optimizer or learning rate."""
    for phase in attached.phases:
        if (phase is not attached.phases[0] and phase.new_optimizer) or phase.lr != "continue" or phase.lr_scale != 1:
            raise ValueError(
                f"{attached.method.name} begins phase '{phase.name}' with another optimizer or learning rate, which a "
                "callback cannot change: train it in a loop of your own"
            )


def take_over(attached: Attachment, optimizer: torch.optim.Optimizer) -> None:
    """Bind an optimizer. Its `step` then runs the closure, adds the penalty and steps the method.

    Gradients are complete at that point: accumulated, averaged over processes, unscaled and clipped.
    Raises ValueError as `Attachment.bind` does, and where the optimizer would decay thresholds.
    """
    thresholds, method = attached.context.thresholds.parameters(), attached.method
    decay = unwanted_decay(optimizer, thresholds, method.name, method.threshold_weight_decay)
    if decay is not None:
        raise ValueError(decay)
    attached.bind(optimizer)
    update = getattr(optimizer.step, "without_method", optimizer.step)  # taken over before, in another fit

    @functools.wraps(update)
    def step(self: torch.optim.Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        _add_penalty(attached, self)
        attached.step(lambda _: update())
        return loss

    step.without_method = update  # type: ignore[attr-defined]
    optimizer.step = types.MethodType(step, optimizer)  # type: ignore[method-assign]


def _add_penalty(attached: Attachment, optimizer: torch.optim.Optimizer) -> None:
    """Add the gradient of the method's penalty, once per step; no wrapper scales or averages it."""
    with torch.enable_grad():
        penalty = attached.penalty()
    if not penalty.requires_grad:
        return
    if getattr(optimizer, "grad_scale", None) is not None:
        raise ValueError(
            "a fused optimizer unscales gradients inside its step, where no penalty can be added: use fused=False"
        )
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    gradients = torch.autograd.grad(penalty, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
