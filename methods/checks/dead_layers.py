"""Warnings that name layers which their thresholds prune entirely, so that they cannot train."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

RUN = 10  # resets in consecutive steps that are worth a warning
CPU_PERIOD, PERIOD = 20, 100  # steps between two looks at the count of resets; elsewhere a look waits for the device
ADVICE = (
    "A weight of 0 at a threshold of 0 is pruned and gets no gradient. Start the layer from other values, exclude "
    "it (exclude=[...]), or, for dst, let thresholds start below 0 (initial_threshold=-1e-4)"
)


def warn_of_zeros(kept: Mapping[str, int], limits: Mapping[str, float]) -> None:
    """Name the layers that keep nothing, or fewer weights than their limit, before the first step."""
    dead = [name for name, count in kept.items() if count == 0 or count < limits.get(name, 0)]
    if dead:
        warnings.warn(
            f"{', '.join(dead)}: (almost) all weights are 0, so the layer never trains. {ADVICE}", stacklevel=2
        )


class ResetWatch:
    """Names, once, each layer whose thresholds are reset in ten consecutive steps.

    It looks at the number of resets in every 20th step on the CPU, and in every 100th step
    elsewhere, because reading it waits for the device. Where the number grew, `watching` is true, and the
    caller says before each update which layers are about to be reset.
    """

    def __init__(self, names: Sequence[str], *, device: torch.device, waits: bool | None = None) -> None:
        """waits: whether reading a number waits for the device; by default true but on the CPU."""
        waits = device.type != "cpu" if waits is None else waits
        self.watching = False
        self._names = list(names)
        self._named: set[str] = set()
        self._look_every, self._read_every = (PERIOD, RUN) if waits else (CPU_PERIOD, 1)
        self._updates = self._seen = self._watched = 0
        self._runs = torch.zeros(len(self._names), dtype=torch.int64, device=device)

    def note(self, empty: Tensor) -> None:
        """Before an update, while watching. empty: bool [layers], the layers that it will reset."""
        self._runs = torch.where(empty, self._runs + 1, 0)
        self._watched += 1
        if self._watched % self._read_every == 0:
            runs = self._runs.tolist()
            self.watching = any(runs)
            self._warn([name for name, run in zip(self._names, runs, strict=True) if run >= RUN])

    def after_update(self, resets: Tensor) -> None:
        """After every update. resets: 0-dim int64, the number of resets so far."""
        self._updates += 1
        if self._updates % self._look_every == 0:
            total = int(resets)
            self.watching |= total > self._seen
            self._seen = total

    def _warn(self, names: Sequence[str]) -> None:
        new = [name for name in names if name not in self._named]
        self._named.update(new)
        if new:
            warnings.warn(
                f"{', '.join(new)}: thresholds were reset in {RUN} consecutive steps. Where alpha times the learning "
                f"rate is too large for the weights, lower it. {ADVICE}",
                stacklevel=2,
            )
