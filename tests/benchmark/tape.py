"""What a CUDA graph does, on the CPU: a recording of torch's operators, replayed from and into the same memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal")


class Tape(TorchDispatchMode):
    """A `benchmark.graphs.Recorder`. Numbers and the choice of tensors are those of the recording, as on a GPU.

    Unlike there, recording computes too. An operator that would wait for the device is an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, bool, list[Tensor]]] = []
        self.replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name() in WAITS:
            raise RuntimeError(f"{func.name()} waits for the device: it cannot be recorded")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, torch.is_grad_enabled(), _tensors(out)))
        return out

    def warming_up(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        with self:
            yield

    def replay(self) -> None:
        self.replays += 1
        with torch._C._AutoDispatchBelowAutograd():
            self._replay()

    def _replay(self) -> None:
        for func, args, kwargs, with_gradients, recorded in self.calls:
            with torch.set_grad_enabled(with_gradients):  # what an LSTM keeps for its backward pass depends on it
                again = _tensors(func(*args, **kwargs))
            for new, old in zip(again, recorded, strict=True):
                if (
                    new.data_ptr() != old.data_ptr()
                ):  # of a view, and of what changes in place, there is nothing to copy
                    old.copy_(new)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
