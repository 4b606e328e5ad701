"""The training loop.

It knows methods only by their interface, and a step never waits for the device.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import methods
from benchmark import models, seeds
from benchmark.data.tensors import WHOLE, Dataset
from benchmark.spec import Optimizer, RunSpec, SpecError
from benchmark.training.engine import Engine
from benchmark.training.gradient import Gradient
from benchmark.training.process_group import Group
from methods import Attachment, Method, Phase


def learning_rate(spec: Optimizer, epoch: int) -> float:
    """The learning rate in one epoch, counted from 0."""
    if spec.schedule == "constant":
        return spec.lr
    passed = sum(epoch >= milestone for milestone in spec.milestones or ())
    return float(spec.lr * (spec.gamma if spec.gamma is not None else 0.1) ** passed)


def make_optimizer(spec: Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Fused SGD or Adam, one pass over each parameter.

    Adjacent groups with equal options become one.
    """
    groups = _merged(groups)
    if spec.name == "adam":
        return torch.optim.Adam(groups, lr=spec.lr, fused=True)
    return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, nesterov=spec.nesterov, fused=True)


def scheduled_apart(
    groups: list[dict[str, Any]], thresholds: Iterable[Tensor], schedule_of: str
) -> list[dict[str, Any]]:
    """The groups, split into thresholds and other parameters; `scheduled` says which follow the schedule."""
    ids = {id(threshold) for threshold in thresholds}
    split = []
    for group in groups:
        for of, are_thresholds in (("weights", False), ("thresholds", True)):
            params = [parameter for parameter in group["params"] if (id(parameter) in ids) is are_thresholds]
            split += [group | {"params": params, "scheduled": of == schedule_of}] if params else []
    return split


