"""The time that `run` says is left, for cells whose method adds phases to the training."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from benchmark.commands.estimate import Estimate
from benchmark.commands.progress import Progress
from benchmark.launch.base import Event
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

SETTING = {"data": Data(name="digits"), "model": Model(name="lenet-300-100"), "optimizer": Optimizer(epochs=10)}


def test_a_cell_with_more_epochs_than_its_spec_never_leaves_negative_time() -> None:
    first, second = (cell("obd", density=0.5, protocol=(), seed=seed, **SETTING) for seed in (0, 1))
    specs = {spec.run_id: spec for spec in (first, second)}
    out = io.StringIO()
    progress = Progress(
        specs, dict.fromkeys(specs, "obd"), workers=1, estimate=Estimate(), console=Console(file=out, width=200)
    )
    shown = {"epochs": 20, "test_accuracy": 97.0, "density": 0.5}
    for run_id in specs:
        progress.note(Event(run_id, "started"))
    for run_id in specs:
        progress.note(Event(run_id, "epoch", {"epoch": 10, "train_seconds": 50.0, **shown}))
    assert progress.remaining_seconds() == pytest.approx(100)  # both cells are half done, after 50 s each
    for run_id in specs:
        progress.note(Event(run_id, "epoch", {"epoch": 20, "train_seconds": 100.0, **shown}))
        progress.note(Event(run_id, "end", {"status": "done", "error": ""}))
        if run_id == first.run_id:
            assert progress.remaining_seconds() == pytest.approx(50)
    assert progress.remaining_seconds() == 0
    assert re.findall(r"about (\S+ \w+) to go", out.getvalue()) == ["50 s"]


def test_a_follower_that_does_not_know_the_phases_counts_no_epoch_twice() -> None:
    (spec,) = specs = [cell("obd", density=0.5, protocol=(), seed=0, **SETTING)]
    progress = Progress(
        {s.run_id: s for s in specs}, {spec.run_id: "obd"}, workers=1, estimate=Estimate(), console=Console(quiet=True)
    )
    progress.note(Event(spec.run_id, "started"))
    for epoch in range(1, 21):  # of a cell whose spec has 10
        progress.note(Event(spec.run_id, "epoch", {"epoch": epoch, "epochs": 10, "train_seconds": 5.0 * epoch}))
        assert (progress.remaining_seconds() or 0) >= 0
