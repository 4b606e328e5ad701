"""An attachment is one method at work on one model, inside any training loop."""

from __future__ import annotations

import itertools
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import arguments, layers
from methods.base import Context, Method, Phase
from methods.checks import ranks
from methods.checks.bound_optimizer import (
    BoundOptimizer,
    check_thresholds,
    groups_of,
    unscale,
    unused_decay,
    unwanted_decay,
)
from methods.checks.structure import Structure, check_free, check_model, check_weights
from methods.checks.unfinished import warn_where_early, warn_where_idle, warn_where_unbound
from methods.execution import Choice, Execution
from methods.masked_layers import Thresholds
from methods.masks import Masks
from methods.training_loop import LoopWatch
from methods.weights import masked_modules
from methods.weights.coverage import Coverage, warn_where_little
from methods.weights.finalization import finalize

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
    extra: layers.Extra = (),
    execution: Choice = "dense",
    **hyperparameters: Any,
) -> Attachment:
    """Put a method to work on a model that is on its device already.

    total_steps: optimizer steps of the training. A method with several phases may add to them;
    `attached.total_steps` is the sum. steps_per_epoch: converts durations given in epochs.
    train_batches: returns a fresh iterable of (input, target) batches, for methods that score on
    data. include, exclude: fnmatch patterns on module names; a pattern covers everything inside the
    modules it matches. Frozen weights are left out unless a pattern of `include` covers them.
    extra: names of further parameters to mask, or a mapping from names to output axes
    (`layers.select` has the details). execution: with `sparse` Linear layers on a CPU hold only
    their kept weights, with `auto` where it pays (docs/sparse-execution.md). The model carries the
    method until `finalize`. Warns where less than 90 % of the model's weights can be masked. Raises
    ValueError for an unknown method, hyperparameter or execution, for one that the method or model
    cannot have, for a Method that was attached before, a pattern that matches no module, a model
    with nothing to prune, and one that carries a method already or is wrapped for several processes.
    """
    method = arguments.method_of(method_or_name, hyperparameters)
    execution = arguments.execution_of(execution, method)
    total_steps = arguments.count("total_steps", total_steps)
    steps_per_epoch = arguments.count("steps_per_epoch", steps_per_epoch)
    generator = arguments.generator_of(seed)
    check_model(model)
    selection = layers.select(model, include=include, exclude=exclude, extra=extra)
    weights = selection.weights
    check_free(model, selection.aside)
    check_weights(weights)
    coverage = Coverage.of(selection)
    warn_where_little(coverage, stacklevel=2)
    phases = arguments.phases_of(method, total_steps)
    zeroes_gradients, forward = method.pruned_gradients == "zero", method.masking == "forward"
    context = Context(
        model=model,
        weights=weights,
        generator=generator,
        total_steps=sum(phase.steps for phase in phases),
        steps_per_epoch=steps_per_epoch,
        phase=phases[0],
        loss_fn=arguments.function("loss_fn", loss_fn, example="F.cross_entropy"),
        train_batches=arguments.batches_of(train_batches),
        method_name=method.name,
        execution=Execution(execution, weights),
        thresholds=Thresholds(weights),
        # last: the model carries them, and stays free where an argument above is refused
        masks=Masks(model, weights, zeroes_gradients=zeroes_gradients, forward=forward),
    )
    try:
        return Attachment(method, context, phases, coverage)
    except BaseException:
        context.masks.undo_()
        finalize(model)
        raise


