"""Cells side by side in one batched program: what they compute, and what they may not notice of each other."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import grids
import pytest
import torch
from one_cell import make_spec
from tape import Tape

import methods
from benchmark import data, results
from benchmark.attempts import Observer
from benchmark.cell import Place, execution
from benchmark.outcome import Outcome
from benchmark.program import Program, company, neighbours, together
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell
from benchmark.train import Steps, Training, digest, train_step
from methods import Context, kernels
from methods.dst import DST
from methods.stacked import Stack, stackable

PIXELS = Data(name="synthetic", train_limit=192, test_limit=32, standardize=True)
SGD = Optimizer(lr=0.05, momentum=0.9, weight_decay=5e-4, batch_size=32, epochs=2)
ADAM = Optimizer(name="adam", lr=1e-3, batch_size=32, epochs=2)
NARROW = (4, 4, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 16)  # vgg16
STEPS = 5
SUITE = """
import sys
sys.path.insert(0, {tests!r})
from one_cell import make_spec


def suite():
    return [make_spec(seed=seed, epochs={epochs}) for seed in range({cells})]
"""
pytestmark = pytest.mark.usefixtures("one_thread")


def spec_of(method: str, model: str, seed: int = 0, optimizer: Optimizer = SGD, **given: Any) -> RunSpec:
    wide = Model(name=model, widths=NARROW) if model == "vgg16" else Model(name=model)
    shape = (3, 32, 32) if model in ("vgg16", "wrn-16-8") else (1, 16, 16)
    pixels = dataclasses.replace(PIXELS, shape=shape)
    return cell(method, data=pixels, model=wide, optimizer=optimizer, seed=seed, **given)


def begun(specs: Sequence[RunSpec], data_dir: Path = Path()) -> list[Training]:
    dataset = data.load(specs[0].data, data_dir=data_dir, device=torch.device("cpu"))
    trainings = [Training(spec, dataset) for spec in specs]
    for training in trainings:
        training.model.train()
    return trainings


def in_a_program(trainings: Sequence[Training], width: int, steps: int) -> torch.Tensor:
    """Losses [steps, cells]."""
    program, batches = Program(trainings, width), [training.batches(0) for training in trainings]
    return torch.stack([program.step([next(of) for of in batches]) for _ in range(steps)])[:, : len(trainings)]


def one_by_one(trainings: Sequence[Training], steps: int) -> torch.Tensor:
    """Losses [steps, cells]."""
    columns = [
        [train_step(training, *batch) for batch, _ in zip(training.batches(0), range(steps), strict=False)]
        for training in trainings
    ]
    return torch.tensor(columns).T


def state(training: Training) -> str:
    return digest(training.model, training.optimizer.state_dict(), training.attached.state_dict())


def differences(some: Training, others: Training) -> torch.Tensor:
    """Of every entry of parameters, buffers and the optimizer's state: [entries]."""
    flat = []
    for live in (some, others):
        momentum = [value for of in live.optimizer.state.values() for value in of.values() if value is not None]
        flat.append(torch.cat([value.double().flatten() for value in [*live.model.state_dict().values(), *momentum]]))
    return (flat[0] - flat[1]).abs()


