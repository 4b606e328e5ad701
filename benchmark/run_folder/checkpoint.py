"""Checkpoints: written atomically, in two generations, and loaded only if their checksum holds."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmark.messages import one_line
from benchmark.run_folder.attempts import steps_saved
from benchmark.run_folder.files import examine, read_bytes, sealed, write_atomic, write_json

GENERATIONS = 2
MANIFEST = {
    "run_id": str,
    "steps": int,
    "content_sha256": str,
    "metrics_bytes": int,
    "metrics_sha256": str,
    "environment": {"drift?": [str], "engine?": (str, dict)},
}


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: the training's state, the manifest, and the metrics until then."""

    state: dict[str, Any]
    manifest: dict[str, Any]
    metrics: bytes


def save(folder: Path, state: Mapping[str, Any], *, steps: int, metrics: bytes, **facts: Any) -> None:
    """Write a new generation and keep the last GENERATIONS.

    steps: optimizer steps done; they name the file. metrics: all metrics written so far; their
    length and checksum go into the manifest, which is written last. facts: run_id and environment,
    for the manifest.
    """
    buffer = io.BytesIO()
    torch.save(_on_its_own(state), buffer)
    content = buffer.getvalue()
    write_atomic(_data(folder, steps), content)
    manifest = {
        **facts,
        "steps": steps,
        "bytes": len(content),
        "content_sha256": hashlib.sha256(content).hexdigest(),
        "metrics_bytes": len(metrics),
        "metrics_sha256": hashlib.sha256(metrics).hexdigest(),
    }
    write_json(_manifest(folder, steps), sealed(manifest))
    for old in steps_saved(folder)[:-GENERATIONS]:
        remove(folder, old)


def _on_its_own(value: Any) -> Any:
    """The state with a copy of each tensor that is a slice of a larger one.

    The file would hold the larger tensor as a whole.
    """
    if isinstance(value, torch.Tensor):
        return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value
    if isinstance(value, Mapping):
        return {key: _on_its_own(inner) for key, inner in value.items()}
    return [_on_its_own(inner) for inner in value] if isinstance(value, list) else value


def remove(folder: Path, steps: int) -> None:
    """Delete one generation, manifest first."""
    _manifest(folder, steps).unlink(missing_ok=True)
    _data(folder, steps).unlink(missing_ok=True)


def remove_earlier(earlier: Iterable[Path], folder: Path) -> None:
    """Delete earlier attempts' checkpoints once this attempt's folder has all its generations."""
    if len(steps_saved(folder)) >= GENERATIONS:
        for before in earlier:
            for steps in steps_saved(before):
                remove(before, steps)


def latest(folders: Iterable[Path], *, run_id: str, warn: Callable[[str], None]) -> Checkpoint | None:
    """The good checkpoint with the most steps in any of the folders, or None.

    Each bad one is reported through `warn` and skipped; it is never unpickled. Raises OSError if the
    storage does not answer: then nothing is known about the checkpoint, and no steps may be lost.
    """
    found = sorted(((steps, folder) for folder in folders for steps in steps_saved(folder)), reverse=True)
    for steps, folder in found:
        try:
            return _read(folder, steps, run_id)
        except FileNotFoundError as error:
            reason = f"{error.filename} is missing"
        except OSError:
            raise
        except Exception as error:  # whatever is wrong with it, an older checkpoint may be good
            reason = one_line(str(error)) or type(error).__name__
        warn(f"checkpoint {_data(folder, steps)} is passed over: {reason}")
    return None


def _read(folder: Path, steps: int, run_id: str) -> Checkpoint:
    manifest, damage = examine(_manifest(folder, steps), MANIFEST, seal=True)
    if manifest is None:
        raise ValueError(damage or f"its manifest {_manifest(folder, steps).name} is missing")
    if manifest["run_id"] != run_id:
        raise ValueError(f"it belongs to cell {manifest['run_id']}")
    content = read_bytes(_data(folder, steps))
    _check("it", content, manifest["content_sha256"])
    metrics = read_bytes(folder / "metrics.jsonl")[: manifest["metrics_bytes"]]
    _check(f"{folder / 'metrics.jsonl'}", metrics, manifest["metrics_sha256"])
    state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return Checkpoint(state, manifest, metrics)


def _check(what: str, content: bytes, expected: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(f"{what} has SHA-256 {found[:12]}…, the manifest says {expected[:12]}…")


def _data(folder: Path, steps: int) -> Path:
    return folder / f"checkpoint-{steps:010d}.pt"


def _manifest(folder: Path, steps: int) -> Path:
    return folder / f"checkpoint-{steps:010d}.json"