def _merged(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adjacent groups of equal options as one, parameters in their order.

    Each group costs time in every step.
    """
    merged: list[dict[str, Any]] = []
    for group in groups:
        if merged and {**merged[-1], "params": None} == {**group, "params": None}:
            merged[-1]["params"] += group["params"]
        else:
            merged.append({**group, "params": list(group["params"])})
    return merged


class UnfitError(SpecError):
    """The method cannot train this network, for example at so low a density: the cell fails."""


CLOCK = ("epoch", "step", "steps_done", "phase_start", "examples", "epoch_examples", "lr")


class Training:
    """One cell's live objects and how far it is: everything that a checkpoint holds.

    epoch, step, steps_done: whole epochs done, steps of the current epoch, steps in all. A method
    whose phases add steps may end within an epoch. lr: the rate of the last step, for the
    parameters that follow the schedule. group: the processes that train the cell together; all of
    them hold the same state. engine: how its steps are executed; by default the engine of the spec
    on the data's device. kept_examples, gradient_examples: the weights that each layer kept, and
    those that needed a gradient, summed over examples: int64 [layers]. train_cpu_seconds: CPU
    seconds of the training steps; None where they are not known, as on a GPU. Raises SpecError for
    a spec that does not fit its model, data, method or number of processes.
    """

    def __init__(
        self, spec: RunSpec, dataset: Dataset, group: Group | None = None, engine: Engine | None = None
    ) -> None:
        self.spec, self.data = spec, dataset
        device = dataset.device
        self.epoch = self.step = self.steps_done = self.phase_start = 0
        self.examples = self.epoch_examples = 0
        self.lr = spec.optimizer.lr
        torch.manual_seed(seeds.derive(spec.seed, "start-up"))
        self.model = models.create(
            spec.model,
            in_shape=self.data.in_shape,
            classes=self.data.classes,
            seed=spec.seed,
            batch_size=spec.optimizer.batch_size,
        ).to(device)
        self.steps_per_epoch = self.data.steps_per_epoch(spec.optimizer.batch_size)
        engine = engine or Engine(spec, device.type)
        self.attached = self._attach(self._method(), engine)
        self.group = group or Group()
        self.gradient = Gradient(spec, self.model, self.attached, self.group, engine)
        self.layer_names = list(self.attached.masks())
        self._new_optimizer()
        self.epochs = -(-self.attached.total_steps // self.steps_per_epoch)
        self.train_seconds = 0.0
        self.train_cpu_seconds: float | None = 0.0 if device.type == "cpu" else None
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.kept_examples = torch.zeros(len(self.layer_names), dtype=torch.int64, device=device)
        self.gradient_examples = torch.zeros_like(self.kept_examples)
        self.epoch_masks = self.attached.masks()
        self.step_records: dict[str, Tensor] = {}
        self.start_record()

    def _method(self) -> Method:
        """The spec's method, in the spec's version. Raises SpecError."""
        hyperparameters = {k: v for k, v in self.spec.method.items() if k not in ("name", "version")}
        if self.spec.density is not None:
            hyperparameters["density"] = self.spec.density
        try:
            method = methods.create(self.spec.method["name"], **hyperparameters)
        except ValueError as error:
            raise SpecError(f"{self.spec.label}: {error}") from error
        if method.version != self.spec.method["version"]:
            asked = f"{method.name} version {self.spec.method['version']}"
            raise SpecError(
                f"{self.spec.label}: this cell wants {asked}, installed is version {method.version}: "
                "expand the suite again"
            )
        return method

    def _attach(self, method: Method, engine: Engine) -> Attachment:
        """Attach the method to the model. Raises UnfitError."""
        try:
            return methods.attach(
                self.model,
                method,
                total_steps=self.spec.optimizer.epochs * self.steps_per_epoch,
                steps_per_epoch=self.steps_per_epoch,
                seed=seeds.derive(self.spec.seed, "method"),
                train_batches=lambda: self.batches(0),
                exclude=tuple(getattr(self.model, "uncounted", ())) or None,
                execution=engine.execution,
            )
        except ValueError as error:
            raise UnfitError(f"{self.spec.label}: {error}") from error

    def batches(self, start_step: int, share: slice = WHOLE) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the current epoch from a step on; share: only these examples of each batch."""
        return self.data.train_batches(
            batch_size=self.spec.optimizer.batch_size,
            seed=self.spec.seed,
            epoch=self.epoch,
            start_step=start_step,
            share=share,
        )

    @property
    def batch_examples(self) -> int:
        """Examples in the next step's batch, over all processes."""
        batch_size = self.spec.optimizer.batch_size
        return min(batch_size, self.data.train_size - self.step * batch_size)

    def _new_optimizer(self) -> None:
        optimizer, thresholds = self.spec.optimizer, self.attached.context.thresholds.parameters()
        groups = self.attached.parameter_groups(weight_decay=optimizer.weight_decay)
        if optimizer.schedule_of is not None:
            if not thresholds:
                raise UnfitError(f"{self.spec.label}: optimizer.schedule_of is set, but this method has no thresholds")
            groups = scheduled_apart(groups, thresholds.values(), optimizer.schedule_of)
        self.optimizer = make_optimizer(optimizer, groups)
        self.attached.bind(self.optimizer)
        self.gradient.wrap()

    def start_record(self) -> None:
        """Make room on the device for one record per step, if this epoch's steps are recorded."""
        self.step_records = {}
        if self.epoch < (self.spec.step_records or 0):
            shape, device = (self.steps_per_epoch, len(self.layer_names)), self.loss_sum.device
            names = ("kept", "masked", "recovered")
            self.step_records = {name: torch.zeros(shape, dtype=torch.int64, device=device) for name in names}
            self.step_records["loss"] = torch.zeros(shape[0], dtype=torch.float64, device=device)

    def enter_phase(self, phase: Phase) -> None:
        """Follow a method into its new phase: its learning rate and its optimizer."""
        if phase.lr == "restart":
            self.phase_start = self.steps_done
        if phase.new_optimizer:
            self._new_optimizer()

    def set_learning_rate(self) -> None:
        phase = self.attached.phase
        epoch = (self.steps_done - self.phase_start) // self.steps_per_epoch

        def rate(epoch: int) -> float:
            return learning_rate(self.spec.optimizer, epoch) * phase.lr_scale if isinstance(phase.lr, str) else phase.lr

        self.lr = rate(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr if group.get("scheduled", True) else rate(0)

    def count_step(self, examples: int) -> None:
        """Count one step on this many examples."""
        self.examples += examples
        self.epoch_examples += examples
        self.steps_done += 1

    def count_seconds(self, *, wall: float, cpu: float) -> None:
        """Count the seconds of one step: wall-clock time, and CPU time summed over the processes."""
        self.train_seconds += wall
        if self.train_cpu_seconds is not None:
            self.train_cpu_seconds += self.group.sum(cpu)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values: `torch.load(weights_only=True)` reads it back."""
        device = self.loss_sum.device
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "attached": self.attached.state_dict(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "loss_sum": self.loss_sum,
            "kept_examples": self.kept_examples,
            "gradient_examples": self.gradient_examples,
            "epoch_masks": self.epoch_masks,
            "step_records": self.step_records,
            "clock": {name: getattr(self, name) for name in CLOCK},
            "train_seconds": self.train_seconds,
            "train_cpu_seconds": self.train_cpu_seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint as if nothing had happened."""
        self.attached.load_state_dict(state["attached"])
        self.model.load_state_dict(state["model"])
        self._new_optimizer()
        self.optimizer.load_state_dict(_with_groups(state["optimizer"], len(self.optimizer.param_groups)))
        torch.set_rng_state(state["random"])
        device = self.loss_sum.device
        if device.type == "cuda" and state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"], device)
        self.loss_sum = state["loss_sum"].to(device)
        self.kept_examples = state["kept_examples"].to(device)
        self.epoch_masks = {name: mask.to(device) for name, mask in state["epoch_masks"].items()}
        self.step_records = {name: value.to(device) for name, value in state["step_records"].items()}
        clock = {"lr": self.lr} | state["clock"]  # an earlier version's has no `lr`
        for name in CLOCK:
            setattr(self, name, clock[name])
        self.gradient_examples = self._gradient_examples(state).to(device)
        self.train_seconds = state["train_seconds"]
        if self.train_cpu_seconds is not None:  # a checkpoint of an earlier version, or of a GPU, has none
            self.train_cpu_seconds = state.get("train_cpu_seconds")

    def _gradient_examples(self, state: Mapping[str, Any]) -> Tensor:
        """Those of a checkpoint. One of an earlier version has none: a method's gradients were all alike then."""
        if "gradient_examples" in state or self.attached.method.weight_gradient == "sparse":
            found: Tensor = state.get("gradient_examples", state["kept_examples"])
            return found.clone()
        return self.examples * torch.tensor([mask.numel() for mask in self.epoch_masks.values()])


def _with_groups(state: dict[str, Any], groups: int) -> dict[str, Any]:
    """An optimizer's state, in one group where it was saved before thresholds shared the weights' group."""
    saved = state["param_groups"]
    if len(saved) == groups or groups != 1:
        return state
    return state | {"param_groups": [saved[0] | {"params": [number for group in saved for number in group["params"]]}]}


def train_epoch(training: Training, after_step: Callable[[], None]) -> None:
    """Train for the rest of the current epoch.

    after_step is called after every step and may raise to stop.
    """
    model, attached = training.model.train(), training.attached
    if training.step == 0:
        training.loss_sum.zero_()
        training.epoch_examples = 0
        training.start_record()
        models.start_epoch(model)
    previous = attached.masks() if training.step_records else {}
    for inputs, labels in training.batches(training.step, training.gradient.share):
        if training.steps_done == attached.total_steps:
            break
        started, cpu_started = time.perf_counter(), time.process_time()
        loss = train_step(training, inputs, labels)
        training.count_seconds(wall=time.perf_counter() - started, cpu=time.process_time() - cpu_started)
        if training.step_records:
            previous = _record_step(training, previous, loss)
        training.step += 1
        after_step()
    training.epoch, training.step = training.epoch + 1, 0


def train_step(training: Training, inputs: Tensor, labels: Tensor) -> Tensor:
    """Take one optimizer step on a batch, or on this process's share of it.

    Returns the batch's mean loss: 0-dim, detached.
    """
    attached, examples = training.attached, training.batch_examples
    training.set_learning_rate()
    loss = training.gradient.backward(inputs, labels, step=training.steps_done, examples=examples)
    training.kept_examples.add_(attached.kept_counts(), alpha=examples)  # those that this forward pass used
    training.gradient_examples.add_(attached.gradient_counts(), alpha=examples)
    new_phase = attached.step()
    training.optimizer.zero_grad(set_to_none=True)
    training.loss_sum.add_(loss, alpha=examples)
    training.count_step(examples)
    if new_phase:
        training.enter_phase(attached.phase)
    return loss


def _record_step(training: Training, before: dict[str, Tensor], loss: Tensor) -> dict[str, Tensor]:
    now = training.attached.masks()
    at = training.step
    training.step_records["loss"][at] = loss
    for layer, (name, mask) in enumerate(now.items()):
        training.step_records["kept"][at, layer] = mask.sum()
        training.step_records["masked"][at, layer] = (before[name] & ~mask).sum()
        training.step_records["recovered"][at, layer] = (mask & ~before[name]).sum()
    return now


def digest(model: nn.Module, *others: Mapping[str, Any]) -> str:
    """SHA-256 over every tensor of a model's state and of other states; equal for equal bits.

    What a method was attached with is left out: it follows from the spec, and earlier states lack it.
    """
    sha = hashlib.sha256()

    def feed(value: Any) -> None:
        if isinstance(value, Tensor):
            sha.update(f"{value.dtype}{tuple(value.shape)}".encode() + value.cpu().contiguous().numpy().tobytes())
        elif isinstance(value, Mapping):
            for key in sorted(value, key=str):
                sha.update(str(key).encode())
                feed(value[key])
        elif isinstance(value, (list, tuple)):
            for inner in value:
                feed(inner)
        else:
            sha.update(repr(value).encode())

    for state in (model.state_dict(), *others):
        feed({key: value for key, value in state.items() if key != "attach"})
    return sha.hexdigest()