@pytest.mark.parametrize("optimizer", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("model", ["lenet-300-100", "lenet-5-caffe", "vgg16"])
@pytest.mark.parametrize("method", ["dense", "static", "dst"])
def test_cells_of_a_program_compute_what_they_would_alone(method: str, model: str, optimizer: Optimizer) -> None:
    specs = [spec_of(method, model, seed, optimizer) for seed in range(3)]
    alone, beside = begun(specs), begun(specs)
    steps = 1 if model == "vgg16" else STEPS  # batch normalisation of noise doubles a rounding error every step
    close = one_by_one(alone, steps), in_a_program(beside, 4, steps)
    torch.testing.assert_close(*close, rtol=0, atol=1e-6)
    for one, other in zip(alone, beside, strict=True):
        assert differences(one, other).mean() < 1e-6  # Adam turns single entries by the sign of a tiny gradient
        assert torch.equal(one.kept_examples, other.kept_examples)
        assert float(one.loss_sum) == pytest.approx(float(other.loss_sum), abs=1e-3)
        assert (one.steps_done, one.examples, one.epoch_examples) == (
            other.steps_done,
            other.examples,
            other.epoch_examples,
        )


@pytest.mark.parametrize("model", ["lenet-300-100", "lenet-5-caffe", "vgg16"])
@pytest.mark.parametrize("method", ["dense", "static", "dst"])
def test_a_replayed_program_has_the_bits_of_one_that_is_not(
    method: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "path", lambda device_type: "eager")  # the only one that a tape can see into
    specs = [spec_of(method, model, seed) for seed in range(2)]
    plain, replayed = begun(specs), begun(specs)
    tapes: list[Tape] = []

    def recorder() -> Tape:
        tapes.append(Tape())
        return tapes[-1]

    replayed[0].gradient.recorder = recorder
    assert torch.equal(in_a_program(plain, 3, STEPS), in_a_program(replayed, 3, STEPS))
    assert list(map(state, plain)) == list(map(state, replayed))
    assert [tape.replays for tape in tapes] == [STEPS]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "static", "dst"])
def test_two_hundred_steps_on_mnist_are_those_of_cells_alone(method: str, data_dir: Path) -> None:
    mnist = Data(name="mnist", train_limit=12_800)
    of = cell(
        method,
        data=mnist,
        model=Model(name="lenet-300-100"),
        optimizer=Optimizer(lr=0.01, momentum=0.9, batch_size=64, epochs=1),
    )
    specs = [dataclasses.replace(of, seed=seed) for seed in range(2)]
    alone, beside = begun(specs, data_dir), begun(specs, data_dir)
    torch.testing.assert_close(one_by_one(alone, 200), in_a_program(beside, 2, 200), rtol=0, atol=1e-4)
    assert max(float(differences(*pair).max()) for pair in zip(alone, beside, strict=True)) < 1e-4


@pytest.mark.parametrize("model", ["lenet-300-100", "lenet-5-caffe", "vgg16"])
@pytest.mark.parametrize("method", ["dense", "static", "dst"])
def test_a_cells_bits_depend_on_the_width_and_not_on_its_company(method: str, model: str) -> None:
    specs = [spec_of(method, model, seed) for seed in range(3)]
    accompanied, lonely = begun(specs), begun(specs[2:])
    in_a_program(accompanied, 4, 2)
    in_a_program(lonely, 4, 2)
    assert state(accompanied[2]) == state(lonely[0])
    assert len({state(training) for training in accompanied}) == 3


@pytest.mark.parametrize("threshold", ["vector", "scalar", "matrix"])
def test_thresholds_of_every_shape_are_reset_cell_by_cell(threshold: str) -> None:
    """At alpha 30 thresholds leap over all weights in a step, at 1e-3 they stay where they are."""
    specs = [spec_of("dst", "lenet-300-100", threshold=threshold, alpha=alpha) for alpha in (1e-3, 30.0)]
    alone, beside = begun(specs), begun(specs)
    one_by_one(alone, 3)
    in_a_program(beside, 2, 3)
    resets = [[int(t.attached.threshold_resets()) for t in of] for of in (alone, beside)]
    assert resets[0] == resets[1]
    assert resets[0][0] == 0 < resets[0][1]
    for one, other in zip(alone, beside, strict=True):
        assert torch.equal(one.attached.kept_counts(), other.attached.kept_counts())


def test_cells_keep_company_with_those_that_differ_in_seed_and_alpha_alone() -> None:
    first = spec_of("dst", "lenet-300-100", alpha=1e-3)
    assert company(first) == company(spec_of("dst", "lenet-300-100", 7, alpha=2e-3)) is not None
    others = [
        spec_of("dense", "lenet-300-100"),
        spec_of("dst", "lenet-5-caffe", alpha=1e-3),
        spec_of("dst", "lenet-300-100", optimizer=dataclasses.replace(SGD, lr=0.1), alpha=1e-3),
        spec_of("dst", "lenet-300-100", alpha=1e-3, reset_density=None),
    ]
    assert company(first) not in map(company, others)
    two_passes = dataclasses.replace(SGD, micro_batch_size=16)
    alone = [*(spec_of(name, "lenet-300-100") for name in ("set", "dsr", "sparse_momentum"))]
    alone += [spec_of("dst", "lstm-a"), spec_of("dst", "lenet-300-100", optimizer=two_passes)]
    assert {company(spec) for spec in alone} == {None}


