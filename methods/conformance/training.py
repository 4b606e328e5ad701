"""A training that writes down every step, for the conformance checks to look at."""

from __future__ import annotations

import contextlib
import copy
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.attachment import attach
from methods.base import Method
from methods.conformance.networks import STEPS_PER_EPOCH, TOTAL_STEPS, MakeOptimizer, Network
from methods.conformance.randomness import Draws, global_random_state
from methods.execution import Choice
from methods.weights.finalization import finalize


class NotApplicable(Exception):  # noqa: N818
    """A check does not apply to a method; the text says why."""


@dataclass(frozen=True)
class Way:
    """How a training computes its steps; by default with the network's optimizer on whole batches.

    parts: of a batch, whose gradients add up to one step. clip: the largest norm of all gradients
    together. double: in float64. execution: as in `attach`. wrap: what the loop calls in place of the model, such as
    `torch.compile`. rank, ranks: each process computes its own share of every batch.
    """

    optimizer: MakeOptimizer | None = None
    weight_decay: float = 0.0
    parts: int = 1
    clip: float | None = None
    autocast: bool = False
    double: bool = False
    execution: Choice = "dense"
    wrap: Callable[[nn.Module], nn.Module] | None = None
    rank: int = 0
    ranks: int = 1


PLAIN = Way()
SPARSE = Way(execution="sparse")


@dataclass
class Moment:
    """What is seen after one step, or after attach (step 0).

    others_moved: what the method changed of parameters and buffers without a mask, their gradients and
    optimizer state, and the optimizer's options. stale_state,
    altered_state: weights where entries that grew have optimizer state that is not 0, or that the
    method changed. pruned_gradients: weights whose pruned entries had a gradient in a step whose
    gradients need not be dense; pruned_state: weights where the optimizer's state of pruned entries
    grew in such a step. largest_move: what the optimizer's step changed most in a parameter without
    a mask. plain_loss: the loss of the model itself where the loop calls `Way.wrap` of it. The last
    four fields are filled in only where the training is recorded.
    """

    began: bool
    loss: float
    penalty: Tensor
    masks: dict[str, Tensor]
    parameters: dict[str, Tensor]
    others_moved: list[str]
    stale_state: list[str]
    altered_state: list[str]
    pruned_gradients: list[str]
    pruned_state: list[str]
    largest_move: float
    global_randomness: bool
    scored_examples: int
    gradient_counts: Tensor
    plain_loss: float = math.nan
    density: float = math.nan
    kept_counts: list[int] = field(default_factory=list)
    effective: dict[str, Tensor] = field(default_factory=dict)
    masks_in_place: dict[str, Tensor] = field(default_factory=dict)
    saved: bytes = b""


State = dict[str, dict[str, Tensor]]


@dataclass
class _Seen:
    """What one step shows, by name of parameter or buffer, and of what belongs to it."""

    others_moved: set[str] = field(default_factory=set)
    stale_state: set[str] = field(default_factory=set)
    altered_state: set[str] = field(default_factory=set)
    pruned_gradients: set[str] = field(default_factory=set)
    pruned_state: set[str] = field(default_factory=set)
    largest_move: float = 0.0
    optimizer_steps: bool = False


