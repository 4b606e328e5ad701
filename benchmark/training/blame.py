"""Whose code failed: a cell's method, model or data set, by name, file and line."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from benchmark import data, models
from benchmark.messages import describe, one_line
from benchmark.spec import RunSpec
from methods import Method, registry
from methods.plug_ins import PlugIns


def origins(spec: RunSpec) -> dict[str, str]:
    """Where the cell's plug-ins come from (`PlugIns.origin`), such as {"method mine": "mine.py, SHA-256 …"}.

    Raises ValueError for one that cannot be loaded.
    """
    found = {f"{kind} {name}": plug_ins.origin(name) for kind, name, plug_ins in _parts(spec)}
    return {part: origin for part, origin in found.items() if origin}


def described(error: BaseException, spec: RunSpec) -> str:
    """The error in one line, after the part of the cell whose code raised it, if it is one's."""
    files = _files(spec)
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if part := _part(frame, spec, files):
            where = f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}, line {line})"
            return one_line(f"{part}, {where}: {describe(error)}")
    return describe(error)


def _parts(spec: RunSpec) -> list[tuple[str, str, PlugIns]]:
    return [
        ("method", str(spec.method["name"]), registry.plug_ins),
        ("model", spec.model.name, models.plug_ins),
        ("data set", spec.data.name, data.plug_ins),
    ]


def _files(spec: RunSpec) -> dict[str, str]:
    """The source files of the cell's plug-ins, each with the plug-ins that it defines."""
    found: dict[str, str] = {}
    for kind, name, plug_ins in _parts(spec):
        try:
            file = _file(plug_ins.load(name))
        except ValueError:  # it cannot be loaded, which the error says
            file = ""
        if file:
            found[file] = f"{found[file]} or {kind} '{name}'" if file in found else f"{kind} '{name}'"
    return found


def _file(plug_in: Any) -> str:
    try:
        return "" if plug_in is None else inspect.getfile(plug_in)
    except TypeError:  # an object: the file of its class
        return inspect.getfile(type(plug_in))


def _part(frame: FrameType, spec: RunSpec, files: dict[str, str]) -> str:
    """The part of the cell that a frame belongs to; empty for the project's own and for libraries.

    A method that inherits a hook fails in the base's file, so methods are known by `self` as well.
    """
    import torch

    owner = frame.f_locals.get("self")
    if isinstance(owner, Method):
        return f"method '{spec.method['name']}'"
    part = files.get(frame.f_code.co_filename, "")
    return f"model '{spec.model.name}'" if part and isinstance(owner, torch.nn.Module) else part
