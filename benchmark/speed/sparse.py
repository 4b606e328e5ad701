"""What sparse execution saves on a CPU: `python -m benchmark speed sparse`.

First come networks of Linear layers with random masks (`static`), trained by SGD with momentum on
batches of 64. A masked step and a step with kept weights only are each compared with a dense step.
Then come single layers of many shapes, batch sizes and densities, from which
`attach(execution="auto")` chooses. Ratios are those of pairs, as in `benchmark.speed.steps`. A single
layer gets a tenth of the time of a network.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from benchmark.commands.output import console, emit, show
from benchmark.spec import SpecError
from benchmark.speed.steps import (
    LEAST_PAIRS,
    WARM_UP_PAIRS,
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
)
from methods.attachment import Attachment

SCHEMA = 1
NETWORKS = ((784, 300, 100, 10), (1024, 4096, 1024))
NETWORK_DENSITIES = (0.1, 0.05, 0.02, 0.01)
BATCH = 64
SHAPES = ((10, 100), (100, 300), (300, 784), (256, 256), (1024, 1024), (4096, 1024), (1024, 4096))  # rows, columns
EXAMPLES = (1, 16, 64, 256)
DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
HOW = (
    "pairs of one dense step and one of another kind on the same batch, in turns, in one process; SGD with momentum; "
    "quartiles of the pairs' ratios. csr: forward and backward only, as torch's optimizers refuse such a weight"
)
FIELDS = ("rows", "columns", "examples", "density", "dense_ms", "masked", "sparse", "csr")
Step = Callable[[Tensor, Tensor], object]


@dataclass(frozen=True)
class NetworkRow:
    """One network at one density.

    dense_seconds: median of a dense step. masked, sparse: ratios to it. memory_*: bytes of weights,
    gradients, momentum and the record of which weights are kept, as shares of dense training's.
    """

    network: str
    density: float
    n: int
    dense_seconds: float
    masked: Quartiles
    sparse: Quartiles
    memory_masked: float
    memory_sparse: float


def sparse(budget: Budget, threads: int, table: Path | None, json_output: bool) -> None:
    """Measure and print. table: a CSV file for the single layers' ratios, too. Raises SpecError."""
    device = torch.device("cpu")
    with prepared(device, threads):
        document: dict[str, Any] = {"schema": SCHEMA, "kind": "sparse", "how": HOW, "machine": machine_of(device)}
        document["budget"] = dataclasses.asdict(budget)
        document["networks"] = [dataclasses.asdict(row) for row in _networks(budget)]
        document["layers"] = list(_layers(Budget(budget.steps, budget.seconds / 10)))
    if table is not None:
        _write(table, document["layers"])
    emit(document) if json_output else _print(document)


def _networks(budget: Budget) -> Iterator[NetworkRow]:
    for widths in NETWORKS:
        for density in NETWORK_DENSITIES:
            name = "-".join(map(str, widths))
            _say(f"{name} at {density:g}")
            dense, masked, kept = (Arm(widths, density, how) for how in (None, "dense", "sparse"))
            batches = batches_of(widths[0], widths[-1], BATCH)
            timed = [_timed(dense, other, batches, budget) for other in (masked, kept)]
            yield NetworkRow(
                network=name,
                density=density,
                n=min(len(of_dense) for of_dense, _ in timed),
                dense_seconds=statistics.median(timed[1][0]),
                masked=quartiles(paired_ratios(*timed[0])),
                sparse=quartiles(paired_ratios(*timed[1])),
                memory_masked=masked.bytes() / dense.bytes(),
                memory_sparse=kept.bytes() / dense.bytes(),
            )


class Arm:
    """One training of a network of Linear layers. how: its execution; None for dense training."""

    def __init__(self, widths: Sequence[int], density: float, how: Any) -> None:
        torch.manual_seed(0)
        layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.model = nn.Sequential(*layers[:-1])
        self.attached: Attachment | None = None
        parameters: Any = self.model.parameters()
        if how is not None:
            self.attached = methods.attach(
                self.model, "static", total_steps=10**6, steps_per_epoch=1000, density=density, execution=how
            )
            parameters = self.attached.parameter_groups()
        self.optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
        if self.attached is not None:
            self.attached.bind(self.optimizer)

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step() if self.attached is None else self.attached.step()

    def bytes(self) -> int:
        """The bytes of weights, gradients, momentum, and masks or places."""
        held = [t for p in self.model.parameters() for t in (p, p.grad, *self.optimizer.state[p].values())]
        masks = [] if self.attached is None else self.attached.context.masks.carried().values()
        for mask in masks:
            held += mask.places.indices if mask.places is not None else [mask.pruned]
        return sum(tensor.nbytes for tensor in held if isinstance(tensor, Tensor))


