"""An attachment is one method at work on one model, inside any training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import layers, reparametrization
from methods.base import Context, Method, Phase
from methods.compaction.cut import compact_
from methods.masked_layers import Thresholds
from methods.masks import Masks
from methods.registry import create, native

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


def attach(
    model: nn.Module,
    method_or_name: Method | str,
    *,
    total_steps: int,
    steps_per_epoch: int,
    seed: int = 0,
    train_batches: Batches | None = None,
    loss_fn: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    **hyperparameters: Any,
) -> Attachment:
    """Put a method to work on a model that is on its device already.

    total_steps: optimizer steps of the training. A method with several phases may add to them;
    `attached.total_steps` is the sum. steps_per_epoch: converts durations given in epochs.
    train_batches: returns a fresh iterable of (input, target) batches, for methods that score on
    data. include, exclude: fnmatch patterns on module names; a pattern covers everything inside the
    modules it matches. Raises ValueError for an unknown method or hyperparameter, for a pattern
    that matches no module, and for a model with nothing to prune.
    """
    method = _method(method_or_name, hyperparameters)
    seed, total_steps, steps_per_epoch = (native(number) for number in (seed, total_steps, steps_per_epoch))
    _check_counts(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    weights = layers.maskable_weights(model, include=include, exclude=exclude)
    phases = _phases(method, total_steps)
    context = Context(
        model=model,
        weights=weights,
        masks=Masks(weights),
        thresholds=Thresholds(weights),
        generator=torch.Generator("cpu").manual_seed(seed),
        total_steps=sum(phase.steps for phase in phases),
        steps_per_epoch=steps_per_epoch,
        phase=phases[0],
        loss_fn=loss_fn,
        train_batches=train_batches or _no_batches,
    )
    return Attachment(method, context, phases)


def _method(method_or_name: Method | str, hyperparameters: Mapping[str, Any]) -> Method:
    if not isinstance(method_or_name, Method):
        return create(method_or_name, **hyperparameters)
    if hyperparameters:
        raise ValueError("hyperparameters go with a method's name, not with a Method")
    for name, value in method_or_name.hyperparameters().items():
        if native(value) is not value:
            setattr(method_or_name, name, native(value))
    return method_or_name


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}: it must be at least 1")


def _phases(method: Method, total_steps: int) -> tuple[Phase, ...]:
    phases = method.phases(total_steps)
    if not phases or min(phase.steps for phase in phases) < 1:
        raise ValueError(f"{method.name} has a phase without steps in a training of {total_steps}: {phases}")
    return phases


def _no_batches() -> Iterable[tuple[Tensor, Tensor]]:
    raise ValueError("this method scores on data: give attach(train_batches=...)")


def finalize(model: nn.Module, *, compact: bool = False) -> nn.Module:
    """Write the zeros into the weights, in place, and return the model.

    The model has plain modules and its original keys again, and computes the same function as
    before. Further training does not keep weights pruned. compact: also cut out the neurons and
    filters that cannot affect the output, which makes layers smaller (`methods.compaction`); in
    evaluation mode the function stays the same up to the order of summation. Raises ValueError
    where compaction cannot trace the model's forward; the zeros are written by then.
    """
    for module in list(model.modules()):
        reparametrization.restore(module)
    return compact_(model) if compact else model


class Attachment:
    """A method as a training loop sees it: penalty, step, and what is kept.

    context: the Context that the method's hooks receive.
    """

    def __init__(self, method: Method, context: Context, phases: tuple[Phase, ...]) -> None:
        self.method = method
        self.phases = phases
        self.context = context
        self._phase = 0
        method.enter_phase(context)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all phases."""
        return self.context.total_steps

    @property
    def phase(self) -> Phase:
        """The current Phase."""
        return self.context.phase

    def parameter_groups(self, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Groups for an optimizer: the model's parameters, and thresholds with their own decay."""
        thresholds = list(self.context.thresholds.parameters().values())
        known = {id(threshold) for threshold in thresholds}
        rest = [p for p in self.context.model.parameters() if p.requires_grad and id(p) not in known]
        groups: list[dict[str, Any]] = [{"params": rest, "weight_decay": weight_decay}]
        if thresholds:
            groups.append({"params": thresholds, "weight_decay": self.method.threshold_weight_decay})
        return groups

    def bind(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the optimizer that `step` calls. Raises ValueError where it lacks thresholds."""
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        missing = [n for n, t in self.context.thresholds.parameters().items() if id(t) not in held]
        if missing:
            raise ValueError(
                f"the optimizer lacks the thresholds of {', '.join(missing)}: build it from parameter_groups()"
            )
        self.context.optimizer = optimizer

    def penalty(self) -> Tensor:
        """What the method adds to the task loss: a 0-dim tensor, 0 where it adds nothing."""
        value = self.method.penalty(self.context)
        if value is None:
            first = next(iter(self.context.weights.values())).parameter
            return first.new_zeros(())
        return value

    def step(self, scaler_step: Callable[[torch.optim.Optimizer], Any] | None = None) -> bool:
        """One update, in place of optimizer.step(). True when a new phase began.

        scaler_step: a GradScaler's `step`; call `scaler.unscale_(optimizer)` before and
        `scaler.update()` after. Raises RuntimeError where no optimizer is bound.
        """
        ctx = self.context
        if ctx.optimizer is None:
            raise RuntimeError("no optimizer is bound: call attached.bind(optimizer) before step()")
        ctx.masks.forget_initial()
        if self.method.after_backward(ctx):
            ctx.optimizer.step() if scaler_step is None else scaler_step(ctx.optimizer)
        ctx.masks.apply_()
        ctx.step += 1
        self.method.after_step(ctx)
        return self._advance()

    def _advance(self) -> bool:
        phase_end = sum(phase.steps for phase in self.phases[: self._phase + 1])
        if self.context.step < phase_end or self._phase + 1 == len(self.phases):
            return False
        self._phase += 1
        self.context.phase = self.phases[self._phase]
        self.method.enter_phase(self.context)
        return True

    def masks(self) -> dict[str, Tensor]:
        """The masks of all maskable weights by name: bool, true where a weight is kept."""
        return {name: self._mask(name) for name in self.context.weights}

    def _mask(self, name: str) -> Tensor:
        ctx = self.context
        mask = ctx.masks[name]
        return mask & ctx.thresholds.mask(name) if name in ctx.thresholds else mask

    def set_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Start from known masks. Raises ValueError for methods without masks of their own.

        Before the first step, weights that the method's own masks have zeroed and these masks keep
        return to the values that the model had.
        """
        if not len(self.context.masks):
            raise ValueError(f"{self.method.name} has no masks of its own to set")
        self.context.masks.set(masks)
        self.context.masks.restore_initial_()

    def thresholds(self) -> dict[str, Tensor]:
        """Thresholds by the name of the weight they prune, detached; {} for methods without any."""
        return {name: t.detach() for name, t in self.context.thresholds.parameters().items()}

    def threshold_resets(self) -> Tensor:
        """How often a layer's thresholds returned to 0: 0-dim int64 on the device."""
        return self.context.thresholds.resets

    def kept_counts(self) -> Tensor:
        """Kept weights of each maskable weight as of the last step, int64 [weights].

        Does not wait for the device.
        """
        ctx = self.context
        if len(ctx.thresholds) and len(ctx.masks):
            return torch.stack([torch.count_nonzero(mask) for mask in self.masks().values()])
        if len(ctx.thresholds):
            return ctx.thresholds.kept_counts()
        return ctx.masks.kept_counts()

    def density(self) -> float:
        """The share of maskable weights that the masks keep."""
        masks = self.masks().values()
        return sum(int(torch.count_nonzero(mask)) for mask in masks) / sum(mask.numel() for mask in masks)

    def state_dict(self) -> dict[str, Any]:
        """What a bit-exact resume needs beside the model's and the optimizer's state.

        To resume: attach as before; load this state, then the model's; make the optimizer from
        parameter_groups(), bind it and load its state.
        """
        ctx = self.context
        return {
            "method": self.method.name,
            "version": self.method.version,
            "hyperparameters": self.method.identity(),
            "step": ctx.step,
            "phase": self._phase,
            "generator": ctx.generator.get_state(),
            "masks": ctx.masks.state_dict(),
            "thresholds": ctx.thresholds.state_dict(),
            "own": self.method.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore structure, masks and clocks without scoring again.

        Raises ValueError for the state of another method or version, or of other hyperparameters.
        """
        identity = (self.method.name, self.method.version)
        if (state["method"], state["version"]) != identity:
            raise ValueError(f"the state is of {state['method']} {state['version']}, not {identity[0]} {identity[1]}")
        saved = self.method.added_hyperparameters() | state["hyperparameters"]
        now = self.method.hyperparameters()
        changed = [
            f"{name} {saved.get(name)!r} -> {now.get(name)!r}"
            for name in {**saved, **now}
            if saved.get(name) != now.get(name)
        ]
        if changed:
            raise ValueError(f"the state was saved with other hyperparameters: {', '.join(changed)}")
        ctx = self.context
        ctx.step = state["step"]
        self._phase = state["phase"]
        ctx.phase = self.phases[self._phase]
        ctx.generator.set_state(state["generator"].cpu())
        ctx.masks.load_state_dict(state["masks"])
        ctx.masks.forget_initial()
        ctx.thresholds.load_state_dict(state["thresholds"])
        self.method.load_state_dict(state["own"])
