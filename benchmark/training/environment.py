"""Where a cell ran: commit, versions, device, threads; and `drift`, what can change its bits."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmark.training import checkout

DECIDES_BITS = ("torch", "device", "device_name", "threads", "kernel_path", "engine", "data", "processes", "plug_ins")
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scikit-learn")


def describe(
    *,
    device: str,
    device_name: str,
    threads: int,
    kernel_path: str,
    data: str,
    processes: int = 1,
    engine: Mapping[str, bool] | None = None,
    plug_ins: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The environment of one attempt as plain values.

    kernel_path: what computes masked weights (`methods.kernels.path`). data: fingerprint of the
    data set's bytes. processes: how many train the cell together. engine: see
    `benchmark.training.engine`. plug_ins: where the cell's plug-ins come from, by kind and name.
    """
    versions = {name.replace("-", "_"): _version(name) for name in PACKAGES}
    return {
        **checkout.commit(),
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "host": platform.node(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": device,
        "device_name": device_name,
        "threads": threads,
        "processes": processes,
        "kernel_path": kernel_path,
        "engine": dict(engine or {}),
        "deterministic_algorithms": device != "cpu",
        "data": data,
        "plug_ins": dict(plug_ins or {}),
    }


def cpu_name() -> str:
    """The processor's model as the system names it, else `cpu`."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "cpu"


def drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between environments that can change bits, such as `threads: 1 -> 2`."""
    before, now = (_comparable(found) for found in (before, now))
    keys = [key for key in DECIDES_BITS if key in before and key in now]
    return [f"{key}: {before[key]} -> {now[key]}" for key in keys if before[key] != now[key]]


def _comparable(found: Mapping[str, Any]) -> dict[str, Any]:
    """An environment with texts in place of its mappings."""
    texts: dict[str, Callable[[Any], str]] = {"engine": _engine, "plug_ins": _plug_ins}
    return {key: texts[key](value) if key in texts else value for key, value in found.items()}


def _plug_ins(recorded: Mapping[str, str]) -> str:
    return "; ".join(f"{part} of {origin}" for part, origin in sorted(recorded.items())) or "none"


def _engine(recorded: str | Mapping[str, bool]) -> str:
    """The parts of an engine that are used, such as `channels_last+fused`.

    Earlier attempts recorded such a text.
    """
    used = recorded.split("+") if isinstance(recorded, str) else [name for name, on in recorded.items() if on]
    return "+".join(sorted(used))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
