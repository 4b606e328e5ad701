"""What a method's training step costs: `python -m benchmark speed steps`.

Costs are ratios to dense steps that are timed in alternation. A pair is one dense step and one step
of the method on the same batch, right after each other; the next pair has the other order. Whatever
slows the machine for a while slows both and does not change their ratio. Each step is the training
loop's own, `benchmark.training.loop.train_step`.
"""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

import methods
from benchmark import models
from benchmark.commands.output import console, emit, show
from benchmark.commands.selection import resolve_device
from benchmark.spec import RunSpec, SpecError, check_names
from benchmark.speed.peak_memory import peak_bytes
from benchmark.speed.workloads import MODELS, FewBatches, load, spec_of
from benchmark.training import environment
from benchmark.training.engine import prepare_process
from benchmark.training.loop import Training, train_step
from benchmark.training.prepare import kernel_path
from methods import registry

SCHEMA = 1
Batch = tuple[Tensor, Tensor]
Arm = Any  # what is timed: a training, or a network

DEFAULT_MODELS = ("lenet-300-100", "lenet-5-caffe", "lstm-a")
WARM_UP_PAIRS, WARM_UP_SHARE = 10, 0.25
LEAST_PAIRS = 5
MEMORY_STEPS = 3
HOW = (
    "pairs of one dense step and one of the method on the same batch, in turns, in one process; "
    "quartiles of the pairs' ratios"
)
TEXT = ("model", "method", "command", "data")  # columns of names
KEPT = (
    "commit", "dirty", "python", "torch", "numpy", "cpus", "device", "device_name", "threads", "kernel_path",
    "deterministic_algorithms",
)  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """How much is timed for each model and method: at most `steps` pairs, for about `seconds`."""

    steps: int
    seconds: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.seconds):
            raise SpecError(f"--seconds {self.seconds}: it must be finite")


@dataclass(frozen=True)
class Quartiles:
    lower: float
    median: float
    upper: float


@dataclass(frozen=True)
class Pair:
    """A method on a model beside dense training. dense_seconds, method_seconds: medians of a step.

    dense_peak_bytes, method_peak_bytes: the most that a training holds, from its start through its
    first steps.
    """

    model: str
    method: str
    batch_size: int
    n: int
    ratio: Quartiles
    dense_seconds: float
    method_seconds: float
    dense_peak_bytes: int
    method_peak_bytes: int


def quartiles(values: Sequence[float]) -> Quartiles:
    """Quartiles of two or more values, interpolated, between the smallest and the largest value."""
    return Quartiles(*statistics.quantiles(values, n=4, method="inclusive"))


def paired_ratios(dense: Sequence[float], other: Sequence[float]) -> list[float]:
    """Each step's time divided by that of the dense step beside it; both of the same length."""
    return [b / a for a, b in zip(dense, other, strict=True)]


def speed(
    names: Sequence[str],
    chosen: Sequence[str],
    budget: Budget,
    device_name: str,
    json_output: bool,
    *,
    threads: int = 1,
) -> None:
    """Measure every model with every method and print it.

    threads: of both arms. Raises SpecError.
    """
    asked = list(dict.fromkeys(names or DEFAULT_MODELS)), list(dict.fromkeys(chosen or registry.own()))
    check_names(asked[0], MODELS, "model")
    check_names(asked[1], methods.available(), "method")
    device = torch.device(resolve_device(device_name))
    if threads > 1 and device.type != "cpu":
        raise SpecError(f"--threads {threads} is of a CPU's steps: leave it out on {device.type}")
    if threads > (os.cpu_count() or 1):
        raise SpecError(f"--threads {threads}: give at most {os.cpu_count()}, the cores of this machine")
    with prepared(device, threads):
        document = {"schema": SCHEMA, "how": HOW, "machine": machine_of(device), "budget": dataclasses.asdict(budget)}
        document["pairs"] = [dataclasses.asdict(pair) for pair in _measured(*asked, budget, device)]
    if json_output:
        emit(document)
    else:
        _print(document)


