"""How many images per second training gets, gathered and augmented: `speed data-path`.

A turn is an epoch of batches as training draws them, the same epoch without its augmentation, and
some steps of dense training, right after each other; the next turn has the other order. Drawing an
epoch's order and augmentation is part of its time. On a GPU the clock waits for the device around
the whole epoch, not after each batch.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmark import data, models
from benchmark.commands.output import console, emit, show
from benchmark.commands.selection import resolve_device
from benchmark.data.catalogue import SHAPES
from benchmark.data.tensors import Dataset, TensorDataset
from benchmark.spec import Data, check_names
from benchmark.speed.grids import DATA
from benchmark.speed.steps import SCHEMA, machine_of, paired_ratios, plain_table, prepared, quartiles, wait_for
from benchmark.speed.workloads import BATCHES, MODELS, data_and_optimizer, spec_of, train_size
from benchmark.training.loop import Training, train_step

TARGET_DATA, TARGET_IMAGES_A_SECOND = "cifar10", 100_000  # on a GPU, with crop and flip
DEFAULT_MODELS = ("lenet-300-100", "vgg16")
BATCH_SIZES = (64, 128)
TURNS = 7
STEPS_SECONDS, MOST_STEPS, WARM_UP_STEPS = 0.2, 200, 2
HOW = (
    f"{TURNS} turns of an epoch's batches, the same epoch without its augmentation, and dense training steps for about "
    f"{STEPS_SECONDS} s, in one process, after one that is not counted; images/s and quartiles: of the epochs, drawing "
    "order and augmentation included; plain: the epoch's time over that without augmentation beside it, where there is "
    "one; train/s: images per second of the steps only; share: of the batches, in the time of both. Medians",
    f"target: {TARGET_IMAGES_A_SECOND} images/s of {TARGET_DATA} with crop and flip, on a GPU; none on a CPU",
)
COLUMNS = ("model", "data", "batch", "images/s", "quartiles", "plain", "train/s", "share", "target")


@dataclass(frozen=True)
class Turns:
    """Seconds per image, one value per turn. plain: empty if nothing is augmented."""

    own: list[float]
    plain: list[float]
    step: list[float]


def data_path(names: Sequence[str], chosen: str, data_dir: Path, device_name: str, json_output: bool) -> None:
    """Measure the data path of every model and print it.

    chosen: one of DATA. Raises SpecError and DataError.
    """
    asked = list(dict.fromkeys(names or DEFAULT_MODELS))
    check_names(asked, MODELS, "model")
    check_names([chosen], DATA, "--data")
    device = torch.device(resolve_device(device_name))
    for name in dict.fromkeys(pixels_of(model, chosen).name for model in asked):
        data.verify(name, data_dir)
    before = os.getloadavg()
    with prepared(device):
        document = {"schema": SCHEMA, "kind": "data-path", "how": HOW, "machine": machine_of(device)}
        document |= {"data": DATA[chosen], "load_before": before}
        document["paths"] = list(_measured(asked, chosen, data_dir, device))
    document["load_after"] = os.getloadavg()
    (emit if json_output else _print)(document)


def _measured(names: Sequence[str], chosen: str, data_dir: Path, device: torch.device) -> Iterator[dict[str, Any]]:
    for model in names:
        pixels = pixels_of(model, chosen)
        own = data.load(pixels, data_dir=data_dir, device=device)
        assert isinstance(own, TensorDataset)
        for batch_size in BATCH_SIZES:
            if sys.stderr.isatty():
                print(f"{model} {batch_size}", file=sys.stderr)
            yield summary(model, pixels, batch_size, measure(model, own, batch_size), device)


def pixels_of(model: str, chosen: str) -> Data:
    """The data that a model trains on, or made-up pixels of the same shape and number."""
    real, _ = data_and_optimizer(model)
    if chosen == "own":
        return real
    shape, size = SHAPES.get(real.name), train_size(real)
    return dataclasses.replace(real, name="synthetic", shape=shape, train_limit=size, test_limit=1, normalization=None)


def measure(model: str, own: TensorDataset, batch_size: int) -> Turns:
    """Measure the turns; a first one is not counted."""
    plain, seconds_of_step = dataclasses.replace(own, augment=None), dense_steps(model, own, batch_size)
    turns = Turns([], [], [])
    arms: list[tuple[list[float], Callable[[int], float]]] = [
        (turns.own, lambda turn: epoch_seconds(own, batch_size, turn) / own.train_size),
        (turns.step, lambda turn: seconds_of_step() / batch_size),
    ]
    if own.augment is not None:
        arms.append((turns.plain, lambda turn: epoch_seconds(plain, batch_size, turn) / own.train_size))
    for turn in range(TURNS + 1):
        for seconds, measured in arms if turn % 2 else reversed(arms):
            seconds.append(measured(turn))
    return Turns(turns.own[1:], turns.plain[1:], turns.step[1:])


def epoch_seconds(dataset: Dataset, batch_size: int, epoch: int) -> float:
    """Seconds of drawing one epoch and making its batches, until the device has made the last."""
    wait_for(dataset.device)
    started = time.perf_counter()
    for _ in dataset.train_batches(batch_size=batch_size, seed=0, epoch=epoch):
        pass
    wait_for(dataset.device)
    return time.perf_counter() - started


def dense_steps(model: str, dataset: Dataset, batch_size: int) -> Callable[[], float]:
    """A function that trains densely for about STEPS_SECONDS and returns a step's seconds."""
    of = spec_of(model, "dense")
    training = Training(
        dataclasses.replace(of, optimizer=dataclasses.replace(of.optimizer, batch_size=batch_size)), dataset
    )
    training.model.train()
    models.start_epoch(training.model)
    first = itertools.islice(dataset.train_batches(batch_size=batch_size, seed=0, epoch=0), BATCHES)
    batches = itertools.cycle(list(first))

    def seconds(count: int) -> float:
        wait_for(dataset.device)
        started = time.perf_counter()
        for batch in itertools.islice(batches, count):
            train_step(training, *batch)
        wait_for(dataset.device)
        return (time.perf_counter() - started) / count

    seconds(WARM_UP_STEPS)
    count = max(1, min(MOST_STEPS, int(STEPS_SECONDS / seconds(1))))
    return lambda: seconds(count)


