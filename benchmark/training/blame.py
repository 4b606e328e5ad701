"""Finds out whose code raised an error: a cell's method, model or data set, by name, file and line."""

from __future__ import annotations

import contextlib
import inspect
from types import FrameType
from typing import Any

from torch import nn

from benchmark import data, models
from benchmark.messages import describe, one_line
from benchmark.spec import RunSpec
from methods import Method, registry
from methods.plug_ins import PlugIns, innermost

HINTS = {  # what to do about an error of torch's, by what it says
    "Expected more than 1 value per channel when training": (
        " (the last batch or micro-batch has one example: change optimizer.batch_size or data.train_limit)"
    ),
}


def origins(spec: RunSpec) -> dict[str, str]:
    """Where the cell's plug-ins come from (`PlugIns.origin`), such as {"method mine": "mine.py, SHA-256 …"}.

    Raises ValueError for one that cannot be loaded.
    """
    found = {f"{kind} {name}": plug_ins.origin(name) for kind, name, plug_ins in _parts(spec)}
    return {part: origin for part, origin in found.items() if origin}


def described(error: BaseException, spec: RunSpec) -> str:
    """The error in one line. Where a plug-in's code raised it, its name, file and line come first."""
    known = _sources(spec)
    part, where = innermost(error, lambda frame: _part(frame, spec, known))
    said = f"{part}, {where}: {describe(error)}" if part else describe(error)
    return one_line(said + "".join(hint for text, hint in HINTS.items() if text in said))


def _parts(spec: RunSpec) -> list[tuple[str, str, PlugIns]]:
    return [
        ("method", str(spec.method["name"]), registry.plug_ins),
        ("model", spec.model.name, models.plug_ins),
        ("data set", spec.data.name, data.plug_ins),
    ]


def _sources(spec: RunSpec) -> dict[Any, str]:
    """The code of plug-ins that are functions, and the files of all plug-ins, with what each defines."""
    found: dict[Any, str] = {}
    for kind, name, plug_ins in _parts(spec):
        try:
            plug_in = plug_ins.load(name)
        except ValueError:  # the error says so itself
            continue
        file, part = _file(plug_in), f"{kind} '{name}'"
        found[file] = f"{found[file]} or {part}" if file in found else part
        found[getattr(plug_in, "__code__", None)] = part
    return {source: part for source, part in found.items() if source}


def _file(plug_in: Any) -> str:
    """The file of a class or function, or of an object's class; empty where there is none."""
    for found in (plug_in, type(plug_in)):
        with contextlib.suppress(TypeError, OSError):
            return inspect.getfile(found)
    return ""


def _part(frame: FrameType, spec: RunSpec, known: dict[Any, str]) -> str:
    """The plug-in that a frame belongs to; empty for frames of this project and of libraries.

    Code that a plug-in inherits lies in another file, so the frame's `self` is looked at as well.
    """
    owner = frame.f_locals.get("self")
    if isinstance(owner, Method):
        return f"method '{spec.method['name']}'"
    part = known.get(frame.f_code) or known.get(frame.f_code.co_filename) or known.get(_file(owner), "")
    return f"model '{spec.model.name}'" if part and isinstance(owner, nn.Module) else part
