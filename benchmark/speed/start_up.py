"""How long commands that train nothing take: `python -m benchmark speed start-up`.

Each command is a process of its own.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.commands.output import console, emit, show

SCHEMA = 1
REPEATS = 7
SUITE = ("run", "--suite", "digits", "--set", "optimizer.epochs=1")  # embedded data, every cell for one epoch
OTHER_STORES = ("BENCH_NO_MLFLOW", "MLFLOW_TRACKING_URI")  # as by default, the mirror is on and in the run folder
HOW = (
    "each command is started as a process of its own, in turns; seconds: wall time, quartiles; CPU seconds: user and "
    "system, children included, medians; the run folder holds the suite digits, one epoch a cell, done, "
    "and its MLflow mirror"
)
COLUMNS = ("command", "n", "seconds", "quartiles", "CPU seconds")


class MeasurementError(Exception):
    """What was timed did not end well, so its time says nothing."""

    exit_code = 1


def start_up(json_output: bool, repeats: int = REPEATS) -> None:
    """Measure the commands and print it. Raises MeasurementError."""
    import torch

    from benchmark.speed.steps import machine_of

    with tempfile.TemporaryDirectory(prefix="start-up-") as out:
        if sys.stderr.isatty():
            print("running the suite whose finished run is timed", file=sys.stderr)
        seconds_of((*SUITE, "--out", out))
        commands = [("--help",), ("list", "suites"), ("status", "--out", out), (*SUITE, "--out", out)]
        before = os.getloadavg()
        seconds_and_cpu = [[seconds_of(command) for command in commands] for _ in range(repeats)]
    document = {
        "schema": SCHEMA,
        "kind": "start-up",
        "how": HOW,
        "machine": machine_of(torch.device("cpu")),
        "load_before": before,
    }
    document["commands"] = [
        summary(" ".join("DIR" if word == out else word for word in command), [turn[at] for turn in seconds_and_cpu])
        for at, command in enumerate(commands)
    ]
    if json_output:
        emit(document)
    else:
        _print(document)


def seconds_of(arguments: Sequence[str]) -> tuple[float, float]:
    """(wall, CPU) seconds of `python -m benchmark` with these arguments.

    Raises MeasurementError where it fails.
    """
    cpu, started = _cpu_seconds(), time.perf_counter()
    command = [sys.executable, "-m", "benchmark", *arguments]
    default = {name: value for name, value in os.environ.items() if name not in OTHER_STORES}
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=default)
    seconds_and_cpu = time.perf_counter() - started, _cpu_seconds() - cpu
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MeasurementError(
            f"'python -m benchmark {' '.join(arguments)}' ended with code {done.returncode}: {reason}"
        )
    return seconds_and_cpu


def _cpu_seconds() -> float:
    """CPU seconds of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def summary(command: str, seconds_and_cpu: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """The document's row of a command."""
    from benchmark.speed.steps import quartiles

    seconds = dataclasses.asdict(quartiles([wall for wall, _ in seconds_and_cpu]))
    cpu = statistics.median(cpu for _, cpu in seconds_and_cpu)
    return {"command": command, "n": len(seconds_and_cpu), "seconds": seconds, "cpu_seconds": cpu}


def _print(document: Mapping[str, Any]) -> None:
    from benchmark.speed.steps import plain_table

    machine, screen = document["machine"], console(json_output=False)
    show(screen, plain_table(COLUMNS, map(row, document["commands"])))
    screen.print(f"{machine['device_name']}, {machine['cpus']} CPUs", highlight=False, soft_wrap=True)
    screen.print(document["how"], highlight=False, soft_wrap=True)


def row(command: Mapping[str, Any]) -> list[str]:
    """One line of the table, from one of the document's commands."""
    seconds = command["seconds"]
    spread = f"{seconds['lower']:.2f}-{seconds['upper']:.2f}"
    return [
        command["command"], str(command["n"]), f"{seconds['median']:.2f}", spread, f"{command['cpu_seconds']:.2f}",
    ]  # fmt: skip
