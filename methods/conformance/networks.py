"""What the conformance checks train: small networks, their data, and a training that writes down each step."""

from __future__ import annotations

import copy
import io
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from methods.attachment import attach, finalize
from methods.base import Method

CLASSES = 4
BATCH_SIZE = 16
STEPS_PER_EPOCH = 3
TOTAL_STEPS = 24


class Recurrent(nn.Module):
    """A recurrent layer over [batch, time, features], its last output classified."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.recurrent = layer
        self.classifier = nn.Linear(layer.hidden_size * (2 if layer.bidirectional else 1), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.recurrent(x)[0][:, -1])
        return logits


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, CLASSES))


def _conv(conv: Any, norm: Any, dimensions: int) -> nn.Module:
    return nn.Sequential(
        conv(3, 8, 3, stride=2, padding=1),
        norm(8),
        nn.ReLU(),
        conv(8, 8, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 2**dimensions, CLASSES),
    )


def _sgd(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def _adam(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=0.02)


@dataclass(frozen=True)
class Network:
    """A model to check on: every parameter of two dimensions or more is maskable, no other is."""

    name: str
    make: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = _sgd

    def build(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make()

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """One epoch of [BATCH_SIZE, *input_shape] inputs around a centre for each class."""
        generator = torch.Generator().manual_seed(7)
        centres = torch.randn(CLASSES, *self.input_shape, generator=generator)
        target = torch.arange(BATCH_SIZE) % CLASSES
        noise = [torch.randn(BATCH_SIZE, *self.input_shape, generator=generator) for _ in range(STEPS_PER_EPOCH)]
        return [(centres[target] + 0.5 * each, target) for each in noise]


FAST = (
    Network("mlp", _mlp, (12,), _adam),
    Network("conv2d", lambda: _conv(nn.Conv2d, nn.BatchNorm2d, 2), (3, 4, 4)),
    Network("lstm", lambda: Recurrent(nn.LSTM(6, 10, batch_first=True)), (5, 6), _adam),
)
FULL = (
    *FAST,
    Network("gru", lambda: Recurrent(nn.GRU(6, 10, batch_first=True)), (5, 6), _adam),
    Network(
        "deep bidirectional lstm",
        lambda: Recurrent(nn.LSTM(6, 8, num_layers=2, bidirectional=True, batch_first=True)),
        (5, 6),
        _adam,
    ),
    Network("conv1d", lambda: _conv(nn.Conv1d, nn.BatchNorm1d, 1), (3, 4)),
    Network("conv3d", lambda: _conv(nn.Conv3d, nn.BatchNorm3d, 3), (3, 4, 4, 4)),
)


@dataclass
class Moment:
    """What is seen after one step; of step 0, right after attach. The last four in a recorded training alone."""

    began: bool
    loss: float
    penalty: Tensor
    masks: dict[str, Tensor]
    parameters: dict[str, Tensor]
    others_moved: list[str]
    stale_state: list[str]
    global_randomness: bool
    kept_counts: list[int] = field(default_factory=list)
    density: float = math.nan
    effective: dict[str, Tensor] = field(default_factory=dict)
    saved: bytes = b""


class _Draws(TorchFunctionMode):
    """Notes whether torch draws from a generator, whichever it is."""

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

    The optimizer's hooks part what the optimizer changed from what the method did. Where a method
    makes the whole update itself (after_backward returned False) every parameter is its own to change.
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
        """Whether torch drew random numbers from any generator but the global one."""
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
        if self.recorded:
            moment.kept_counts = [int(count) for count in self.attached.kept_counts()]
            moment.density = self.attached.density()
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
