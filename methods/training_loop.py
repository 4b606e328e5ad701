"""Warnings for a training loop that leaves out a part of what its method needs."""

from __future__ import annotations

import warnings

import torch

from methods.base import Context, Method, Phase


class LoopWatch:
    """Sees the steps of one attachment. penalty_asked: whether the loop asked for the method's penalty."""

    def __init__(self, method: Method, ctx: Context) -> None:
        self._method, self._ctx = method, ctx
        self.penalty_asked = self._overrun = False
        self._phase: Phase | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._rates: list[float] = []
        self._first: int | None = None  # the step at which this training began or was resumed

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Warn of what is missing by now."""
        ctx = self._ctx
        if self._first is None:
            self._first = ctx.step
        steps = ctx.step - self._first
        if steps and not self.penalty_asked and not steps & (steps - 1):
            self._warn_of_penalty()  # after 1, 2, 4, 8 … steps: it may begin as 0, and reading it waits for the device
        rates = [rate for group in optimizer.param_groups if isinstance(rate := group.get("lr"), float | int)]
        if self._phase is not None and ctx.phase is not self._phase and optimizer is self._optimizer:
            self._warn_of_phase(optimizer, rates)
        if ctx.step == ctx.total_steps and not self._overrun:
            self._warn_of_overrun()
        self._phase, self._optimizer, self._rates = ctx.phase, optimizer, rates

    def _warn_of_penalty(self) -> None:
        if type(self._method).penalty is Method.penalty:
            return
        value = self._method.penalty(self._ctx)
        if value is not None and value.requires_grad and float(value.detach()) != 0:
            self.penalty_asked = True  # said once
            _warn(
                f"{self._method.name} has a penalty, and the loop does not add it: the training is not the method's. "
                "Use loss + attached.penalty()"
            )

    def _warn_of_phase(self, optimizer: torch.optim.Optimizer, rates: list[float]) -> None:
        """At the first step of a phase that has the optimizer of the last one: its state, and its learning rate."""
        phase, before = self._ctx.phase, self._phase
        assert before is not None
        if phase.new_optimizer and getattr(optimizer, "state", None):
            _warn(
                f"{self._method.name}: the phase '{phase.name}' wants a new optimizer, and the old one is still bound: "
                "where attached.step() returns True and attached.phase.new_optimizer is True, build one from "
                "parameter_groups() and bind it"
            )
        scaled = phase.lr_scale != before.lr_scale or not isinstance(phase.lr, str)
        if scaled and rates and rates == self._rates and rates != [phase.lr] * len(rates):
            wanted = f"{phase.lr_scale:g} times the schedule's" if isinstance(phase.lr, str) else f"{phase.lr:g}"
            _warn(
                f"{self._method.name}: the learning rate of the phase '{phase.name}' is {wanted}, and the optimizer "
                f"still has {', '.join(f'{rate:g}' for rate in dict.fromkeys(rates))}: set it from attached.phase "
                "where attached.step() returns True"
            )

    def _warn_of_overrun(self) -> None:
        changes = type(self._method).after_step is not Method.after_step
        if changes and self._method.density_promise in ("exact", "final"):
            self._overrun = True
            _warn(
                f"attach was told that the training has {self._ctx.total_steps:,} optimizer steps, and it goes on "
                f"after them: {self._method.name} needs the number of steps, not of epochs"
            )


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=5)  # the caller of Attachment.step
