"""The passes of a training step as one CUDA graph: recorded once, then replayed by one call.

Recorded are a whole batch's forward pass, loss, penalty and backward pass. Hooks, masks, counts and the
optimizer run outside, as they do without a graph. A replay computes in the memory of the recording: the
model's parameters and buffers, and a batch, gradients and a loss of the graph's own. So a graph serves
as long as those tensors change in place alone: until a method's next phase, or until a state is loaded.

Only `CudaGraph` needs a GPU. What it does there has not been tried yet: *not measured*.
"""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

WARM_UP_PASSES = 3

Passes = Callable[[Tensor, Tensor], Tensor]


class Owner(Protocol):
    """What the passes compute with: a model, or several as one."""

    def parameters(self) -> Iterable[nn.Parameter]: ...

    def buffers(self) -> Iterable[Tensor]: ...


class Recorder(Protocol):
    """Notes what is computed while it records, and computes it anew from and into the same memory."""

    def warming_up(self) -> contextlib.AbstractContextManager[object]:
        """Around the same computations before: compilers, libraries and allocators begin in them."""

    def recording(self) -> contextlib.AbstractContextManager[object]: ...

    def replay(self) -> None: ...


class CudaGraph:
    """Records on a GPU, where nothing is computed meanwhile; follows `Recorder`.

    Random numbers of a replay are those of the same passes without a graph: torch's default generator is
    known to every graph, a recording does not move it, a replay does. Warm-up and recording share a stream,
    as libraries keep handles and workspaces for each; one a process, or they would pile up.
    """

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    @contextlib.contextmanager
    def warming_up(self) -> Iterator[None]:
        here, aside = torch.cuda.current_stream(), _side_stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            yield
        here.wait_stream(aside)

    def recording(self) -> contextlib.AbstractContextManager[object]:
        gc.collect()  # the graph of the cell before is held by cycles of references, and with it all its memory
        return torch.cuda.graph(self._graph, stream=_side_stream())

    def replay(self) -> None:
        self._graph.replay()


@functools.cache
def _side_stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


class StepGraph:
    """Passes over batches of one shape, recorded with the first of them. Called, it is what it recorded.

    passes: puts a batch's gradients where the parameters have none, and returns its loss, detached.
    The gradients that a call leaves are the graph's own: the next call overwrites them, whoever has dropped
    or replaced them.
    """

    def __init__(self, passes: Passes, model: Owner, inputs: Tensor, labels: Tensor, recorder: Recorder) -> None:
        self._recorder = recorder
        self._inputs, self._labels = inputs.clone(), labels.clone()
        self._parameters = list(model.parameters())
        with without_trace(model):
            with recorder.warming_up():
                for _ in range(WARM_UP_PASSES):
                    passes(self._inputs, self._labels)
                    give_gradients(self._parameters, [None] * len(self._parameters))
            with recorder.recording():
                self._loss = passes(self._inputs, self._labels)
            self._gradients = [parameter.grad for parameter in self._parameters]

    def __call__(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Replace the parameters' gradients by those of the batch; its loss, detached."""
        self._inputs.copy_(inputs)
        self._labels.copy_(labels)
        self._recorder.replay()
        give_gradients(self._parameters, self._gradients)
        return self._loss.clone()


@contextlib.contextmanager
def without_trace(model: Owner) -> Iterator[None]:
    """Passes may run within, from no gradients; gradients, buffers and random numbers are as before after it."""
    parameters, buffers = list(model.parameters()), list(model.buffers())
    gradients = [parameter.grad for parameter in parameters]
    values = [buffer.clone() for buffer in buffers]
    give_gradients(parameters, [None] * len(parameters))
    devices = {parameter.device for parameter in parameters if parameter.is_cuda}
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        give_gradients(parameters, gradients)
        restore_(buffers, values)


def give_gradients(parameters: Iterable[nn.Parameter], gradients: Iterable[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


@torch.no_grad()
def restore_(buffers: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    """Give a model's buffers, such as batch normalisation's running statistics, these values in place."""
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)