@dataclass
class Training:
    """A method at work on a network, in the loop that the documentation shows.

    Hooks of the optimizer separate what the optimizer changed from what the method changed. A
    method that makes the whole update itself (after_backward returned False) may change every
    parameter. recorded: whether moments have what is seen within steps, effective weights and
    counts; saves: whether they have states to resume from, and draws of random numbers are noted.
    """

    method: Method
    network: Network
    way: Way = PLAIN
    init_seed: int = 0
    seed: int = 0
    exclude: list[str] | None = None
    recorded: bool = False
    saves: bool = False
    moments: list[Moment] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = self.network.build(self.init_seed)
        self._batches = self.network.batches()
        if self.way.double:
            self.model.double()
            self._batches = [(x.double() if x.is_floating_point() else x, target) for x, target in self._batches]
        self.plain = copy.deepcopy(self.model)
        self.step = 0
        self._draws = Draws() if self.saves else contextlib.nullcontext()
        before = global_random_state()
        with self._draws:
            self.attached = attach(
                self.model,
                self.method,
                total_steps=TOTAL_STEPS,
                steps_per_epoch=STEPS_PER_EPOCH,
                seed=self.seed,
                train_batches=lambda: list(self._batches),
                exclude=self.exclude,
                execution=self.way.execution,
            )
            penalty = self.attached.penalty().detach()
        self._seen = _Seen(others_moved=self._changed(_others(self.plain)))
        self.computes: nn.Module = self.model if self.way.wrap is None else self.way.wrap(self.model)
        self.start_optimizer()
        self._note(False, math.nan, penalty, before)

    @property
    def drew(self) -> bool:
        """Whether the method drew random numbers from a generator other than the global ones; needs `saves`."""
        return isinstance(self._draws, Draws) and self._draws.seen

    def start_optimizer(self) -> None:
        make = self.way.optimizer or self.network.optimizer
        self.optimizer = make(self.attached.parameter_groups(weight_decay=self.way.weight_decay))
        if self.recorded:
            self.optimizer.register_step_pre_hook(self._before_update)
            self.optimizer.register_step_post_hook(self._after_update)
        try:
            self.method.check_optimizer(self.optimizer)
        except ValueError as error:
            raise NotApplicable(f"refuses the optimizer: {error}") from error
        self.attached.bind(self.optimizer)

    def run(self, steps: int | None = None) -> Training:
        """Train for so many steps, or to the end. Returns itself."""
        end = self.attached.total_steps if steps is None else min(self.step + steps, self.attached.total_steps)
        while self.step < end:
            self._advance()
        return self

    def _advance(self) -> None:
        before = global_random_state()
        self._seen = _Seen()
        x, target = self._batches[self.step % STEPS_PER_EPOCH]
        plain_loss = math.nan if self.computes is self.model else self._plain_loss(x, target)
        self.optimizer.zero_grad()
        loss, penalty = self._backward(x, target)
        if self.way.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.way.clip)
        if self.recorded:
            self._look_at_gradients()
            self._mark()
        with self._draws:
            began = self.attached.step()
        self.step += 1
        if began:
            self._start_phase()
        elif self.recorded:
            self._compare()
        self._note(began, loss, penalty.detach(), before)
        self.moments[-1].plain_loss = plain_loss

    @torch.no_grad()
    def _plain_loss(self, x: Tensor, target: Tensor) -> float:
        return F.cross_entropy(copy.deepcopy(self.model)(x), target).item()

    def _backward(self, x: Tensor, target: Tensor) -> tuple[float, Tensor]:
        """Add the gradients of the batch, part by part; the mean loss, and the penalty of the last part."""
        way, total = self.way, 0.0
        x, target = x[way.rank :: way.ranks], target[way.rank :: way.ranks]
        for part, target_part in zip(x.chunk(way.parts), target.chunk(way.parts), strict=True):
            with torch.autocast("cpu", torch.bfloat16, enabled=way.autocast), self._draws:
                loss = F.cross_entropy(self.computes(part), target_part)
                penalty = self.attached.penalty()
            ((loss + penalty) / way.parts).backward()  # type: ignore[no-untyped-call]
            total += loss.item() / way.parts
        return total, penalty

    def _start_phase(self) -> None:
        if self.attached.phase.new_optimizer:
            self.start_optimizer()
        if isinstance(lr := self.attached.phase.lr, (int, float)):
            for group in self.optimizer.param_groups:
                group["lr"] = lr

    def _look_at_gradients(self) -> None:
        self._sparse_gradients = (
            self.method.pruned_gradients == "zero"
            and self.method.masking == "in_place"
            and not self.method.dense_gradient(self.attached.context)
        )
        gradients = {name: self._dense(name, parameter.grad) for name, parameter in self.model.named_parameters()}
        for name, pruned in self._pruned_in_place().items():
            gradient = gradients[name]
            if self._sparse_gradients and gradient is not None and bool(gradient[pruned].any()):
                self._seen.pruned_gradients.add(name)

    def _pruned_in_place(self) -> dict[str, Tensor]:
        return {name: ~mask for name, mask in self.attached.context.masks.state_dict().items()}

    def _before_update(self, *_: Any) -> None:
        self._seen.optimizer_steps = True
        changed = differing(self._gradients(), self._marked_gradients)
        self._seen.others_moved |= {f"the gradient of {name}" for name in changed}
        self._compare()
        self._mark()

    def _after_update(self, *_: Any) -> None:
        moved = [float((now - self._marked[name]).abs().max()) for name, now in self._without_mask().items()]
        self._seen.largest_move = max(moved, default=0.0)
        before, now = self._marked_state, self._state()
        for name, pruned in self._pruned_in_place().items():
            for key, value in now.get(name, {}).items():
                old = before.get(name, {}).get(key, torch.zeros_like(value))
                if self._sparse_gradients and bool((value.abs() > old.abs())[pruned].any()):
                    self._seen.pruned_state.add(name)
        self._mark()

    def _without_mask(self) -> dict[str, Tensor]:
        """The parameters that the model has without the method, and that have no mask."""
        left_out, plain = self.attached.masks(), dict(self.plain.named_parameters())
        named = [(name, p.detach()) for name, p in self.model.named_parameters()]
        return {name: p for name, p in named if name in plain and name not in left_out}

    def _gradients(self) -> dict[str, Tensor]:
        """The gradients of parameters without a mask, by name."""
        named = ((name, self.model.get_parameter(name).grad) for name in self._without_mask())
        return {name: gradient.clone() for name, gradient in named if gradient is not None}

    def _options(self) -> list[dict[str, Any]]:
        return [
            {key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups
        ]

    def _mark(self) -> None:
        self._marked_gradients, self._marked_options = self._gradients(), self._options()
        self._marked = {name: value.clone() for name, value in _others(self.model).items()}
        self._marked_masks = self.attached.masks()
        self._marked_state = self._state()

    def _state(self) -> State:
        """Copies of the optimizer's state that has the shape of its parameter, by name and key."""
        return {
            name: {
                key: self._dense(name, value).clone()
                for key, value in self.optimizer.state.get(parameter, {}).items()
                if isinstance(value, Tensor) and value.shape == parameter.shape
            }
            for name, parameter in self.model.named_parameters()
        }

    def _dense(self, name: str, value: Any) -> Any:
        """A parameter's tensor, in the dense weight's shape where only kept weights are held."""
        mask = self.attached.context.masks.carried().get(name)
        if value is None or mask is None or mask.places is None or value.dim() > 1:
            return value
        return mask.places.scatter(value)

    def _compare(self) -> None:
        """Note what changed since the last mark: only the method was at work."""
        state = self._state()
        if self._seen.optimizer_steps:
            self._seen.others_moved |= self._changed(self._marked) | self._changed_beside(state)
        for name, mask in self.attached.masks().items():
            grown = mask & ~self._marked_masks[name]
            for key, value in state[name].items():
                if bool(value[grown].any()):
                    self._seen.stale_state.add(name)
                before = self._marked_state[name].get(key, torch.zeros_like(value))
                if not torch.equal(value[grown], before[grown]):
                    self._seen.altered_state.add(name)

    def _changed_beside(self, state: State) -> set[str]:
        """What changed of the optimizer's options, and of its state of parameters without a mask."""
        groups = zip(self._options(), self._marked_options, strict=True)
        found = {f"the option {key}" for now, then in groups for key in now if now[key] != then.get(key)}
        for name in self._without_mask():
            found |= {f"the {key} of {name}" for key in differing(state[name], self._marked_state[name])}
        return found

    def _changed(self, then: Mapping[str, Tensor]) -> set[str]:
        now, masked = _others(self.model), self.attached.masks()
        others = [name for name in _others(self.plain) if name not in masked]
        return {name for name in others if name not in now or not torch.equal(now[name], then[name])}

    def _note(self, began: bool, loss: float, penalty: Tensor, before: tuple[Any, ...]) -> None:
        seen = self._seen
        moment = Moment(
            began=began,
            loss=loss,
            penalty=penalty,
            masks=self.attached.masks(),
            parameters={name: self._dense(name, p.detach()).clone() for name, p in self.model.named_parameters()},
            others_moved=sorted(seen.others_moved),
            stale_state=sorted(seen.stale_state),
            altered_state=sorted(seen.altered_state),
            pruned_gradients=sorted(seen.pruned_gradients),
            pruned_state=sorted(seen.pruned_state),
            largest_move=seen.largest_move,
            global_randomness=global_random_state() != before,
            scored_examples=self.attached.scored_examples,
            gradient_counts=self.attached.gradient_counts().clone(),
        )
        moment.density = self.attached.density()
        if self.recorded:
            if self.method.masking == "in_place":
                moment.masks_in_place = self.attached.context.masks.state_dict()
            moment.kept_counts = [int(count) for count in self.attached.kept_counts()]
            moment.effective = {n: v.detach() for n, v in finalize(copy.deepcopy(self.model)).named_parameters()}
        if self.saves:
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


def _others(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once, detached."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach() for name, value in named}


def differing(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """The names whose tensors differ, or are in one dictionary only."""
    return [name for name in {**a, **b} if name not in a or name not in b or not torch.equal(a[name], b[name])]
