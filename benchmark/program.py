"""Cells of one architecture that take their steps together, as one batched program.

A GPU is idle for most of a small cell's step; side by side, cells fill it. Each cell keeps its own
training, data order, records and checkpoints; parameters and buffers lie in tensors that all share,
[cells, ...], and one forward pass, one backward pass and one call of an optimizer serve all.

Shapes: cells, b a batch, c channels, h rows, w columns.
"""

from __future__ import annotations

import collections
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, vmap

from benchmark import measure
from benchmark.engine import Engine
from benchmark.graphs import CudaGraph, StepGraph
from benchmark.spec import RunSpec, SpecError
from benchmark.train import Batch, Step, Steps, Training, make_optimizer, take
from methods.registry import method_class
from methods.stacked import Stack, share, stackable

T = TypeVar("T")
MODELS = ("lenet-300-100", "lenet-5-caffe", "vgg16", "wrn-")  # torch.func maps no LSTM


@functools.cache
def company(spec: RunSpec) -> str | None:
    """Cells for which this is equal can be one program; None where a cell trains alone.

    They differ in their seeds, and in hyperparameters that the method allows. A vgg16 of other widths trains alone: its
    last batch normalisation adds up in an order that depends on a cell's place among the columns of all.
    """
    try:
        free = stackable(method_class(spec.method["name"]))
    except ValueError as error:
        raise SpecError(str(error)) from error
    one_pass = spec.optimizer.micro_batch_size in (None, spec.optimizer.batch_size)
    placed = spec.model.name == "vgg16" and spec.model.widths is not None
    if free is None or not one_pass or placed or not spec.model.name.startswith(MODELS):
        return None
    plain = spec.to_dict()
    plain["seed"] = None
    plain["method"] = {name: value for name, value in plain["method"].items() if name not in free}
    return json.dumps(plain, sort_keys=True)


