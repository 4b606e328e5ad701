"""What the conformance checks see of random numbers: draws from generators, and the state of the global ones."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

SEEDING: tuple[tuple[Any, str], ...] = ((np.random, "default_rng"), (random.Random, "seed"))


class Draws(TorchFunctionMode):
    """Notes in `seen` whether torch draws from a generator that it is given, or another one is seeded with a number.

    `torch.manual_seed` in a fork of the global generator is not noticed: `methods.scoring` uses it too.
    """

    seen = False

    def __enter__(self) -> Any:
        self._patches = contextlib.ExitStack()
        for owner, name in SEEDING:
            self._patches.enter_context(mock.patch.object(owner, name, self._noting(getattr(owner, name))))
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        self._patches.close()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _noting(self, seeds: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(seeds)
        def noted(*args: Any, **kwargs: Any) -> Any:
            self.seen = self.seen or any(isinstance(value, int) for value in (*args, *kwargs.values()))
            return seeds(*args, **kwargs)

        return noted

    def __torch_function__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.seen = self.seen or any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values()))
        return func(*args, **kwargs)


def global_random_state() -> tuple[Any, ...]:
    """The state of the global generators of torch, NumPy and Python."""
    name, keys, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), np.asarray(keys).tobytes(), name, *rest
