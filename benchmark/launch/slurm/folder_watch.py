"""Events of cells, read from their run folder, for workers that run on other machines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.launch.base import Event
from benchmark.launch.slurm.jobs import resumed_at_step
from benchmark.run_folder.attempts import ended, folder_of, numbers
from benchmark.run_folder.files import read_bytes, read_json
from benchmark.run_folder.result import records, result_of
from benchmark.spec import RunSpec

FINAL = ("failed", "cancelled")


@dataclass
class _Seen:
    """How much of a cell has been reported. before: its newest attempt when the watch began."""

    spec: RunSpec
    before: int
    attempt: int
    epoch: int = 0
    offset: int = 0


class FolderWatch:
    """Events of cells since the watch was made; of older attempts only their epochs."""

    def __init__(self, out: Path, specs: Sequence[RunSpec]) -> None:
        self._out = out
        self._cells: dict[str, _Seen] = {}
        for spec in specs:
            newest = max(numbers(self._cell(spec.run_id)), default=0)
            self._cells[spec.run_id] = _Seen(spec, before=newest, attempt=newest)

    @property
    def open(self) -> list[str]:
        """Ids of the cells whose end has not been reported."""
        return list(self._cells)

    def is_open(self, run_id: str) -> bool:
        """Whether the cell's end has not been reported."""
        return run_id in self._cells

    def close(self, run_id: str) -> None:
        """Report nothing more about this cell."""
        self._cells.pop(run_id, None)

    def poll(self) -> Iterator[Event]:
        """What has happened since the last call. Raises OSError after the other cells if one cannot be read."""
        problem: OSError | None = None
        for run_id, seen in list(self._cells.items()):
            try:
                yield from self._news(run_id, seen)
            except OSError as error:
                problem = error
        if problem is not None:
            raise problem

    def _news(self, run_id: str, seen: _Seen) -> Iterator[Event]:
        newest = max(numbers(self._cell(run_id)), default=0)
        if newest == 0:
            return
        folder = folder_of(self._cell(run_id), newest)
        end = self._end(run_id, folder if newest > seen.before else None)  # before its last records are read
        yield from self._begun(run_id, seen, newest, folder)
        yield from self._epochs(run_id, seen)
        if end is not None:
            self.close(run_id)
            yield end

    def _cell(self, run_id: str) -> Path:
        return self._out / "cells" / run_id

    def _begun(self, run_id: str, seen: _Seen, newest: int, folder: Path) -> Iterator[Event]:
        if newest > seen.attempt and read_json(folder / "environment.json", dict) is not None:
            seen.attempt, seen.offset = newest, 0
            yield Event(run_id, "started")
            if steps := resumed_at_step(folder):
                yield Event(run_id, "resumed", {"resumed": steps})

    def _epochs(self, run_id: str, seen: _Seen) -> Iterator[Event]:
        try:
            path = folder_of(self._cell(run_id), seen.attempt) / "metrics.jsonl"
            content = read_bytes(path, start=seen.offset)
        except (FileNotFoundError, ValueError):
            return
        whole = content[: content.rfind(b"\n") + 1]
        seen.offset += len(whole)
        for record in _sound(whole, path):
            if "train_seconds" in record and record["epoch"] > seen.epoch:
                seen.epoch = record["epoch"]
                yield Event(run_id, "epoch", {"epochs": seen.spec.optimizer.epochs, **record})

    def _end(self, run_id: str, attempt: Path | None) -> Event | None:
        result = result_of(self._cell(run_id))
        if result is not None:
            return Event(run_id, "end", {"status": result["status"], "error": result["error"]})
        end = ended(attempt) if attempt is not None else None
        if end is not None and end.get("code") is not None:
            return Event(run_id, "end", {"status": "refused", "error": end["error"], "code": end["code"]})
        if end is not None and end["status"] in FINAL:
            return Event(run_id, "end", {"status": end["status"], "error": end["error"]})
        return None


def _sound(content: bytes, path: Path) -> Iterator[dict[str, Any]]:
    """The records before the first that is damaged; the cell's own worker reports that one."""
    with contextlib.suppress(ValueError):
        yield from records(content, path)
