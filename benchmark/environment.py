"""Where a cell ran: commit, versions, device, threads. What of it decides the bits is `drift`-checked."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DECIDES_BITS = ("torch", "device", "device_name", "threads", "kernel_path", "engine", "data", "processes")
BEFORE_RECORDED = {"engine": "plain"}
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scikit-learn")


def describe(
    *,
    device: str,
    device_name: str,
    threads: int,
    kernel_path: str,
    data: str,
    processes: int = 1,
    engine: str = "plain",
) -> dict[str, Any]:
    """The environment of one attempt as plain values.

    kernel_path: of the masked weights (`methods.kernels.path`). data: fingerprint of the data set's bytes.
    processes: that train the cell together. engine: of `benchmark.engine`.
    """
    versions = {name.replace("-", "_"): _version(name) for name in PACKAGES}
    return {
        **commit(),
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
        "engine": engine,
        "deterministic_algorithms": device != "cpu",
        "data": data,
    }


def commit() -> dict[str, Any]:
    """{commit, dirty} of the source tree, new source files counted; None where it is no git checkout of ours."""
    folder = Path(__file__).resolve().parent.parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("rev-parse", "--show-toplevel") != str(folder):
        return {"commit": None, "dirty": None}
    changes = git("status", "--porcelain", "--", "methods", "benchmark", "analysis", "pyproject.toml")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def cpu_name() -> str:
    """The processor's model, as the system names it; `cpu` where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "cpu"


def drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two environments and decides the bits: `threads: 1 -> 2`."""
    known = {**BEFORE_RECORDED, **before}
    keys = [key for key in DECIDES_BITS if key in known and key in now]
    return [f"{key}: {known[key]} -> {now[key]}" for key in keys if known[key] != now[key]]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