@contextmanager
def prepared(device: torch.device, threads: int = 1) -> Iterator[None]:
    """Prepare the process as a worker is, or with more threads; restores the number of threads."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as the launcher sets it
    before = torch.get_num_threads()
    prepare_process(device.type)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


def _measured(names: list[str], chosen: list[str], budget: Budget, device: torch.device) -> Iterator[Pair]:
    for model in names:
        for method in chosen:
            if sys.stderr.isatty():
                print(f"{model} {method}", file=sys.stderr)
            yield measure(model, method, budget, device)


def measure(model: str, method: str, budget: Budget, device: torch.device) -> Pair:
    """One method on one model. Raises SpecError if the budget is longer than the training."""
    dense_spec, spec = spec_of(model, "dense"), spec_of(model, method)
    few_batches = load(model, spec, device)
    batches = list(few_batches.train_batches(batch_size=spec.optimizer.batch_size, seed=0, epoch=0))
    # the first training on a GPU also includes the libraries' own memory
    _, *peaks = [_peak_bytes(of, few_batches, batches) for of in (dense_spec, dense_spec, spec)]
    dense, other = (training_of(of, few_batches) for of in (dense_spec, spec))
    longest = min(dense.attached.total_steps, other.attached.total_steps) - WARM_UP_PAIRS
    if budget.steps > longest:
        raise SpecError(f"--steps {budget.steps}: a training of {model} has room for {longest}")
    timed_pairs(dense, other, batches, Budget(WARM_UP_PAIRS, budget.seconds * WARM_UP_SHARE), least=1)
    dense_times, times = timed_pairs(dense, other, batches, budget, least=LEAST_PAIRS)
    return Pair(
        model=model,
        method=method,
        batch_size=spec.optimizer.batch_size,
        n=len(times),
        ratio=quartiles(paired_ratios(dense_times, times)),
        dense_seconds=statistics.median(dense_times),
        method_seconds=statistics.median(times),
        dense_peak_bytes=peaks[0],
        method_peak_bytes=peaks[1],
    )


def timed_pairs(
    dense: Arm,
    other: Arm,
    batches: Sequence[Batch],
    budget: Budget,
    *,
    least: int,
    seconds_of: Callable[[Any, Batch], float] | None = None,
) -> tuple[list[float], list[float]]:
    """Seconds of each dense step and of the other step next to it; their order alternates."""
    seconds_in: Callable[[Any, Batch], float] = seconds_of or _step_seconds
    arms = (dense, other)
    seconds: tuple[list[float], list[float]] = ([], [])
    started = time.perf_counter()
    while (n := len(seconds[0])) < budget.steps and (n < least or time.perf_counter() - started < budget.seconds):
        for arm in (0, 1) if n % 2 == 0 else (1, 0):
            seconds[arm].append(seconds_in(arms[arm], batches[n % len(batches)]))
    return seconds


def _step_seconds(training: Training, batch: Batch) -> float:
    wait_for(training.loss_sum.device)
    started = time.perf_counter()
    train_step(training, *batch)
    wait_for(training.loss_sum.device)
    return time.perf_counter() - started


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def training_of(spec: RunSpec, few_batches: FewBatches) -> Training:
    training = Training(spec, few_batches)
    training.model.train()
    models.start_epoch(training.model)
    return training


def _peak_bytes(spec: RunSpec, few_batches: FewBatches, batches: Sequence[Batch]) -> int:
    """The most that a training holds in its first steps, without its data."""

    def train() -> None:
        training = training_of(spec, few_batches)
        for batch in batches[:MEMORY_STEPS]:
            train_step(training, *batch)

    return peak_bytes(train, few_batches.device)


def machine_of(device: torch.device) -> dict[str, Any]:
    """The machine and the software of a measurement in this process."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else environment.cpu_name()
    described = environment.describe(
        device=device.type, device_name=name, threads=torch.get_num_threads(), kernel_path=kernel_path(device), data=""
    )
    determinism = torch.are_deterministic_algorithms_enabled()
    return {**{key: described[key] for key in KEPT}, "deterministic_algorithms": determinism}


def machine_line(machine: Mapping[str, Any]) -> str:
    """One line for people about what `machine_of` returns."""
    return (
        f"{machine['device_name']} ({machine['device']}), {machine['cpus']} CPUs, threads: {machine['threads']}, "
        f"torch {machine['torch']}, kernel path: {machine['kernel_path']}"
    )


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table without lines, names left, numbers right."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        if name in TEXT:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, no_wrap=True, justify="right")
    for one in rows:
        table.add_row(*one)
    return table


def _print(document: dict[str, Any]) -> None:
    machine, screen = document["machine"], console(json_output=False)
    columns = ("model", "method", "batch", "n", "ratio", "quartiles", "dense ms", "method ms", "memory")
    show(screen, plain_table(columns, map(row, document["pairs"])))
    for line in (
        machine_line(machine),
        document["how"],
        "memory: ratio of the most that is held at once in the first steps",
    ):
        screen.print(line, highlight=False, soft_wrap=True)


def row(pair: dict[str, Any]) -> list[str]:
    """One line of the table, from one of the document's pairs."""
    ratio = pair["ratio"]
    return [
        pair["model"],
        pair["method"],
        str(pair["batch_size"]),
        str(pair["n"]),
        f"{ratio['median']:.2f}",
        f"{ratio['lower']:.2f}-{ratio['upper']:.2f}",
        f"{1000 * pair['dense_seconds']:.2f}",
        f"{1000 * pair['method_seconds']:.2f}",
        f"{pair['method_peak_bytes'] / pair['dense_peak_bytes']:.2f}",
    ]