def neighbours(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """The same cells, those of one company beside each other; in the order of each company's first."""
    companies: dict[str, list[RunSpec]] = {}
    for spec in specs:
        companies.setdefault(company(spec) or spec.run_id, []).append(spec)
    return [spec for of in companies.values() for spec in of]


def programs_of(specs: Sequence[RunSpec], width: int) -> str:
    """For people: which cells are to train side by side in programs of a width, and which one at a time."""
    sizes = collections.Counter(kind for spec in specs if (kind := company(spec)) is not None)
    count = sum(-(-size // width) for size in sizes.values())
    alone = sorted({f"{spec.model.name} {spec.method['name']}" for spec in specs if company(spec) is None})
    parts = (
        [f"{sizes.total()} of {len(specs)} cells in {count} program{'s' * (count != 1)} of {width}"] if sizes else []
    )
    if empty := count * width - sizes.total():
        parts.append(f"{empty} places left empty, which cost as much as taken ones")
    return "side by side: " + "; ".join([*parts, *([f"one at a time: {', '.join(alone)}"] if alone else [])])


def width_of(spec: RunSpec, cells_per_program: int) -> int:
    """Of the program that a cell's steps are part of, where so many are asked for; 1 where it trains alone."""
    return cells_per_program if cells_per_program > 1 and company(spec) is not None else 1


def check_company(spec: RunSpec) -> None:
    """Raises SpecError for a cell that trains alone."""
    if company(spec) is None:
        what = f"{spec.model.name} with {spec.method['name']}"
        raise SpecError(
            f"--cells-per-program: cells of {what} train one at a time; a method has to be `stackable`, and a model "
            f"one of {', '.join(MODELS)}*"
        )


class Program:
    """The trainings of cells in one `company`, all after the same number of steps.

    Parameters, buffers and masks are shared (`methods.stacked.Stack`), the optimizer's state is each training's own.
    width: how many the program is made for; where there are fewer, copies of the first fill it up and are
    never looked at. What a cell computes depends on the width, not on the cells beside it.
    """

    def __init__(self, trainings: Sequence[Training], width: int) -> None:
        self.trainings, self._width = list(trainings), width
        first = trainings[0]
        self._recorder = first.gradient.recorder
        self._engine = Engine(first.spec, first.loss_sum.device.type, self._recorder is CudaGraph, width)
        self._graph: StepGraph | None = None
        self._stack = Stack([training.attached for training in trainings], width)
        self._plain = measure.plain_copy(first.model).train()
        self._loss_sum = share([training.loss_sum for training in trainings], width)
        self._kept_examples = share([training.kept_examples for training in trainings], width)
        self._own = [dict(training.model.named_parameters()) for training in trainings]
        self._optimizer = self._common_optimizer()

    def _common_optimizer(self) -> torch.optim.Optimizer:
        """One optimizer of all trainings' parameters, which goes on with the state that they have."""
        optimizers = [training.optimizer for training in self.trainings]
        groups = [
            {**alike[0], "params": [parameter for group in alike for parameter in group["params"]]}
            for alike in zip(*(optimizer.param_groups for optimizer in optimizers), strict=True)
        ]
        common = make_optimizer(self.trainings[0].spec.optimizer, groups)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                common.state.update({parameter: optimizer.state[parameter] for parameter in group["params"]})
        return common

    def step(self, batches: Sequence[Batch]) -> Tensor:
        """One optimizer step of every training, each on its own batch: the batches' mean losses, [cells], detached.

        As `train_step` of each, but for the order in which sums are added up.
        """
        for training in self.trainings:
            training.set_learning_rate()
        for group, own in zip(self._optimizer.param_groups, self.trainings[0].optimizer.param_groups, strict=True):
            group["lr"] = own["lr"]
        examples = self.trainings[0].batch_examples
        self._kept_examples.add_(self._stack.kept_counts(), alpha=examples)
        losses = self._passes(*self._joined(batches))
        self._update()
        self._stack.after_step()
        self._loss_sum.add_(losses, alpha=examples)
        for training in self.trainings:
            training.count_step(examples)
        return losses

    def _update(self) -> None:
        """The optimizer's step: parameter by parameter, as a cell alone takes it."""
        for name, shared in self._stack.shared_parameters.items():
            assert shared.grad is not None, f"{name} takes part in the forward pass"
            for own, gradient in zip(self._own, shared.grad.unbind(), strict=False):
                own[name].grad = gradient
            shared.grad = None
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _joined(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
        """Inputs [cells, b, c, h, w] and labels [cells, b]."""
        filled = [*batches, *[batches[0]] * (self._width - len(batches))]
        inputs, labels = zip(*filled, strict=True)
        return torch.stack(inputs), torch.stack(labels)

    def _passes(self, inputs: Tensor, labels: Tensor) -> Tensor:
        if self._recorder is None or labels.shape[1] < self.trainings[0].spec.optimizer.batch_size:
            return self._backward(inputs, labels)
        if self._graph is None:
            self._graph = StepGraph(self._backward, self._stack, inputs, labels, self._recorder())
        return self._graph(inputs, labels)

    def _backward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        state = (self._stack.effective(), self._stack.shared_buffers)
        with self._engine.arithmetic():
            with self._engine.autocast():
                logits = vmap(self._forward)(state, inputs)
            each = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
            losses = each.view(labels.shape).mean(dim=1)
            penalty = self._stack.penalty()
            torch.autograd.backward((losses if penalty is None else losses + penalty).sum())
        return losses.detach()

    def _forward(self, state: tuple[dict[str, Tensor], dict[str, Tensor]], inputs: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._plain, state, (inputs,))
        return logits


def ends(executions: Mapping[RunSpec, Steps[T]], width: int) -> Iterator[tuple[str, T | Exception]]:
    """Take the steps of cells: (run_id, result or error) of each as it ends. width: of a program."""
    if width > 1 and None not in map(company, executions):
        yield from together({spec.run_id: steps for spec, steps in executions.items()}, width)
        return
    for spec, steps in executions.items():
        try:
            yield spec.run_id, take(steps)
        except Exception as error:
            yield spec.run_id, error


def together(executions: Mapping[str, Steps[T]], width: int) -> Iterator[tuple[str, T | Exception]]:
    """Take the steps of cells in one `company` as one program's; (name, result or error) of each as it ends.

    Cells that are behind, as after a resume, go first until they have caught up. What goes wrong in a step
    is thrown into all that took it.
    """
    asked: dict[str, Step] = {}
    for name, steps in executions.items():
        yield from _go_on(asked, name, functools.partial(next, steps))
    program: Program | None = None
    while asked:
        behind = min(step.training.steps_done for step in asked.values())
        ready = {name: step for name, step in asked.items() if step.training.steps_done == behind}
        asked = {name: step for name, step in asked.items() if name not in ready}
        trainings = [step.training for step in ready.values()]
        started = time.perf_counter()
        try:
            if program is None or program.trainings != trainings:
                program = None  # its memory is free before the next one takes its own
                program = Program(trainings, width)
            losses = program.step([(step.inputs, step.labels) for step in ready.values()])
        except Exception as error:
            program, cause = None, _with_advice(error, width)
            for name in ready:
                yield from _go_on(asked, name, functools.partial(executions[name].throw, cause))
            continue
        seconds = (time.perf_counter() - started) / len(ready)
        for (name, step), loss in zip(ready.items(), losses, strict=False):
            step.training.train_seconds += seconds
            yield from _go_on(asked, name, functools.partial(executions[name].send, loss))


def _with_advice(error: Exception, width: int) -> Exception:
    if not isinstance(error, torch.OutOfMemoryError):
        return error
    first_line = str(error).partition("\n")[0]
    return torch.OutOfMemoryError(f"{first_line} (a program of {width} cells: give a smaller --cells-per-program)")


def _go_on(asked: dict[str, Step], name: str, advance: Callable[[], Step]) -> Iterator[tuple[str, T | Exception]]:
    """Let a cell go on until it asks for its next step, or ends."""
    try:
        asked[name] = advance()
    except StopIteration as end:
        yield name, end.value
    except Exception as error:
        yield name, error
