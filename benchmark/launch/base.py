"""What a launcher offers: it runs cells and chooses nothing about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from benchmark.spec import RunSpec

EventKind = Literal["started", "resumed", "epoch", "warning", "end"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """Where cells read and write, and how: the same for every worker of a grid, on whichever machine.

    Paths are absolute. device: cpu or cuda, or auto where the workers' machines decide. plugins: files
    that register what the specs name. processes_per_cell: that train one cell together; ranks_started:
    they were started with the command, by torchrun or srun, and not by the workers.
    """

    out: Path
    data_dir: Path
    device: str
    plugins: tuple[Path, ...] = ()
    accept_drift: bool = False
    retry_failed: bool = False
    processes_per_cell: int = 1
    ranks_started: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", self.out.resolve())
        object.__setattr__(self, "data_dir", self.data_dir.resolve())
        object.__setattr__(self, "plugins", tuple(path.resolve() for path in self.plugins))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        paths = {"out": str(self.out), "data_dir": str(self.data_dir), "plugins": [str(path) for path in self.plugins]}
        return plain | paths

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Work:
        paths = {"out": Path(plain["out"]), "data_dir": Path(plain["data_dir"])}
        return cls(**{**plain, **paths, "plugins": tuple(Path(path) for path in plain["plugins"])})


class LaunchError(Exception):
    """Cells cannot be launched as asked: one line that says why, and what to do."""

    exit_code = 2


@dataclass(frozen=True)
class Job:
    """A cell handed to a launcher."""

    run_id: str


@dataclass(frozen=True)
class Event:
    """Something that happened to a cell.

    A `resumed` carries the steps done before, an `epoch` the epoch's record, a `warning` its text,
    an `end` the outcome's status and error, and for a refused cell the exit code that goes with it.
    """

    run_id: str
    kind: EventKind
    payload: dict[str, Any] = field(default_factory=dict)


class Launcher(Protocol):
    """Cells go in by `submit`; `events` yields until all of them have ended. workers: processes at once.

    stop_says: what an interruption means here, for people.
    """

    workers: int
    stop_says: str

    def submit(self, specs: Sequence[RunSpec]) -> list[Job]: ...

    def events(self) -> Iterator[Event]: ...

    def stop(self) -> None:
        """Ask the cells at work to save their state and end; the rest is not begun."""
        ...

    def kill(self) -> None:
        """End everything at once."""
        ...
