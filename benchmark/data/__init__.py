"""Data sets, checked before they are parsed: those of this package, registered and installed ones.

They are held as uint8 tensors on the device, or read by loader processes. torch is imported where
it is used, so that `list data` answers at once. docs/plug-ins.md says what a plug-in has to be.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchmark.data.catalogue import DESCRIPTIONS, DataError, Source
from benchmark.spec import Data, SpecError, check_names
from methods.plug_ins import PlugIns

if TYPE_CHECKING:
    import torch

    from benchmark.data.tensors import Dataset

__all__ = ["DataError", "available", "describe", "fetch", "fingerprint", "load", "register", "verify"]
plug_ins = PlugIns(
    "data set",
    group="sparse_training.datasets",
    own=lambda name: _module(name) if name in DESCRIPTIONS else None,
    form="package.module:read",
    whole_module=True,
)
register = plug_ins.register


def available() -> list[str]:
    """The names that `Data.name` may have."""
    return sorted({*DESCRIPTIONS, *plug_ins.names()})


def describe() -> dict[str, str]:
    """One line for each name; plug-ins are imported for it."""
    return dict(sorted({**DESCRIPTIONS, **plug_ins.describe()}.items()))


def load(spec: Data, *, data_dir: Path, device: torch.device) -> Dataset:
    """The data of one cell, on the device: limits, validation split and statistics applied.

    Raises SpecError for an unknown name or a field that does not fit the data, and DataError
    for files that are missing or corrupt; never puts other data in their place. ValueError for a
    plug-in that cannot be loaded or whose examples are not as they have to be.
    """
    source = _source(spec.name)
    for field, owner in (
        ("shape", "synthetic"),
        ("classes", "synthetic"),
        ("image_size", "imagenet"),
        ("normalization", "cifar10"),
    ):
        if spec.name != owner and getattr(spec, field) is not None:
            raise SpecError(f"data.{field} is of {owner} data only: leave it out for '{spec.name}'")
    return source.read(spec, data_dir).dataset(spec, device=device)


def fetch(name: str, data_dir: Path) -> None:
    """Put the files of `name` into data_dir unless they are there already, and check them.

    Raises DataError saying which files to put where, also without a network; SpecError for an
    unknown name.
    """
    _source(name).fetch(data_dir)


def verify(name: str, data_dir: Path) -> list[str]:
    """One line per file of `name` if all are good. Raises DataError for the first that is not."""
    return _source(name).verify(data_dir)


def fingerprint(name: str, data_dir: Path) -> str:
    """A digest of the bytes that `name` reads, however the files are packed. Raises DataError."""
    return _source(name).fingerprint(data_dir)


def _source(name: str) -> Source:
    check_names([name], available(), "data")
    if name in DESCRIPTIONS:
        return cast(Source, importlib.import_module(_module(name)))
    from benchmark.data.plugged_in import PluggedIn

    return PluggedIn(name, plug_ins.load(name))


def _module(name: str) -> str:
    return f"benchmark.data.{name.replace('-', '_')}"
