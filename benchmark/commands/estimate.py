"""How long cells will take: from what was measured here, or from a short probe.

Seconds are CPU seconds where they are known: other work on the machine hardly changes these.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from benchmark import data
from benchmark.data.catalogue import SHAPES, TRAIN_EXAMPLES
from benchmark.messages import describe
from benchmark.results import TIMES
from benchmark.spec import Data, RunSpec, SpecError

PROBE_STEPS = 4
PROBE_PIXELS = 8 * 32 * 32

Setting = tuple[Any, ...]
Key = tuple[Setting, str]


def key(spec: RunSpec) -> Key:
    """What an epoch's time depends on: the examples, the network and how it computes; and the method."""
    examples = (spec.data.name, spec.data.train_limit, spec.data.validation, spec.data.image_size, spec.data.shape)
    batches = (spec.optimizer.batch_size, spec.optimizer.micro_batch_size)
    return (*examples, spec.model.name, spec.model.widths, spec.precision, *batches), str(spec.method["name"])


class Estimate:
    """Seconds of training per epoch by setting and method (`key`): the mean of what was measured.

    Epochs are those of the cell's spec: where a method's phases add some, each stands for more.
    """

    def __init__(self) -> None:
        self._known: dict[Key, tuple[float, int]] = {}

    def learn(self, spec: RunSpec, *, epochs: float, seconds: float) -> None:
        if epochs > 0:
            total, count = self._known.get(key(spec), (0.0, 0))
            self._known[key(spec)] = total + seconds / epochs, count + 1

    def learn_rows(self, table: Iterable[tuple[RunSpec, Mapping[str, Any]]]) -> None:
        """Learn from finished cells: the lesser of wall-clock and CPU seconds.

        On a loaded machine a step waits, so that wall-clock time is more; CPU time is more where
        several processes trained the cell.
        """
        for spec, row in table:
            if row["status"] == "done":
                seconds = min(row[name] for name in TIMES if row[name] != "")
                self.learn(spec, epochs=spec.optimizer.epochs, seconds=seconds)

    def knows(self, spec: RunSpec) -> bool:
        return key(spec) in self._known

    def epoch_seconds(self, kind: Key) -> float | None:
        """The mean for cells of this kind, else for other methods in their setting, else None."""
        for near in (kind, kind[:1]):
            known = [sums for k, sums in self._known.items() if k[: len(near)] == near]
            if known:
                return sum(total for total, _ in known) / sum(count for _, count in known)
        return None

    def seconds(self, epochs: Mapping[Key, Fraction], *, cells: int, workers: int) -> float | None:
        """Seconds for `epochs` of each kind, in `cells` cells, on `workers` workers; None if a kind is not known."""
        each = [(self.epoch_seconds(kind), count) for kind, count in epochs.items() if count]
        if any(seconds is None for seconds, _ in each):
            return None
        return sum((seconds or 0) * float(count) for seconds, count in each) / max(1, min(workers, cells))


def epochs_of(specs: Iterable[RunSpec]) -> dict[Key, Fraction]:
    """How many epochs of each kind cells have."""
    found: dict[Key, Fraction] = {}
    for spec in specs:
        found[key(spec)] = found.get(key(spec), Fraction(0)) + spec.optimizer.epochs
    return found


def probe(estimate: Estimate, specs: Iterable[RunSpec], *, budget_seconds: float = 20.0) -> None:
    """Time a few steps of each unknown kind of cell on random pixels.

    One kind of each setting comes first, whatever it takes. It stands for the other methods if the
    budget is spent before they are timed. Cells on a data set from outside the package are not
    timed, because the shape of its images is not known without reading it. Raises SpecError for a
    cell that breaks.
    """
    started = time.monotonic()
    kinds = {key(spec): spec for spec in specs}
    first: dict[Setting, RunSpec] = {}
    for (setting, _), spec in kinds.items():
        first.setdefault(setting, spec)
    for spec in [*first.values(), *kinds.values()]:
        late = spec not in first.values() and time.monotonic() - started > budget_seconds
        if not (late or estimate.knows(spec) or spec.data.name in data.plug_ins.names()):
            try:
                seconds, steps_per_epoch = step_seconds(spec)
            except SpecError:
                raise
            except Exception as error:  # of a plug-in
                raise SpecError(f"--probe cannot time {spec.label}: {describe(error)}") from error
            estimate.learn(spec, epochs=1, seconds=seconds * steps_per_epoch)


def step_seconds(spec: RunSpec) -> tuple[float, int]:
    import torch

    from benchmark.training.loop import Training, train_epoch

    examples = spec.data.train_limit or TRAIN_EXAMPLES.get(spec.data.name, 2000)
    batch = spec.optimizer.batch_size
    shape, probed = probe_size(spec)
    pixels = Data(name="synthetic", train_limit=probed * PROBE_STEPS, test_limit=1, shape=shape)
    optimizer = dataclasses.replace(spec.optimizer, batch_size=probed, micro_batch_size=None)
    short = dataclasses.replace(spec, data=pixels, optimizer=optimizer, step_records=None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        training = Training(short, data.load(pixels, data_dir=Path(), device=torch.device("cpu")))
        step_ends: list[float] = []
        train_epoch(training, lambda: step_ends.append(time.process_time()))
    finally:
        torch.set_num_threads(threads)
    steps = sorted(after - before for before, after in itertools.pairwise(step_ends))
    return steps[len(steps) // 2] * batch / probed, -(-examples // batch)


def probe_size(spec: RunSpec) -> tuple[tuple[int, ...] | None, int]:
    """The image shape and batch size to probe with.

    Both are at most the cell's; the batch is smaller where examples are large.
    """
    batch, size = spec.optimizer.batch_size, spec.data.image_size
    shape = (3, size, size) if size is not None else SHAPES.get(spec.data.name, spec.data.shape)
    if shape is None or spec.data.name not in SHAPES:
        return shape, batch
    return shape, min(batch, max(2, PROBE_PIXELS // (shape[1] * shape[2])))


def duration(seconds: float | None) -> str:
    """For people: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
