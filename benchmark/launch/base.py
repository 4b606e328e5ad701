"""What a launcher offers: it runs cells and chooses nothing about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from benchmark.spec import RunSpec

EventKind = Literal["started", "resumed", "epoch", "warning", "end"]


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
    """Cells go in by `submit`; `events` yields until all of them have ended."""

    def submit(self, specs: Sequence[RunSpec]) -> list[Job]: ...

    def events(self) -> Iterator[Event]: ...

    def stop(self) -> None:
        """Ask the cells at work to save their state and end; the rest is not begun."""
        ...

    def kill(self) -> None:
        """End everything at once."""
        ...
