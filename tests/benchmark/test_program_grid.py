"""Grids of cells side by side: kills, resumes, divergence, drift; what is recorded and what is refused."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import grids
import pytest
import torch
from one_cell import make_spec

from benchmark import results
from benchmark.attempts import Observer
from benchmark.cell import Place, execution
from benchmark.files import read_json, read_sealed
from benchmark.outcome import Outcome
from benchmark.program import Program, ends
from benchmark.spec import Model, Optimizer, RunSpec
from benchmark.suites import cell
from benchmark.train import Steps

SUITE = """
import sys
sys.path.insert(0, {tests!r})
from one_cell import make_spec


def suite():
    return [make_spec(seed=seed, epochs={epochs}) for seed in range({cells})]
"""
POISONED = '''
import os
from dataclasses import dataclass

import methods
import torch
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell
from methods.dst import DST


@dataclass(kw_only=True)
class Poison(DST):
    """Kills its process where a cell has an alpha above 0.4."""

    name = "poison"
    stackable = ("alpha",)

    def after_step(self, ctx):
        super().after_step(ctx)
        if torch.as_tensor(self.alpha).max() > 0.4:
            os.kill(os.getpid(), 9)


methods.register("poison", f"{__name__}:Poison")
DATA = Data(name="synthetic", shape=(1, 8, 8), train_limit=64, test_limit=64)


def suite():
    sgd = Optimizer(lr=0.02, momentum=0.9, batch_size=32, epochs=2)
    net = Model(name="lenet-300-100")
    return [cell("poison", data=DATA, model=net, optimizer=sgd, alpha=alpha) for alpha in (1e-3, 2e-3, 0.5)]
'''
pytestmark = pytest.mark.usefixtures("one_thread")


def executed(
    out: Path,
    specs: Sequence[RunSpec],
    *,
    width: int,
    stop_after: Mapping[str, int] | None = None,
    wrap: Mapping[str, Callable[[Steps[Outcome]], Steps[Outcome]]] | None = None,
) -> dict[str, Outcome]:
    """Cells as a worker takes them. stop_after: the epoch after whose end a cell is stopped. Both by run id."""
    results.prepare(out)
    place = Place(out, out, checkpoint_seconds=0, cells_per_program=width)
    cells = {}
    for spec in specs:
        stop, last = threading.Event(), (stop_after or {}).get(spec.run_id)

        def report(record: dict[str, Any], stop: threading.Event = stop, last: int | None = last) -> None:
            if last is not None and record.get("epoch") == last:
                stop.set()

        steps = execution(spec, place, observer=Observer(), report=report, stop=stop)
        cells[spec] = (wrap or {}).get(spec.run_id, lambda same: same)(steps)
    found = dict(ends(cells, width))
    for end in found.values():
        if isinstance(end, Exception):
            raise end
    return cast(dict[str, Outcome], found)


def test_a_cell_that_is_behind_catches_up_and_ends_with_the_bits_of_an_unbroken_run(tmp_path: Path) -> None:
    specs = [make_spec(seed=seed) for seed in range(3)]
    whole = executed(tmp_path / "whole", specs, width=3)
    assert {outcome.status for outcome in whole.values()} == {"done"}
    broken, (first, second, third) = tmp_path / "broken", (spec.run_id for spec in specs)
    executed(broken, specs[:1], width=3, stop_after={first: 3})
    executed(broken, specs[1:2], width=3, stop_after={second: 1})
    stopped = executed(broken, specs, width=3, stop_after={second: 2, third: 3})
    assert [end.status for end in stopped.values()].count("interrupted") == 2
    executed(broken, specs, width=3)
    assert grids.bits(broken) == grids.bits(tmp_path / "whole")


def test_a_program_is_made_anew_where_as_many_but_other_cells_are_behind(tmp_path: Path) -> None:
    specs = [make_spec(seed=seed) for seed in range(2)]
    executed(tmp_path / "whole", specs, width=2)
    broken, (first, second) = tmp_path / "broken", (spec.run_id for spec in specs)
    executed(broken, specs[1:], width=2, stop_after={second: 3})
    executed(broken, specs, width=2, stop_after={first: 1})  # then only the one that is ahead is left
    executed(broken, specs, width=2)
    assert grids.bits(broken) == grids.bits(tmp_path / "whole")


def test_cells_that_train_alone_are_as_without_the_option(tmp_path: Path) -> None:
    data = make_spec().data
    adam = Optimizer(name="adam", lr=1e-3, batch_size=32, epochs=1)
    specs = [
        cell("set", data=data, model=Model(name="lenet-300-100"), optimizer=make_spec(epochs=1).optimizer),
        cell("dst", data=dataclasses.replace(data, shape=(1, 8, 8)), model=Model(name="lstm-a"), optimizer=adam),
    ]
    for spec in specs:
        executed(tmp_path / "with", [spec], width=4)
        executed(tmp_path / "without", [spec], width=1)
    assert grids.bits(tmp_path / "with") == grids.bits(tmp_path / "without")
    for path in (tmp_path / "with").glob("cells/*/environment.json"):
        assert "cells_per_program" not in read_json(path)["engine"]


def test_each_cell_has_its_share_of_the_time_of_one_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, programs, step = list[float](), set[Program](), Program.step

    def timed(program: Program, batches: Any) -> torch.Tensor:
        started = time.perf_counter()
        losses = step(program, batches)
        taken.append(time.perf_counter() - started)
        programs.add(program)
        return losses

    monkeypatch.setattr(Program, "step", timed)
    executed(tmp_path, [make_spec(seed=seed, epochs=20) for seed in range(3)], width=3)
    results_of = [read_sealed(cell / "result.json") or {} for cell in grids.cells(tmp_path)]
    seconds = [found["measured"]["train_seconds"] for found in results_of]
    assert max(seconds) - min(seconds) <= 0.002
    assert sum(taken) <= sum(seconds) + 0.003 < 1.5 * sum(taken)
    assert len(programs) == 1


def poisoned(steps: Steps[Outcome]) -> Steps[Outcome]:
    """The same cell, a weight of which is no number from its first step on."""
    try:
        step = next(steps)
        with torch.no_grad():
            next(step.training.model.parameters())[0, 0] = torch.nan
        while True:
            step = steps.send((yield step))
    except StopIteration as end:
        return cast(Outcome, end.value)


def test_a_cell_that_diverges_leaves_and_the_others_go_on(tmp_path: Path) -> None:
    good, mad = make_spec(), make_spec(1)
    found = executed(tmp_path / "both", [mad, good], width=2, wrap={mad.run_id: poisoned})
    assert (found[good.run_id].status, found[mad.run_id].status) == ("done", "diverged")
    executed(tmp_path / "alone", [good], width=2)
    assert grids.bits(tmp_path / "both")[good.run_id] == grids.bits(tmp_path / "alone")[good.run_id]


def test_what_breaks_a_step_fails_all_that_took_it_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise MemoryError("no room for the program\nin detail")

    monkeypatch.setattr(Program, "step", broken)
    found = executed(tmp_path, [make_spec(), make_spec(1)], width=2)
    assert {(end.status, end.error) for end in found.values()} == {("failed", "MemoryError: no room for the program")}


def test_a_checkpoint_holds_its_own_cell_alone(tmp_path: Path) -> None:
    specs = [make_spec(seed=seed, epochs=1) for seed in range(8)]
    executed(tmp_path / "eight", specs, width=8)
    executed(tmp_path / "one", specs[:1], width=1)
    sizes = [
        max(path.stat().st_size for path in folder.glob("cells/*/attempts/*/*.pt"))
        for folder in (tmp_path / "eight", tmp_path / "one")
    ]
    assert sizes[0] < 1.2 * sizes[1]


@pytest.mark.slow
def test_the_width_is_recorded_and_another_one_is_drift(tmp_path: Path, bench: grids.Bench) -> None:
    out, suite = tmp_path / "runs", tmp_path / "grid.py"
    suite.write_text(SUITE.format(tests=str(Path(__file__).parent), epochs=4, cells=1))
    executed(out, [make_spec()], width=2, stop_after={make_spec().run_id: 2})
    refused = bench("run", "--suite", suite, "--out", out, "--workers", "1", "--cells-per-program", "3")
    assert refused.code == 2
    assert "cells_per_program_2 -> " in refused.error
    assert "was begun with --cells-per-program 2 (" in refused.error
    assert "): give that again, or give --accept-drift" in refused.error
    assert "side by side: 1 of 1 cells in 1 program of 3; 2 places left empty" in refused.stdout
    assert "on a CPU it gains nothing" in refused.stdout
    done = bench("run", "--suite", suite, "--out", out, "--workers", "1", "--cells-per-program", "2", "--json")
    assert (done.code, [row["status"] for row in done.json["cells"]]) == (0, ["done"])


@pytest.mark.parametrize("other", [("--launcher", "ray"), ("--processes-per-cell", "2")])
def test_programs_are_refused_where_cells_are_apart(other: tuple[str, str], bench: grids.Bench, tmp_path: Path) -> None:
    refused = bench("run", "--out", tmp_path / "runs", "--cells-per-program", "2", *other)
    assert (refused.code, "--cells-per-program" in refused.error) == (2, True)


@pytest.mark.slow
def test_kills_of_a_worker_with_several_cells_end_in_the_same_bits(tmp_path: Path) -> None:
    """Cells whose worker died go on one at a time, at the same width."""
    suite = tmp_path / "grid.py"
    suite.write_text(SUITE.format(tests=str(Path(__file__).parent), epochs=100, cells=3))
    command = ("run", "--suite", suite, "--workers", "1", "--cells-per-program", "3", "--out")
    whole = grids.finish(grids.start(*command, tmp_path / "whole"))
    assert (whole.code, whole.stderr) == (0, "")
    process = grids.start(*command, tmp_path / "killed", checkpoint_seconds=0.1)
    for _ in range(2):
        grids.wait_for_a_checkpoint(tmp_path / "killed")
        (worker,) = grids.children(process.pid)
        os.kill(worker, signal.SIGKILL)
    ended = grids.finish(process)
    assert ended.code == 0, ended.stderr
    assert ended.stdout.count("its worker died") >= 2
    assert grids.bits(tmp_path / "killed") == grids.bits(tmp_path / "whole")
    assert grids.tables(tmp_path / "killed") == grids.tables(tmp_path / "whole")


@pytest.mark.slow
def test_a_cell_that_kills_its_worker_takes_no_other_with_it(tmp_path: Path) -> None:
    suite = tmp_path / "poisoned.py"
    suite.write_text(POISONED)
    command = ("run", "--suite", suite, "--out", tmp_path / "runs", "--workers", "1", "--cells-per-program", "3")
    finished = grids.finish(grids.start(*command, "--json"))
    assert finished.code == 1
    assert {row["alpha"]: row["status"] for row in finished.json["cells"]} == {
        1e-3: "done",
        2e-3: "done",
        0.5: "failed",
    }


def test_a_full_gpu_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(Program, "step", full)
    (end, _) = executed(tmp_path, [make_spec(), make_spec(1)], width=8).values()
    assert end.error.startswith("OutOfMemoryError: CUDA out of memory. Tried")
    assert "a program of 8 cells: give a smaller --cells-per-program" in end.error
