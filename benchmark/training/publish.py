"""How an attempt at a cell ended, and how its result becomes the cell's."""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmark import results
from benchmark.run_folder.files import read_sealed, sync_folder, write_atomic

Status = Literal["done", "diverged", "failed", "interrupted", "superseded", "busy"]


@dataclass(frozen=True)
class Outcome:
    """How one call of `execute` ended. error: the cause in one line."""

    status: Status
    error: str = ""


def publish(cell: Path, folder: Path, metrics: bytes) -> Outcome:
    """Make an attempt's result the cell's, unless another attempt was first; then that one stands.

    metrics.jsonl is written before the link that commits the result, and corrected to the winner's
    afterwards.
    """
    if read_sealed(cell / "result.json") is None:
        _set_aside_damaged(cell)
        write_atomic(cell / "metrics.jsonl", metrics)
        with contextlib.suppress(FileExistsError):
            os.link(folder / "result.json", cell / "result.json")
            sync_folder(cell)
    winner = read_sealed(cell / "result.json")
    assert winner is not None, "a linked result is whole"
    results.metrics(cell, winner)
    return Outcome(winner["status"], winner["error"])


def _set_aside_damaged(cell: Path) -> None:
    """Move a damaged result.json away; a good one that another worker put there meanwhile stays."""
    aside = cell / f"result.damaged-{uuid.uuid4().hex}.json"
    with contextlib.suppress(FileNotFoundError):
        (cell / "result.json").rename(aside)
        if read_sealed(aside) is not None:
            with contextlib.suppress(FileExistsError):
                os.link(aside, cell / "result.json")
            aside.unlink()