def test_cells_in_company_are_neighbours_in_a_job() -> None:
    suite = [spec_of(method, "lenet-300-100", seed) for seed in range(2) for method in ("dense", "set", "dst")]
    found = [(spec.method["name"], spec.seed) for spec in neighbours(suite)]
    assert found == [("dense", 0), ("dense", 1), ("set", 0), ("dst", 0), ("dst", 1), ("set", 1)]


class Gentle(DST):
    name = "gentle"

    def after_step(self, ctx: Context) -> None:
        """No reset."""


def test_a_subclass_with_other_hooks_has_to_say_for_itself_that_it_can_be_stacked() -> None:
    assert (stackable(DST), stackable(Gentle)) == (("alpha",), None)
    attached = methods.attach(torch.nn.Linear(3, 2), Gentle(), total_steps=2, steps_per_epoch=1)
    with pytest.raises(ValueError, match="gentle trains one model at a time"):
        Stack([attached], 1)


def executed(
    out: Path,
    specs: Sequence[RunSpec],
    *,
    width: int,
    stop_after: int | None = None,
    wrap: Mapping[str, Callable[[Steps[Outcome]], Steps[Outcome]]] | None = None,
) -> dict[str, Outcome]:
    """Cells through `together`, each stopped with the first step after its epoch stop_after. wrap: by run id."""
    results.prepare(out)
    place = Place(out, out, checkpoint_seconds=0, cells_per_program=width)
    cells = {}
    for spec in specs:
        stop = threading.Event()

        def report(record: dict[str, Any], stop: threading.Event = stop) -> None:
            if stop_after is not None and record.get("epoch") == stop_after:
                stop.set()

        steps = execution(spec, place, observer=Observer(), report=report, stop=stop)
        cells[spec.run_id] = (wrap or {}).get(spec.run_id, lambda same: same)(steps)
    ends = dict(together(cells, width))
    for end in ends.values():
        if isinstance(end, Exception):
            raise end
    return cast(dict[str, Outcome], ends)


def test_a_cell_that_is_behind_catches_up_and_ends_with_the_bits_of_an_unbroken_run(tmp_path: Path) -> None:
    specs = [make_spec(seed=seed) for seed in range(3)]
    whole = executed(tmp_path / "whole", specs, width=3)
    assert {outcome.status for outcome in whole.values()} == {"done"}
    broken = tmp_path / "broken"
    assert executed(broken, specs[:1], width=3, stop_after=3)[specs[0].run_id].status == "interrupted"
    assert executed(broken, specs[1:2], width=3, stop_after=1)[specs[1].run_id].status == "interrupted"
    executed(broken, specs, width=3)
    assert grids.bits(broken) == grids.bits(tmp_path / "whole")


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
    ends = executed(tmp_path / "both", [mad, good], width=2, wrap={mad.run_id: poisoned})
    assert (ends[good.run_id].status, ends[mad.run_id].status) == ("done", "diverged")
    executed(tmp_path / "alone", [good], width=2)
    assert grids.bits(tmp_path / "both")[good.run_id] == grids.bits(tmp_path / "alone")[good.run_id]


def test_what_breaks_a_step_fails_all_that_took_it_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise MemoryError("no room for the program\nin detail")

    monkeypatch.setattr(Program, "step", broken)
    ends = executed(tmp_path, [make_spec(), make_spec(1)], width=2)
    assert {(end.status, end.error) for end in ends.values()} == {("failed", "MemoryError: no room for the program")}


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
    executed(out, [make_spec()], width=2, stop_after=2)
    refused = bench("run", "--suite", suite, "--out", out, "--workers", "1", "--cells-per-program", "3")
    assert refused.code == 2
    assert "cells_per_program_2 -> " in refused.error
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