def _timed(dense: Any, other: Any, batches: Sequence[Batch], budget: Budget) -> tuple[list[float], list[float]]:
    timed_pairs(dense, other, batches, Budget(WARM_UP_PAIRS, budget.seconds), least=2, seconds_of=_seconds)
    return timed_pairs(dense, other, batches, budget, least=LEAST_PAIRS, seconds_of=_seconds)


def _seconds(arm: Any, batch: Batch) -> float:
    started = time.perf_counter()
    arm.step(*batch)
    return time.perf_counter() - started


def batches_of(features: int, classes: int, examples: int, count: int = 8) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(examples, features, generator=generator),
            torch.randint(classes, (examples,), generator=generator),
        )
        for _ in range(count)
    ]


def _layers(budget: Budget) -> Iterator[dict[str, Any]]:
    for rows, columns in SHAPES:
        for examples in EXAMPLES:
            _say(f"layer {rows} x {columns}, {examples} examples")
            batches = batches_of(columns, rows, examples)
            for density in DENSITIES:
                dense, *others = (Layer(rows, columns, density, how) for how in (None, "dense", "sparse"))
                csr = CSR(rows, columns, density)
                found: dict[str, Any] = {"rows": rows, "columns": columns, "examples": examples, "density": density}
                for name, other in zip(("masked", "sparse", "csr"), (*others, csr), strict=True):
                    one, two = _timed(dense, other, batches, budget)
                    found |= {"dense_ms": 1000 * quartiles(one).median, name: quartiles(paired_ratios(one, two)).median}
                yield {name: found[name] for name in FIELDS}


class Layer(Arm):
    """One layer in the middle of a network: its inputs have a gradient too."""

    def __init__(self, rows: int, columns: int, density: float, how: Any) -> None:
        super().__init__((columns, rows), density, how)

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        self.optimizer.zero_grad()
        outputs: Tensor = self.model(inputs.requires_grad_())
        outputs.backward(torch.ones_like(outputs))  # type: ignore[no-untyped-call]
        self.optimizer.step() if self.attached is None else self.attached.step()


class CSR:
    """Forward and backward of a layer whose weight is one of torch's sparse CSR tensors."""

    def __init__(self, rows: int, columns: int, density: float) -> None:
        generator = torch.Generator().manual_seed(0)
        keep = torch.rand(rows, columns, generator=generator) < density
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that CSR is in beta
            self.weight = (torch.randn(rows, columns, generator=generator) * keep).to_sparse_csr().requires_grad_()
        self.bias = torch.zeros(rows, requires_grad=True)

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        self.weight.grad = self.bias.grad = None
        outputs = (self.weight @ inputs.requires_grad_().t()).t() + self.bias
        outputs.backward(torch.ones_like(outputs))  # type: ignore[no-untyped-call]


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def _write(path: Path, layers: Sequence[dict[str, Any]]) -> None:
    try:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            for row in layers:
                writer.writerow({name: f"{v:.4g}" if isinstance(v, float) else v for name, v in row.items()})
    except OSError as error:
        raise SpecError(f"--table {path}: {error.strerror or error}; give a file that can be written") from error


def _print(document: dict[str, Any]) -> None:
    screen = console(json_output=False)
    columns = ("model", "density", "n", "dense ms", "masked", "sparse", "memory masked", "memory sparse")
    show(screen, plain_table(columns, map(network_row, document["networks"])))
    screen.print()
    show(screen, plain_table(FIELDS, map(layer_row, document["layers"])))
    for line in (machine_line(document["machine"]), document["how"]):
        screen.print(line, highlight=False, soft_wrap=True)


def network_row(row: dict[str, Any]) -> list[str]:
    """One line of the table of networks."""
    return [
        row["network"],
        f"{100 * row['density']:g} %",
        str(row["n"]),
        f"{1000 * row['dense_seconds']:.2f}",
        f"{row['masked']['median']:.2f}",
        f"{row['sparse']['median']:.2f}",
        f"{row['memory_masked']:.2f}",
        f"{row['memory_sparse']:.2f}",
    ]


def layer_row(row: dict[str, Any]) -> list[str]:
    """One line of the table of layers."""
    sizes = [str(row[name]) for name in ("rows", "columns", "examples")]
    ratios = [f"{row[name]:.2f}" for name in ("masked", "sparse", "csr")]
    return [*sizes, f"{100 * row['density']:g} %", f"{row['dense_ms']:.3f}", *ratios]
