"""The interface of launchers. They run cells and decide nothing about how a cell trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from benchmark.spec import RunSpec

EventKind = Literal["started", "waiting", "resumed", "epoch", "warning", "end"]


class LaunchError(Exception):
    """Cells cannot be launched as requested: one line that says why, and what to do."""

    exit_code = 2


@dataclass(frozen=True)
class Job:
    """A cell handed to a launcher."""

    run_id: str


@dataclass(frozen=True)
class Event:
    """Something that happened to a cell; `waiting`: another process trains it.

    Payloads: `resumed` has the number of steps done before, `epoch` the epoch's record, `warning`
    its text, `end` the outcome's status and error, and for a refused cell its exit code.
    """

    run_id: str
    kind: EventKind
    payload: dict[str, Any] = field(default_factory=dict)


class Launcher(Protocol):
    """Cells are handed over with `submit`; `events` yields until all of them have ended.

    workers: cells at once. stop_message: what an interruption does, for people.
    """

    workers: int
    stop_message: str

    def submit(self, specs: Sequence[RunSpec]) -> list[Job]: ...

    def events(self) -> Iterator[Event]: ...

    def stop(self) -> None:
        """Ask running cells to save their state and end; start no others."""
        ...

    def kill(self) -> None:
        """End everything at once."""
        ...