class Attachment:
    """A method as a training loop sees it. context: the Context that its hooks receive."""

    def __init__(self, method: Method, context: Context, phases: tuple[Phase, ...], coverage: Coverage) -> None:
        self.method, self.context, self.phases = method, context, phases
        self._starts = [0, *itertools.accumulate(phase.steps for phase in phases)]  # the steps at which they begin
        self._phase, self._warned_of_decay, self._chose_decay = 0, False, True
        self._coverage = coverage
        self._structure = Structure(context.model, context.weights, context.masks.carried())
        self._bound: BoundOptimizer | None = None
        method.enter_phase(context)
        if method.density_promise != "dense" and not len(context.thresholds):
            context.masks.watch()  # copies that are made now follow masks that come later
        context.execution.begin(context.masks.carried())
        self._structure.expect_thresholds(list(context.thresholds.parameters()))
        next(iter(context.masks.carried().values())).at_finish = weakref.WeakMethod(self._before_finalize)
        self._schedule_gradients()
        vars(method)[arguments.USED] = True
        self._loop = LoopWatch(method, context)
        self._had_gradients = self._has_gradients()

    def _has_gradients(self) -> bool:
        return any(parameter.grad is not None for parameter in self.context.model.parameters())

    def _before_finalize(self) -> None:
        method, ctx, idle = self.method, self.context, self._bound is not None and self._bound.stepped
        unbound = self._bound is None and self._has_gradients() and not self._had_gradients
        ctx.execution.end()
        if ctx.step and method.density_promise == "final" and hasattr(method, "density"):
            density = int(self.kept_counts().sum()) / ctx.total_weights
            warn_where_early(method.name, ctx.step, ctx.total_steps, density=density, promised=method.density)
        elif not ctx.step and method.density_promise != "dense" and idle:
            warn_where_idle(method.name)
        elif not ctx.step and unbound and method.density_promise in ("final", "emergent"):
            warn_where_unbound(method.name)

    def _schedule_gradients(self) -> None:
        """Gradients of pruned weights stay in the next step where the method needs them then."""
        if type(self.method).dense_gradient is not Method.dense_gradient:
            dense = self.method.dense_gradient(self.context)
            self.context.masks.keep_gradients(dense)
            self.context.execution.prepare(dense=dense)

    @property
    def scored_examples(self) -> int:
        """Examples that the method passed through the model outside of the steps, to score weights."""
        return self.context.scored_examples

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all phases."""
        return self.context.total_steps

    @property
    def phase(self) -> Phase:
        """The current Phase."""
        return self.context.phase

    def weights(self) -> dict[str, Tensor]:
        """The dense weights by name: what to initialise, write or give an optimizer.

        Where a method has thresholds, the layer's own attribute is computed from these. Where a layer
        holds kept weights only, its weight refuses writes: use `set_weights` and `parameter_groups`.
        """
        return self.context.execution.weights()

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Write dense weights; pruned entries stay 0. Raises ValueError for another name or shape."""
        self.context.execution.set_weights_(weights)
        self.context.masks.apply_()

    def executions(self) -> dict[str, str]:
        """How each maskable weight is held now, by name: `dense`, or `sparse` for kept weights only."""
        return self.context.execution.forms()

    def parameter_groups(self, weight_decay: float | None = None) -> list[dict[str, Any]]:
        """Groups for an optimizer: the model's parameters, and thresholds where they decay otherwise.

        weight_decay: of all parameters but thresholds; the one that the optimizer is given does not
        reach them. None is 0, and `bind` warns of an optimizer that has another. Thresholds share
        the group of the other parameters where the method's threshold_weight_decay equals weight_decay.
        """
        self._chose_decay = weight_decay is not None
        thresholds = self.context.thresholds.parameters().values()
        return groups_of(self.context.model, thresholds, weight_decay or 0.0, self.method.threshold_weight_decay)

    def bind(self, optimizer: torch.optim.Optimizer, *, process_group: Any = ranks.DEFAULT) -> None:
        """Set the optimizer that `step` calls.

        Where torch.distributed is initialized, every process of process_group (by default the
        default group; None compares nothing) has to bind: the first time, their masks and
        thresholds are compared. Warns once where thresholds decay otherwise than the method wants, and
        where the optimizer's weight decay reaches no weight.
        Raises ValueError where the optimizer lacks thresholds, where the method cannot use it, or
        where a weight is no longer the model's; RuntimeError where processes differ, and for a
        finalized model.
        """
        self._check("bind")
        thresholds = self.context.thresholds.parameters()
        check_thresholds(optimizer, thresholds)
        decay = unwanted_decay(optimizer, thresholds, self.method.name, self.method.threshold_weight_decay)
        if decay is None and not self._chose_decay:
            decay = unused_decay(optimizer)
        if decay is not None and not self._warned_of_decay:
            self._warned_of_decay = True
            warnings.warn(decay, stacklevel=2)
        self.method.check_optimizer(optimizer)
        first = self._bound is None
        if self._bound is not None:
            self._bound.release()
        several = ranks.usable(process_group) or ranks.usable(ranks.DEFAULT)
        self.context.execution.bind(optimizer, several_processes=several)
        self._bound = BoundOptimizer(optimizer, self._structure.trained(), self.context.model.named_parameters())
        if self._reads_gradients() and not self._bound.direct:
            raise ValueError(
                f"{self.method.name} reads each step's gradients, and {type(optimizer).__name__} wraps an optimizer "
                "that may not step: bind the optimizer itself, and call step() only when gradients are complete"
            )
        self.context.optimizer = optimizer
        if first:
            self.context.process_group = process_group
            self._compare_processes("attach with the same seed, weights and include in every process")
        if self.context.step == 0:
            self.method.begin_training(self.context)

    def _reads_gradients(self) -> bool:
        return type(self.method).after_backward is not Method.after_backward

    def _compare_processes(self, advice: str) -> None:
        held = self.masks() if len(self.context.masks) else {}
        ranks.check(held | self.context.thresholds.parameters(), self.context.process_group, advice)

    def _check(self, call: str) -> None:
        """Raises where the model is finalized, or a weight is not where it was."""
        if self._structure.finalized:
            raise RuntimeError(f"{call}() after finalize: the model carries no method now; attach one again")
        self._structure.check(ties=call != "step")  # `bind` looked; `step` names tensors that are new since

    def penalty(self) -> Tensor:
        """What the method adds to the task loss: a 0-dim tensor, 0 where it adds nothing.

        Raises RuntimeError for a finalized model.
        """
        if self._structure.finalized:
            self._check("penalty")
        self._loop.penalty_asked = True
        value = self.method.penalty(self.context)
        return next(iter(self.context.weights.values())).held.new_zeros(()) if value is None else value

    def step(
        self,
        scaler_step: Callable[[torch.optim.Optimizer], Any] | None = None,
        *,
        closure: Callable[[], Any] | None = None,
    ) -> bool:
        """One update, in place of optimizer.step(). True when a new phase began.

        scaler_step: a GradScaler's `step`; call `scaler.unscale_(optimizer)` before it to clip, and
        `scaler.update()` after. closure: recomputes loss and gradients, where an optimizer evaluates
        them several times. No step is counted where it makes no update (a wrapper accumulates
        gradients, a scaler found infinite ones). Raises RuntimeError where no optimizer is bound, for
        a finalized model, where the optimizer's tensors are not the model's any more, and where
        thresholds (at step 2) or scored masks of processes differ; ValueError for a replaced weight.
        """
        ctx = self.context
        self._check("step")
        if self._bound is None or ctx.optimizer is None:
            raise RuntimeError("no optimizer is bound: call attached.bind(optimizer) before step()")
        self._bound.check()
        if closure is not None and scaler_step is not None:
            raise RuntimeError("step() takes a closure or a scaler's step, not both")
        if closure is not None and self._reads_gradients():
            raise RuntimeError(
                f"{self.method.name} reads the gradients before each step: a closure computes them too late"
            )
        if ctx.step == 1 and len(ctx.thresholds):
            self._compare_processes("a wrapper does not know of the thresholds; attach first, then wrap the model")
        self._loop.before_step(ctx.optimizer)
        ctx.masks.begin()
        ctx.with_gradient = frozenset()
        unscale(scaler_step, ctx.optimizer)
        keep = ctx.execution.dense_next  # after_step reads gradients of pruned weights
        stepped = not arguments.after_backward(self.method, ctx)
        if not stepped:
            stepped = self._bound.update(scaler_step, closure, keep_gradients=keep)
            ctx.with_gradient = self._bound.with_gradient
        ctx.masks.apply_()
        if not stepped:
            return False
        ctx.step, scored = ctx.step + 1, ctx.scored_examples
        self.method.after_step(ctx)
        begins = self._advance()
        if ctx.scored_examples > scored:
            self._compare_processes("score on the same train_batches, or average scores with scoring.over_processes")
        return begins

    def _advance(self) -> bool:
        """Get ready for the next step. True where it begins a phase."""
        begins = self._phase + 1 < len(self.phases) and self.context.step >= self._starts[self._phase + 1]
        if begins:
            self._set_phase(self._phase + 1)
            self.context.execution.expand_()  # groups of a new optimizer see dense weights
            self.method.enter_phase(self.context)
            self._structure.expect_thresholds(list(self.context.thresholds.parameters()))
        self._schedule_gradients()
        if not (begins and self.phase.new_optimizer):
            self.context.execution.compress_()
        return begins

    def _set_phase(self, number: int) -> None:
        self._phase = number
        self.context.phase, self.context.phase_start = self.phases[number], self._starts[number]

    def masks(self) -> dict[str, Tensor]:
        """The masks of all maskable weights by name: bool, true where a weight is kept.

        After `finalize` these are the last ones.
        """
        return {name: self._mask(name) for name in self.context.weights}

    def _mask(self, name: str) -> Tensor:
        ctx = self.context
        final = ctx.masks.carried()[name].final
        if final is not None:
            return final.clone()
        mask = ctx.masks[name]
        return mask & ctx.thresholds.mask(name) if name in ctx.thresholds else mask

    def set_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Start from known masks. Raises ValueError for methods without masks of their own.

        Before the first step, weights that the method's own masks have zeroed and these masks keep
        return to the values that the model had.
        """
        self._check("set_masks")
        if not len(self.context.masks):
            raise ValueError(f"{self.method.name} has no masks of its own to set")
        self.context.masks.set(masks, frozen_too=True)
        self.context.masks.restore_before_()

    @torch.no_grad()
    def apply_masks(self, model: nn.Module | None = None) -> None:
        """Zero the pruned weights of the attached model, or of a copy or an average of it.

        The training masks its own weights; this is for others, for example after writing through
        `.data`. Thresholds of a copy prune by themselves. Raises ValueError for a model that lacks
        one of the weights.
        """
        if model is None:
            self.context.masks.apply_()
        else:
            masked_modules.mask_others_(model, self.masks())

    def thresholds(self) -> dict[str, Tensor]:
        """Thresholds by the name of the weight they prune, detached; {} for methods without any."""
        return self.context.thresholds.pruning()

    def threshold_resets(self) -> Tensor:
        """How often a layer's thresholds returned to 0: 0-dim int64 on the device."""
        return self.context.thresholds.resets

    def kept_counts(self) -> Tensor:
        """Kept weights of each maskable weight as of the last step, int64 [weights]. Does not wait for the device."""
        ctx = self.context
        if len(ctx.thresholds) and len(ctx.masks):
            return torch.stack([torch.count_nonzero(mask) for mask in self.masks().values()])
        if len(ctx.thresholds):
            return ctx.thresholds.kept_counts()
        return ctx.masks.kept_counts()

    def gradient_counts(self) -> Tensor:
        """How many weights of each layer need a gradient in the next step: int64 [weights].

        Does not wait for the device.
        """
        if (own := self.method.gradient_counts(self.context)) is not None:
            return own
        return self.context.masks.sizes() if self.method.dense_gradient(self.context) else self.kept_counts()

    def density(self) -> float:
        """The share of maskable weights that the masks keep, in the layers' own computation.

        Pruned weights that were written from outside are zeroed first.
        """
        if not self._structure.finalized:
            self._check("density")
            self.context.masks.apply_()
        return sum(int(torch.count_nonzero(mask)) for mask in self.masks().values()) / self.context.total_weights

    def coverage(self) -> Coverage:
        """The share of the model's weights that is maskable, and what is dense, as of `attach`."""
        return self._coverage

    def state_dict(self) -> dict[str, Any]:
        """What a bit-exact resume needs beside the model's and the optimizer's state.

        To resume: attach as before; load this state, then the model's; make the optimizer from
        parameter_groups(), bind it and load its state.
        """
        self._check("state_dict")
        return {
            "method": self.method.name,
            "version": self.method.version,
            "hyperparameters": self.method.identity(),
            "phase": self._phase,
            **self.context.state_dict(),
            "own": self.method.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore structure, masks and clocks without scoring again.

        Raises ValueError for the state of another method, version, hyperparameters, steps or weights.
        """
        self._check("load_state_dict")
        ctx = self.context
        arguments.check_state(self.method, ctx, state)
        self._set_phase(state["phase"])
        self._loop = LoopWatch(self.method, ctx)
        ctx.load_state_dict(state)
        self._structure.expect_thresholds(list(ctx.thresholds.parameters()))
        self.method.load_state_dict(state["own"])
        self._schedule_gradients()
