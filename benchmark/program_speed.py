"""What cells gain by training side by side: `python -m benchmark speed --cells-per-program N`.

A pair is one step of N cells one after another, as a worker alone takes them, and one step of the program of all N on
the same batches, right after it; the next pair takes them in the other order.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import methods
from benchmark.excerpt import MODELS, load, spec_of
from benchmark.program import Program, check_company
from benchmark.progress import console
from benchmark.selection import check_cuda_graphs, resolve_device
from benchmark.spec import check_names
from benchmark.speed import (
    SCHEMA,
    WARM_UP_PAIRS,
    WARM_UP_SHARE,
    Batch,
    Budget,
    Quartiles,
    machine_line,
    machine_of,
    paired_ratios,
    plain_table,
    prepared,
    quartiles,
    timed_pairs,
    training_of,
    wait_for,
)
from benchmark.train import Training, train_step
from benchmark.views import emit

DEFAULT_MODELS = ("lenet-300-100",)
DEFAULT_METHODS = ("dense", "static", "dst")
LEAST_PAIRS = 3
HOW = (
    "pairs of one step of so many cells one after another and of one program of them, on the same batches, in turns, "
    "in one process; gain: of the first's time over the second's, with the quartiles of the pairs"
)
COLUMNS = ("model", "method", "cells", "batch", "n", "gain", "quartiles", "alone ms", "program ms")
Arm = Program | list[Training]


@dataclass(frozen=True)
class Gain:
    """Cells side by side beside the same one after another. seconds: of one cell's step, medians."""

    model: str
    method: str
    cells: int
    batch_size: int
    n: int
    gain: Quartiles
    alone_seconds: float
    program_seconds: float


def gains(
    names: Sequence[str],
    chosen: Sequence[str],
    cells: int,
    budget: Budget,
    device_name: str,
    json_output: bool,
    *,
    cuda_graphs: bool = False,
) -> None:
    """Measure every model with every method and print it. cuda_graphs: of both arms. Raises SpecError."""
    asked = list(dict.fromkeys(names or DEFAULT_MODELS)), list(dict.fromkeys(chosen or DEFAULT_METHODS))
    check_names(asked[0], MODELS, "model")
    check_names(asked[1], methods.available(), "method")
    device = torch.device(resolve_device(device_name))
    check_cuda_graphs(cuda_graphs, device.type)
    with prepared(device):
        rows = [
            dataclasses.asdict(measure(model, method, cells, budget, device, cuda_graphs=cuda_graphs))
            for model in asked[0]
            for method in asked[1]
        ]
        document = {"schema": SCHEMA, "kind": "programs", "how": HOW, "machine": machine_of(device)}
    document |= {"cuda_graphs": cuda_graphs, "programs": rows}
    (emit if json_output else _print)(document)


def measure(
    model: str, method: str, cells: int, budget: Budget, device: torch.device, *, cuda_graphs: bool = False
) -> Gain:
    """One method on one model. Raises SpecError where such cells train alone."""
    spec = spec_of(model, method)
    check_company(spec)
    excerpt = load(model, spec, device)
    specs = [dataclasses.replace(spec, seed=seed) for seed in range(cells)]
    batches = list(excerpt.train_batches(batch_size=spec.optimizer.batch_size, seed=0, epoch=0))
    alone = [training_of(of, excerpt, cuda_graphs) for of in specs]
    program = Program([training_of(of, excerpt, cuda_graphs) for of in specs], cells)
    arms = {"seconds_of": _step_seconds}
    timed_pairs(alone, program, batches, Budget(WARM_UP_PAIRS, budget.seconds * WARM_UP_SHARE), least=1, **arms)
    one_by_one, together = timed_pairs(alone, program, batches, budget, least=LEAST_PAIRS, **arms)
    return Gain(
        model=model,
        method=method,
        cells=cells,
        batch_size=spec.optimizer.batch_size,
        n=len(together),
        gain=quartiles(paired_ratios(together, one_by_one)),
        alone_seconds=statistics.median(one_by_one) / cells,
        program_seconds=statistics.median(together) / cells,
    )


def _step_seconds(arm: Arm, batch: Batch) -> float:
    device = batch[1].device
    wait_for(device)
    started = time.perf_counter()
    if isinstance(arm, Program):
        arm.step([batch] * len(arm.trainings))
    else:
        for training in arm:
            train_step(training, *batch)
    wait_for(device)
    return time.perf_counter() - started


def _print(document: Mapping[str, Any]) -> None:
    screen = console(json_output=False)
    screen.print(plain_table(COLUMNS, map(row, document["programs"])))
    graphs = "; passes replayed as CUDA graphs" if document["cuda_graphs"] else ""
    screen.print(machine_line(document["machine"]), document["how"] + graphs, sep="\n", highlight=False, soft_wrap=True)


def row(gain: Mapping[str, Any]) -> list[str]:
    """One line of the table, from one of the document's programs."""
    quarters = gain["gain"]
    return [
        *(str(gain[key]) for key in ("model", "method", "cells", "batch_size", "n")),
        f"{quarters['median']:.2f}",
        f"{quarters['lower']:.2f}-{quarters['upper']:.2f}",
        f"{1000 * gain['alone_seconds']:.2f}",
        f"{1000 * gain['program_seconds']:.2f}",
    ]
