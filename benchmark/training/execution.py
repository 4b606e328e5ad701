"""How cells are run: one value for all cells of a grid, from the command line to the training."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from benchmark.messages import shown
from benchmark.spec import SpecError

CHECKPOINT_SECONDS = 30.0
CHECKPOINT_VARIABLE = "BENCH_CHECKPOINT_SECONDS"
CHECKPOINT_SHARE = 0.02
LONGEST_SECONDS = 1e9
MaskedLayers = Literal["dense", "sparse", "auto"]


def given_checkpoint_seconds(environment: Mapping[str, str] = os.environ) -> float | None:
    """The value of BENCH_CHECKPOINT_SECONDS; None without it. Raises SpecError."""
    text = environment.get(CHECKPOINT_VARIABLE)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise SpecError(
            f"{CHECKPOINT_VARIABLE} is {shown(text)} in the environment: it must be seconds from 0 to "
            f"{LONGEST_SECONDS:.0e}, or unset it"
        )
    return seconds


def masked_layers(name: str) -> MaskedLayers:
    """The value of `--execution`. Raises SpecError for another name."""
    if name not in (valid := get_args(MaskedLayers)):
        raise SpecError(f"--execution {shown(name)}: valid are {', '.join(valid)}")
    return cast(MaskedLayers, name)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Where cells read and write, and how they run; no part of a cell's identity.

    out: the run folder. device: cpu or cuda; auto where the workers' machines decide. processes:
    how many train one cell together. processes_started: torchrun or srun started these processes
    with the command, not the worker. accept_drift: resume cells in a changed environment.
    retry_failed: run failed cells again. masked_layers: how these compute, the `execution` of
    `methods.attach`. plugins: the user's files, and modules of installed packages, that register
    what the specs name. checkpoint_seconds: between two checkpoints; None: see
    `seconds_to_next_checkpoint`.
    """

    out: Path
    data_dir: Path
    device: str = "cpu"
    processes: int = 1
    processes_started: bool = False
    accept_drift: bool = False
    retry_failed: bool = False
    masked_layers: MaskedLayers = "dense"
    plugins: tuple[Path | str, ...] = ()
    checkpoint_seconds: float | None = None

    def cell(self, run_id: str) -> Path:
        """The folder of one cell."""
        return self.out / "cells" / run_id

    def seconds_to_next_checkpoint(self, cost_seconds: float) -> float:
        """How long to train after a checkpoint that took `cost_seconds` to write.

        `checkpoint_seconds` if given, else the variable BENCH_CHECKPOINT_SECONDS, else
        CHECKPOINT_SECONDS or as long as keeps the cost of checkpoints under CHECKPOINT_SHARE of the
        training.
        """
        if self.checkpoint_seconds is not None:
            return self.checkpoint_seconds
        if (given := given_checkpoint_seconds()) is not None:
            return given
        return max(CHECKPOINT_SECONDS, cost_seconds / CHECKPOINT_SHARE)

    def absolute(self) -> Execution:
        """The same with absolute paths, for processes that may run in another folder."""
        plugins = tuple(plugin.resolve() if isinstance(plugin, Path) else plugin for plugin in self.plugins)
        return dataclasses.replace(self, out=self.out.resolve(), data_dir=self.data_dir.resolve(), plugins=plugins)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        paths = {"out": str(self.out), "data_dir": str(self.data_dir)}
        return plain | paths | {"plugins": [str(plugin) for plugin in self.plugins]}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Execution:
        paths = {"out": Path(plain["out"]), "data_dir": Path(plain["data_dir"])}
        plugins = tuple(Path(plugin) if plugin.endswith(".py") else plugin for plugin in plain["plugins"])
        return cls(**{**plain, **paths, "plugins": plugins})