def summary(model: str, pixels: Data, batch_size: int, turns: Turns, device: torch.device) -> dict[str, Any]:
    """The document's row of a model and a batch size."""
    rate = quartiles([1 / seconds for seconds in turns.own])
    aimed_at = device.type == "cuda" and data_and_optimizer(model)[0].name == TARGET_DATA
    target = TARGET_IMAGES_A_SECOND if aimed_at else None
    shares = [own / (own + step) for own, step in zip(turns.own, turns.step, strict=True)]
    return {
        "model": model,
        "data": pixels.name,
        "augment": pixels.augment,
        "batch_size": batch_size,
        "n": len(turns.own),
        "images_a_second": dataclasses.asdict(rate),
        "plain_ratio": dataclasses.asdict(quartiles(paired_ratios(turns.plain, turns.own))) if turns.plain else None,
        "step_images_a_second": statistics.median(1 / seconds for seconds in turns.step),
        "share": dataclasses.asdict(quartiles(shares)),
        "target": target,
        "reached": None if target is None else rate.median >= target,
    }


def _print(document: Mapping[str, Any]) -> None:
    machine, screen = document["machine"], console(json_output=False)
    show(screen, plain_table(COLUMNS, map(row, document["paths"])))
    lines = (
        f"{machine['device_name']} ({machine['device']}), {machine['cpus']} CPUs, threads: {machine['threads']}, "
        f"torch {machine['torch']}, kernel path: {machine['kernel_path']}",
        f"data: {document['data']}; load average: {document['load_before'][0]:.1f} before, "
        f"{document['load_after'][0]:.1f} after",
        *document["how"],
    )
    screen.print(*lines, sep="\n", highlight=False, soft_wrap=True)


def row(path: Mapping[str, Any]) -> list[str]:
    """One line of the table, from one of the document's rows."""
    rate, ratio = path["images_a_second"], path["plain_ratio"]
    return [
        path["model"],
        path["data"],
        str(path["batch_size"]),
        f"{rate['median']:.0f}",
        f"{rate['lower'] / 1000:.0f}k-{rate['upper'] / 1000:.0f}k",
        "-" if ratio is None else f"{ratio['median']:.2f}",
        f"{path['step_images_a_second']:.0f}",
        f"{100 * path['share']['median']:.2g} %",
        {None: "-", True: "reached", False: "missed"}[path["reached"]],
    ]
