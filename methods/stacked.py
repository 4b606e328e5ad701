"""Several trainings of one architecture at work as one: their tensors are slices of shared ones.

Shapes: cells, the trainings side by side, the first axis of every shared tensor; the rest as in one training.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from methods import kernels
from methods.attachment import Attachment
from methods.base import Context, Method
from methods.layers import extra_name
from methods.masks import Masks, zero_
from methods.thresholds import Effective, Thresholds


def share(tensors: Sequence[Tensor], width: int) -> Tensor:
    """One tensor [width, ...] in whose slices the given ones lie from now on; copies of the first fill it up."""
    values = [tensor.detach() for tensor in tensors]
    shared = torch.stack(values + values[:1] * (width - len(values)))
    for tensor, own in zip(tensors, shared.unbind(), strict=False):
        tensor.data = own
    return shared


def _shared(members: Sequence[Mapping[str, Tensor]], width: int) -> dict[str, Tensor]:
    return {name: share([member[name] for member in members], width) for name in members[0]}


class Stack:
    """Attachments of one method to models of one architecture, each seeing its slices of shared parameters and buffers.

    What a step does to the shared tensors, every model and attachment has; each can be measured and saved as
    ever, and trained no other way while the stack is in use. width: slices of every shared tensor; those without an
    attachment compute on copies, so that a training's arithmetic depends on the width alone and not on its
    company. Raises ValueError for a method that cannot be stacked.
    """

    def __init__(self, attachments: Sequence[Attachment], width: int) -> None:
        contexts = [attached._context for attached in attachments]
        first = contexts[0]
        for attached in attachments:
            _check(attached)
        models = [context.model for context in contexts]
        parameters = _shared([dict(model.named_parameters()) for model in models], width)
        self.shared_parameters = {name: nn.Parameter(value) for name, value in parameters.items()}
        self.shared_buffers = _shared([dict(model.named_buffers()) for model in models], width)
        self._contexts = contexts
        weights = {name: self.shared_parameters[name] for name in first.weights}
        self._method = _of_all([attached.method for attached in attachments], width, next(iter(weights.values())))
        self._thresholds = StackedThresholds(
            [context.thresholds for context in contexts], self.shared_parameters, width
        )
        self._masks = StackedMasks([context.masks for context in contexts], weights, width)
        self._context = cast(Context, StackedContext(first, self._thresholds, self._method.name))

    def parameters(self) -> Iterable[nn.Parameter]:
        """The shared parameters, thresholds among them: [cells, ...] each."""
        return self.shared_parameters.values()

    def buffers(self) -> Iterable[Tensor]:
        """The shared buffers: [cells, ...] each."""
        return self.shared_buffers.values()

    def effective(self) -> dict[str, Tensor]:
        """What the models compute with, by the name in a plain model: [cells, ...] each, differentiable."""
        thresholds = {extra_name(name) for name in self._thresholds.parameters()}
        plain = {name: parameter for name, parameter in self.shared_parameters.items() if name not in thresholds}
        return plain | self._thresholds.effective()

    def penalty(self) -> Tensor | None:
        """What the method adds to each loss: [cells], or None. Raises RuntimeError where its hook cannot be stacked."""
        with self._told():
            return self._method.penalty(self._context)

    def kept_counts(self) -> Tensor:
        """Kept weights of each maskable weight: int64 [cells, weights] on the device."""
        return self._thresholds.kept_counts() if len(self._thresholds) else self._masks.kept_counts()

    def after_step(self) -> None:
        """What follows the optimizer's step: pruned weights zeroed, the clocks, the method's own."""
        self._masks.apply_()
        for context in self._contexts:
            context.masks.forget_initial()
            context.step += 1
        with self._told():
            self._method.after_step(self._context)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError:  # no fault of the hook
            raise
        except Exception as error:
            first_line = (str(error).splitlines() or [""])[0]
            reason = f"{self._method.name} cannot be stacked, though its class says `stackable`: {first_line}"
            raise RuntimeError(f"{reason}; its cells can train one at a time, without --cells-per-program") from error


def _check(attached: Attachment) -> None:
    """Raises ValueError where a method's hooks cannot be called once for several trainings."""
    method, names = attached.method, stackable(type(attached.method))
    if names is None:
        raise ValueError(f"{method.name} trains one model at a time: its class does not say `stackable`")
    words = [name for name in names if not isinstance(getattr(method, name), float)]
    reasons = {
        "it has several phases": len(attached.phases) > 1,
        "it has an after_backward of its own": type(method).after_backward is not Method.after_backward,
        "it has masks beside thresholds": bool(len(attached._context.masks) and len(attached._context.thresholds)),
        "threshold_weight_decay is no number of a hook": "threshold_weight_decay" in names,
        f"{', '.join(words)} is no float": bool(words),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"{method.name} cannot be stacked: {reason}")


