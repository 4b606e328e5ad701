"""A training that writes down every step, for the conformance checks to look at."""

from __future__ import annotations

import copy
import io
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from methods.attachment import attach
from methods.base import Method
from methods.conformance.networks import STEPS_PER_EPOCH, TOTAL_STEPS, Network
from methods.weights.finalization import finalize


@dataclass
class Moment:
    """What is seen after one step, or after attach (step 0).

    The last four fields are filled in only where the training is recorded.
    """

    began: bool
    loss: float
    penalty: Tensor
    masks: dict[str, Tensor]
    parameters: dict[str, Tensor]
    others_moved: list[str]
    stale_state: list[str]
    global_randomness: bool
    density: float = math.nan
    kept_counts: list[int] = field(default_factory=list)
    effective: dict[str, Tensor] = field(default_factory=dict)
    masks_in_place: dict[str, Tensor] = field(default_factory=dict)
    saved: bytes = b""


class _Draws(TorchFunctionMode):
    """Notes whether torch draws from any generator that it is given."""

    seen = False

    def __torch_function__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.seen = self.seen or any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values()))
        return func(*args, **kwargs)


def _global_random_state() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), np.asarray(keys).tobytes(), name, *rest


@dataclass
class Training:
    """A method at work on a network, in the loop that the documentation shows.

    Hooks of the optimizer separate what the optimizer changed from what the method changed. A
    method that makes the whole update itself (after_backward returned False) may change every
    parameter.
    """

    method: Method
    network: Network
    init_seed: int = 0
    seed: int = 0
    exclude: list[str] | None = None
    recorded: bool = False
    moments: list[Moment] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = self.network.build(self.init_seed)
        self.plain = copy.deepcopy(self.model)
        self.step = 0
        self._batches = self.network.batches()
        self._draws = _Draws()
        before = _global_random_state()
        with self._draws:
            self.attached = attach(
                self.model,
                self.method,
                total_steps=TOTAL_STEPS,
                steps_per_epoch=STEPS_PER_EPOCH,
                seed=self.seed,
                train_batches=lambda: list(self._batches),
                exclude=self.exclude,
            )
            penalty = self.attached.penalty().detach()
        self._others_moved, self._stale = self._changed(self.plain.state_dict()), set[str]()
        self.start_optimizer()
        self._note(False, math.nan, penalty, before)

    @property
    def drew(self) -> bool:
        """Whether torch drew random numbers from a generator other than the global one."""
        return self._draws.seen

    def start_optimizer(self) -> None:
        self.optimizer = self.network.optimizer(self.attached.parameter_groups())
        self.optimizer.register_step_pre_hook(self._before_update)
        self.optimizer.register_step_post_hook(self._mark)
        self.attached.bind(self.optimizer)

    def run(self, steps: int | None = None) -> Training:
        """Train for so many steps, or to the end. Returns itself."""
        end = self.attached.total_steps if steps is None else min(self.step + steps, self.attached.total_steps)
        while self.step < end:
            self._advance()
        return self

    def _advance(self) -> None:
        x, target = self._batches[self.step % STEPS_PER_EPOCH]
        before = _global_random_state()
        self._others_moved, self._stale, self._optimizer_steps = set(), set(), False
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), target)
        with self._draws:
            penalty = self.attached.penalty()
        (loss + penalty).backward()  # type: ignore[no-untyped-call]
        self._mark()
        with self._draws:
            began = self.attached.step()
        self.step += 1
        if began:
            self._start_phase()
        else:
            self._compare()
        self._note(began, loss.item(), penalty.detach(), before)

    def _start_phase(self) -> None:
        if self.attached.phase.new_optimizer:
            self.start_optimizer()
        if isinstance(lr := self.attached.phase.lr, (int, float)):
            for group in self.optimizer.param_groups:
                group["lr"] = lr

    def _before_update(self, *_: Any) -> None:
        self._optimizer_steps = True
        self._compare()

    def _mark(self, *_: Any) -> None:
        self._marked = {name: value.clone() for name, value in self.model.state_dict().items()}
        self._marked_masks = self.attached.masks()

    def _compare(self, *_: Any) -> None:
        self._others_moved |= self._changed(self._marked) if self._optimizer_steps else set()
        parameters = dict(self.model.named_parameters())
        for name, mask in self.attached.masks().items():
            grown = mask & ~self._marked_masks[name]
            state = self.optimizer.state.get(parameters[name], {})
            values = [v for v in state.values() if isinstance(v, Tensor) and v.shape == mask.shape]
            if any(bool(value[grown].any()) for value in values):
                self._stale.add(name)

    def _changed(self, then: Mapping[str, Tensor]) -> set[str]:
        now, masked = self.model.state_dict(), self.attached.masks()
        others = [name for name in self.plain.state_dict() if name not in masked]
        return {name for name in others if name not in now or not torch.equal(now[name], then[name])}

    def _note(self, began: bool, loss: float, penalty: Tensor, before: tuple[Any, ...]) -> None:
        moment = Moment(
            began=began,
            loss=loss,
            penalty=penalty,
            masks=self.attached.masks(),
            parameters={name: value.detach().clone() for name, value in self.model.named_parameters()},
            others_moved=sorted(self._others_moved),
            stale_state=sorted(self._stale),
            global_randomness=_global_random_state() != before,
        )
        moment.density = self.attached.density()
        if self.recorded:
            if self.method.masking == "in_place":
                moment.masks_in_place = self.attached.context.masks.state_dict()
            moment.kept_counts = [int(count) for count in self.attached.kept_counts()]
            moment.effective = {n: v.detach() for n, v in finalize(copy.deepcopy(self.model)).named_parameters()}
            moment.saved = self.save()
        self.moments.append(moment)

    def save(self) -> bytes:
        file = io.BytesIO()
        parts = {"attached": self.attached, "model": self.model, "optimizer": self.optimizer}
        torch.save({name: part.state_dict() for name, part in parts.items()}, file)  # type: ignore[attr-defined]
        return file.getvalue()

    def load(self, saved: bytes, step: int) -> None:
        """Continue from a state, in the order that Attachment.state_dict documents."""
        state = torch.load(io.BytesIO(saved), weights_only=True)
        self.attached.load_state_dict(state["attached"])
        self.model.load_state_dict(state["model"])
        self.start_optimizer()
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = step
