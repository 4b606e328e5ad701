"""The promises whose checks need a compiler, or other processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from methods.conformance.training import NotApplicable, differing
from methods.conformance.trial import Check, Trial
from methods.conformance.ways import broken_at_a_step

PATIENCE_SECONDS = 300.0


def check_with_compile(trial: Trial) -> Iterator[str]:
    """The promises hold with a model that torch.compile has compiled, and it computes the same losses."""
    _require_compiler()
    torch._dynamo.reset()
    compiled = trial.in_way(wrap=torch.compile)
    yield from broken_at_a_step(compiled, plain=trial)
    if trial.random_outputs:
        return
    for step, moment in enumerate(compiled.moments):
        if step and abs(moment.loss - moment.plain_loss) > 1e-4 * max(1.0, abs(moment.plain_loss)):
            yield f"the compiled loss is {moment.loss:.6f}, and {moment.plain_loss:.6f} uncompiled, in step {step}"


def _require_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # torch raises a class of its own for a missing compiler
        raise NotApplicable(f"torch.compile finds no C++ compiler: {error}") from error


def check_same_run_in_another_process(trial: Trial) -> Iterator[str]:
    """A training in another process, with another seed of Python's string hashes, gives the same bits."""
    alone, last = _in_processes(trial)[1]["alone"], trial.moments[-1]
    if isinstance(alone, str):
        yield alone
        return
    if names := differing(last.masks, alone["masks"]) or differing(last.parameters, alone["parameters"]):
        yield f"{', '.join(names)} differ at the end: does a seed or an order depend on hash() or on a set?"


def check_with_distributed_data_parallel(trial: Trial) -> Iterator[str]:
    """Two processes that share the batches keep the promises, and hold the same masks and weights after every step."""
    first, second = (report["together"] for report in _in_processes(trial))
    for report in (first, second):
        if isinstance(report, str):
            yield report
            return
        yield from report["broken"]
    for step, (a, b) in enumerate(zip(first["moments"], second["moments"], strict=True)):
        if names := differing(a, b):
            yield f"{', '.join(names)} differ between two processes after step {step}"


def _in_processes(trial: Trial) -> list[dict[str, Any]]:
    """What two processes report, one per rank; started once for a trial."""
    if trial.reports is None:
        trial.reports = _run(trial)
    return trial.reports


def _run(trial: Trial) -> list[dict[str, Any]]:
    method = trial.make()
    job = _place(type(method)) | {"values": method.hyperparameters(), "network": trial.network.name}
    with tempfile.TemporaryDirectory() as folder:
        torch.save(job | {"path": sys.path}, Path(folder) / "job")
        with contextlib.ExitStack() as ending:
            started = [ending.enter_context(_ended(_start(folder, rank))) for rank in (0, 1)]
            _wait(started)
        for rank, process in enumerate(started):
            if not (Path(folder) / f"report{rank}").exists():
                raise RuntimeError(f"process {rank} ended with code {process.returncode}: {_last_line(folder, rank)}")
        return [torch.load(Path(folder) / f"report{rank}", weights_only=True) for rank in (0, 1)]


def _place(cls: type) -> dict[str, str]:
    """Where another process finds the class."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if "<locals>" in cls.__qualname__ or cls.__module__ == "__main__" or file is None:
        raise NotApplicable(f"another process cannot import {cls.__qualname__}: define it in a module")
    return {"module": cls.__module__, "file": str(Path(file).resolve()), "name": cls.__qualname__}


def _start(folder: str, rank: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONHASHSEED": str(rank + 1), "OMP_NUM_THREADS": "1"}
    with (Path(folder) / f"errors{rank}").open("wb") as errors:
        command = [sys.executable, "-m", "methods.conformance.one_process", folder, str(rank)]
        return subprocess.Popen(command, env=environment, stdout=errors, stderr=errors, cwd=Path(__file__).parents[2])


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait(started: list[subprocess.Popen[bytes]]) -> None:
    """Wait until all processes end, or one fails: the others would wait for it forever."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(process.poll() is None for process in started):
        if any(process.poll() for process in started):
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"two processes did not end within {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.05)


def _last_line(folder: str, rank: int) -> str:
    lines = (Path(folder) / f"errors{rank}").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


CHECKS: tuple[Check, ...] = (
    check_with_compile,
    check_same_run_in_another_process,
    check_with_distributed_data_parallel,
)
