"""What sparsity buys after training: `python -m benchmark speed inference RUN_ID`.

It times one finished cell's network in the forms of `benchmark.speed.network_forms`, each in pairs
beside `dense`, as `benchmark.speed.steps` does. Each time is of several forward passes of one
batch, as one short pass says little.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from benchmark import models
from benchmark.commands.output import console, emit, show
from benchmark.commands.selection import resolve_device
from benchmark.commands.show import find_cell
from benchmark.spec import RunSpec
from benchmark.speed.network_forms import cut_layers, dense_of, forms_of, saved_bytes
from benchmark.speed.steps import (
    LEAST_PAIRS,
    WARM_UP_PAIRS,
    WARM_UP_SHARE,
    Batch,
    Budget,
    Quartiles,
    machine_of,
    paired_ratios,
    prepared,
    quartiles,
    timed_pairs,
    wait_for,
)
from benchmark.training.execution import Execution
from benchmark.training.finished import trained
from benchmark.training.loop import Training
from benchmark.training.measure import EVALUATION_BATCH

SCHEMA = 1
BLOCK_SECONDS = 0.0005
HOW = (
    "pairs of the dense network and another form on the same test images, in turns, in one process; each time is of as "
    "many forward passes as take half a millisecond; quartiles of the pairs' ratios"
)
MEASURED = ("test_accuracy", "density")


@dataclass(frozen=True)
class Form:
    """One form of the network.

    bytes, compressed_bytes: of its saved state_dict, without and with zlib. max_difference: the
    largest difference between its outputs on the test split and those of masked-dense.
    equal_predictions: the share of images with the same class. Both None for dense, which is
    another function.
    """

    form: str
    bytes: int
    compressed_bytes: int
    max_difference: float | None
    equal_predictions: float | None


@dataclass(frozen=True)
class Latency:
    """A form beside dense at one batch size. seconds: medians of a forward pass."""

    form: str
    batch_size: int
    n: int
    ratio: Quartiles
    dense_seconds: float
    seconds: float


def inference(
    run_id: str, out: Path, data_dir: Path, suite: str | None, budget: Budget, device_name: str, json_output: bool
) -> None:
    """Measure a finished cell's network in its forms and print it.

    suite: what registers the cell's plug-ins. Raises SpecError, FolderError, DataError.
    """
    member = find_cell(run_id, out, suite)
    device = torch.device(resolve_device(device_name))
    execution = Execution(out=out, data_dir=data_dir, device=device.type)
    with prepared(device), torch.no_grad():
        training, result = trained(member.spec, execution)
        networks, refused = forms_of(training.model)
        document = {
            "schema": SCHEMA,
            "kind": "inference",
            "how": HOW,
            "machine": machine_of(device),
            "budget": dataclasses.asdict(budget),
            "cell": _described(member.spec, result),
            "forms": [dataclasses.asdict(form) for form in _compared(networks, training)],
            "layers": cut_layers(networks),
            "left_out": refused,
            "pairs": [dataclasses.asdict(latency) for latency in _timed(networks, training, budget)],
        }
    emit(document) if json_output else _print(document)


def _described(spec: RunSpec, result: Mapping[str, Any]) -> dict[str, Any]:
    measured = {name: result["measured"][name] for name in MEASURED}
    return {"run_id": spec.run_id, "label": spec.label, "model": spec.model.name, "data": spec.data.name, **measured}


def _compared(networks: Mapping[str, nn.Module], training: Training) -> list[Form]:
    reference = outputs_of(networks["masked-dense"], training)
    dense = dense_of(training)
    compared = [Form("dense", *saved_bytes(dense), None, None)]
    for form, network in networks.items():
        outputs = outputs_of(network, training)
        equal = (outputs.argmax(1) == reference.argmax(1)).double().mean()
        difference = float((outputs - reference).abs().max())
        compared.append(Form(form, *saved_bytes(network), difference, float(equal)))
    return compared


def outputs_of(network: nn.Module, training: Training) -> Tensor:
    """Logits of the whole test split, [n, classes]."""
    models.start_epoch(network)
    largest = training.spec.optimizer.batch_size if hasattr(network, "start_epoch") else EVALUATION_BATCH
    return torch.cat([network(inputs) for inputs, _ in training.data.test_batches(largest)])


def _timed(networks: Mapping[str, nn.Module], training: Training, budget: Budget) -> list[Latency]:
    timed, dense = [], dense_of(training)
    for batch_size in (1, training.spec.optimizer.batch_size):
        batches = _first_batches(training, batch_size)
        for form, network in networks.items():
            timed.append(_latency(form, (dense, network), batches, budget))
    return timed


def _first_batches(training: Training, batch_size: int, count: int = 8) -> list[Batch]:
    return [batch for batch, _ in zip(training.data.test_batches(batch_size), range(count), strict=False)]


def _latency(form: str, arms: tuple[nn.Module, nn.Module], batches: Sequence[Batch], budget: Budget) -> Latency:
    for arm in arms:
        models.start_epoch(arm)
    warm_up = Budget(WARM_UP_PAIRS, budget.seconds * WARM_UP_SHARE)
    first, _ = timed_pairs(*arms, batches, warm_up, least=1, seconds_of=functools.partial(_forward_seconds, passes=1))
    passes = math.ceil(BLOCK_SECONDS / min(first))
    seconds_of = functools.partial(_forward_seconds, passes=passes)
    dense_times, times = timed_pairs(*arms, batches, budget, least=LEAST_PAIRS, seconds_of=seconds_of)
    return Latency(
        form=form,
        batch_size=len(batches[0][1]),
        n=len(times),
        ratio=quartiles(paired_ratios(dense_times, times)),
        dense_seconds=statistics.median(dense_times),
        seconds=statistics.median(times),
    )


def _forward_seconds(network: nn.Module, batch: Batch, *, passes: int) -> float:
    """Seconds of one pass, from several.

    A single short pass would mostly measure the state of the caches.
    """
    inputs, _ = batch
    wait_for(inputs.device)
    started = time.perf_counter()
    for _ in range(passes):
        network(inputs)
    wait_for(inputs.device)
    return (time.perf_counter() - started) / passes


def _print(document: dict[str, Any]) -> None:
    machine, screen = document["machine"], console(json_output=False)
    run_id, label, accuracy, density, cut = cell_row(document)
    latencies, files = Table(box=None, pad_edge=False), Table(box=None, pad_edge=False)
    for table, names in (
        (latencies, ("form", "batch", "n", "ratio", "quartiles", "dense ms", "ms")),
        (files, ("form", "bytes", "compressed", "largest difference", "equal predictions")),
    ):
        for name in names:
            table.add_column(name, no_wrap=True, justify="left" if name == "form" else "right")
    for pair in document["pairs"]:
        latencies.add_row(*latency_row(pair))
    for form in document["forms"]:
        files.add_row(*form_row(form))
    show(screen, latencies)
    show(screen, files)
    for line in (
        f"cell {run_id}: {label}; {accuracy} accuracy, {density} remaining",
        f"cut: {cut}",
        *(f"{form} is left out: {why}" for form, why in document["left_out"].items()),
        f"{machine['device_name']} ({machine['device']}), threads: {machine['threads']}, torch {machine['torch']}",
        document["how"],
    ):
        screen.print(line, highlight=False, markup=False, soft_wrap=True)


def cell_row(document: Mapping[str, Any]) -> list[str]:
    """The cell of a document: run id, label, accuracy, remaining ratio, and the cut layers."""
    cell, layers = document["cell"], document["layers"]
    cut = [f"{name} {before} to {after}" for name, (before, after) in layers.items()]
    percents = [f"{cell['test_accuracy']:.2f} %", f"{100 * cell['density']:.2f} %"]
    return [cell["run_id"], cell["label"], *percents, ", ".join(cut) or "nothing"]


def latency_row(pair: Mapping[str, Any]) -> list[str]:
    """One line of the table of latencies, from one of the document's pairs."""
    ratio = pair["ratio"]
    return [
        pair["form"],
        str(pair["batch_size"]),
        str(pair["n"]),
        f"{ratio['median']:.2f}",
        f"{ratio['lower']:.2f}-{ratio['upper']:.2f}",
        f"{1000 * pair['dense_seconds']:.3f}",
        f"{1000 * pair['seconds']:.3f}",
    ]


def form_row(form: Mapping[str, Any]) -> list[str]:
    """One line of the table of files and outputs, from one of the document's forms."""
    differences = ["-", "-"]
    if form["max_difference"] is not None:
        differences = [f"{form['max_difference']:.1e}", f"{100 * form['equal_predictions']:.2f} %"]
    return [form["form"], str(form["bytes"]), str(form["compressed_bytes"]), *differences]