def stackable(method: type[Method]) -> tuple[str, ...] | None:
    """`Method.stackable` as the class itself says it: it may have other hooks than its base.

    Raises ValueError where that is no tuple of names of its hyperparameters.
    """
    own: tuple[str, ...] | None = vars(method).get("stackable")
    if own is None:
        return None
    if not isinstance(own, tuple) or not set(own) <= set(method.hyperparameter_names()):
        names = ", ".join(method.hyperparameter_names()) or "none"
        raise ValueError(
            f"{method.name}: `stackable` is {own!r}: it must be a tuple of hyperparameters; valid: {names}"
        )
    return own


def _of_all(methods: Sequence[Method], width: int, like: Tensor) -> Method:
    """The first method, the hyperparameters that may differ being tensors [cells]."""
    joined = copy.copy(methods[0])
    for name in stackable(type(joined)) or ():
        values = [getattr(method, name) for method in methods]
        setattr(joined, name, like.new_tensor(values + values[:1] * (width - len(values))))
    return joined


class StackedContext:
    """What hooks of a method that can be stacked may read: the thresholds, and what is equal for all trainings."""

    def __init__(self, of: Context, thresholds: StackedThresholds, method: str) -> None:
        self.thresholds, self._method = thresholds, method
        self.total_steps, self.steps_per_epoch = of.total_steps, of.steps_per_epoch

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a hook of {self._method} reads ctx.{name}, which belongs to one training")


class StackedMasks:
    """The masks of several trainings, which never change while they are stacked. weights: the shared tensors."""

    def __init__(self, members: Sequence[Masks], weights: Mapping[str, Tensor], width: int) -> None:
        fill = [members[0]] * (width - len(members))
        masked = [name for name in weights if name in members[0]]
        self._weights = [weights[name].detach() for name in masked]
        self._masks = [torch.stack([member[name] for member in [*members, *fill]]) for name in masked]
        self._factors: list[Tensor] = []
        self._kept = torch.stack([member.kept_counts() for member in [*members, *fill]])

    def kept_counts(self) -> Tensor:
        """int64 [cells, weights]"""
        return self._kept

    def apply_(self) -> None:
        """Zero every pruned weight."""
        zero_(self._weights, self._masks, self._factors)


class StackedThresholds(Thresholds):
    """The thresholds of several trainings: what hooks of a method that can be stacked ask of `Thresholds`.

    parameters: the shared tensors by the models' own names for them.
    """

    def __init__(self, members: Sequence[Thresholds], parameters: Mapping[str, nn.Parameter], width: int) -> None:
        first = members[0]
        super().__init__(first._weights)
        self._structure, self._resettable = first._structure, first._resettable
        self._parameters = {name: parameters[extra_name(name)] for name in first.parameters()}
        self._dense = {name: parameters[name] for name in self._parameters}
        self._kept_of_all = share([member.kept_counts() for member in members], width)
        self.resets = share([member.resets for member in members], width)

    def effective(self) -> dict[str, Tensor]:
        """The masked weights, [cells, ...] each."""
        estimator = self._structure.get("estimator", "")
        return {name: _in_rows(estimator, self._dense[name], t) for name, t in self._parameters.items()}

    def regularization(self, scale: float | Tensor = 1.0) -> Tensor:
        """scale times L_s of each training: [cells]; a scale for all, or one for each [cells]."""
        flat = torch.cat([threshold.reshape(len(threshold), -1) for threshold in self._parameters.values()], dim=1)
        return scale * flat.neg().exp().sum(dim=1)

    def kept_counts(self) -> Tensor:
        """int64 [cells, weights]"""
        return self._kept_of_all

    def mask(self, name: str) -> Tensor:
        """Raises AttributeError: what belongs to one training is not to be had here."""
        raise AttributeError(f"the mask of {name} belongs to one training")

    @torch.no_grad()
    def update_(self, *, reset_below: float | None) -> None:
        weights = self._dense.values()
        counts = [_count(*_by_cell(w, t)) for w, t in zip(weights, self._parameters.values(), strict=True)]
        kept = torch.stack(counts, dim=1)
        self._kept_of_all.copy_(
            kept if reset_below is None else self._reset_(kept, [w[0].numel() for w in weights], reset_below)
        )


def keep_counts(weight: Tensor, threshold: Tensor) -> Tensor:
    """Kept weights of each training, int64 [cells]. weight: [cells, rows, columns]; threshold: broadcasts to it."""
    return (weight.abs() > threshold).sum(dim=(1, 2))


def _count(weight: Tensor, threshold: Tensor) -> Tensor:
    count = kernels.compiled(keep_counts) if kernels.is_compiled(weight) else keep_counts
    kept: Tensor = count(weight, threshold)
    return kept


def _by_cell(weight: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    cells, rows = weight.shape[:2]
    shape = (cells, rows, -1) if threshold.shape == weight.shape else (cells, -1, 1)
    return weight.reshape(cells, rows, -1), threshold.reshape(shape)


def _in_rows(estimator: str, weight: Tensor, threshold: Tensor) -> Tensor:
    """The masked weights of all trainings as one: thresholds belong to rows, be it a training's or a neuron's."""
    joined = min(threshold.dim(), 2)
    return Effective(estimator)(weight.flatten(0, joined - 1), threshold.flatten(0, joined - 1)).view(weight.shape)
