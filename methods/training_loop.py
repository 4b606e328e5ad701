"""Warnings for a training loop that leaves out a part of what its method needs."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from methods.base import Context, Method, Phase

MESSAGE_LEVEL = 4  # the caller of Attachment.step


class LoopWatch:
    """Sees the steps of one attachment, and warns once of each part that is left out.

    penalties: how often the method's penalty was asked for.
    """

    def __init__(self, method: Method, ctx: Context) -> None:
        self._method, self._ctx = method, ctx
        self.penalties = self._steps = 0
        self._phase: Phase | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._rates: list[float] = []
        self._overrun = False

    def before_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Warn of what is missing by now."""
        ctx = self._ctx
        if self._steps == 1 and not self.penalties:
            self._warn_of_penalty()
        rates = [group["lr"] for group in optimizer.param_groups if not isinstance(group["lr"], Tensor)]  # may wait
        if self._phase is not None and ctx.phase is not self._phase:
            self._warn_of_phase(optimizer, rates)
        changes = type(self._method).after_step is not Method.after_step
        timed = self._method.density_promise in ("exact", "final")
        if ctx.step == ctx.total_steps and changes and timed and not self._overrun:
            self._overrun = True
            _warn(
                f"the training goes on after the {ctx.total_steps:,} optimizer steps that attach was told: "
                f"{self._method.name} changes no more masks. total_steps counts steps, not epochs"
            )
        self._steps += 1
        self._phase, self._optimizer, self._rates = ctx.phase, optimizer, rates

    def _warn_of_penalty(self) -> None:
        if type(self._method).penalty is Method.penalty:
            return
        value = self._method.penalty(self._ctx)
        if value is not None and value.requires_grad and float(value.detach()) != 0:
            _warn(
                f"{self._method.name} has a penalty, and the loop does not add it: without it, the method does not "
                "prune as it should. Use loss + attached.penalty()"
            )

    def _warn_of_phase(self, optimizer: torch.optim.Optimizer, rates: list[float]) -> None:
        """At the first step of a phase: is its optimizer new, and its learning rate the phase's?"""
        phase, before = self._ctx.phase, self._phase
        assert before is not None
        if phase.new_optimizer and optimizer is self._optimizer:
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


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=MESSAGE_LEVEL + 1)
