"""One small cell in a folder of its own, run in the test's process, and damage to its files."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from pathlib import Path
from typing import Any

from benchmark import results
from benchmark.run_folder.attempts import Observer
from benchmark.run_folder.files import sealed
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell as spec_of
from benchmark.training.cell import execute
from benchmark.training.execution import Execution
from benchmark.training.publish import Outcome

MEASURED = {
    "epochs": 4,
    "test_accuracy": 90.0,
    "best_test_accuracy": 91.0,
    "density_at_best_test_accuracy": 0.6,
    "density": 0.5,
    "train_seconds": 2.0,
}  # the least that a done cell has

# A suite file with one cell of a model that it registers.
PLUG_IN = """
import torch
from benchmark import models
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

DATA = Data(name="synthetic", shape=(1, 8, 8), train_limit=64, test_limit=32)


class Tiny(torch.nn.Module):
    def __init__(self, in_shape, classes):
        super().__init__()
        self.layer = torch.nn.Linear(64, classes)

    def forward(self, x):
        return self.layer(x.flatten(1))


models.register("tiny", f"{__name__}:Tiny")


def suite():
    return [cell("static", data=DATA, model=Model(name="tiny"), optimizer=Optimizer(batch_size=16), density=0.1)]
"""


def make_spec(seed: int = 0, epochs: int = 4) -> RunSpec:
    data = Data(name="synthetic", shape=(1, 8, 8), train_limit=128, test_limit=32)
    optimizer = Optimizer(lr=0.05, momentum=0.9, batch_size=32, epochs=epochs)
    model = Model(name="lenet-300-100")
    return spec_of("dst", data=data, model=model, optimizer=optimizer, seed=seed, alpha=1e-2, step_records=2)


class Runner:
    """Runs one cell of a folder in this process; keeps what it reports."""

    def __init__(self, out: Path, spec: RunSpec) -> None:
        self.spec = spec
        self.execution = Execution(out=out, data_dir=out, checkpoint_seconds=0)
        self.cell = self.execution.cell(spec.run_id)
        self.reports: list[dict[str, Any]] = []

    def run(self, *, stop_after: int | None = None) -> Outcome:
        """stop_after: end with the first step after this epoch."""
        stop = threading.Event()

        def report(record: dict[str, Any]) -> None:
            self.reports.append(record)
            if stop_after is not None and record.get("epoch") == stop_after:
                stop.set()

        return execute(self.spec, self.execution, observer=Observer(), report=report, stop=stop)

    @property
    def warnings(self) -> list[str]:
        return [record["warning"] for record in self.reports if "warning" in record]

    @property
    def resumed(self) -> list[int]:
        return [record["resumed"] for record in self.reports if "resumed" in record]

    def checkpoints(self, suffix: str = ".pt") -> list[Path]:
        """All generations, the newest last."""
        return sorted(self.cell.glob(f"attempts/*/checkpoint-*{suffix}"), key=lambda path: path.name)


def runner(out: Path, spec: RunSpec) -> Runner:
    """The only cell of the suite `tiny` in a new run folder."""
    results.prepare(out)
    results.remember(out, "tiny", (), [spec])
    return Runner(out, spec)


def sparse_cell(out: Path, method: str, **execution: Any) -> Runner:
    """A finished cell that is so sparse that neurons are dead."""
    like = make_spec()
    cell = runner(out, spec_of(method, data=like.data, model=like.model, optimizer=like.optimizer, density=0.02))
    cell.execution = dataclasses.replace(cell.execution, **execution)
    assert cell.run().status == "done"
    return cell


def result_document(cell: Path, **changes: Any) -> dict[str, Any]:
    """What an attempt at the cell without records writes at its end, sealed; with other values where they are given."""
    document = {
        "run_id": cell.name,
        "status": "done",
        "error": "",
        "attempt": 1,
        "measured": MEASURED,
        "layers": {"fc1.weight": {"weights": 4, "kept": 2}},
        "environment": {"commit": None, "dirty": None, "device_name": "cpu"},
        "metrics_sha256": hashlib.sha256(b"").hexdigest(),
    }
    return sealed(document | changes)


def flip_a_bit(path: Path, position: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 0x10
    path.write_bytes(content)
