"""`speed --cells-per-program`: what is timed, what is printed, what is refused. No speed is asserted anywhere."""

from __future__ import annotations

import json

import pytest
import torch
from grids import Bench

from benchmark import program_speed
from benchmark.program import Program
from benchmark.speed import Budget
from benchmark.train import Training

FEW = ("--cells-per-program", "2", "--steps", "3", "--device", "cpu")


def test_both_arms_take_the_same_steps_of_the_same_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    arms: list[Program | list[Training]] = []
    timed = program_speed._step_seconds

    def noted(arm: Program | list[Training], batch: tuple[torch.Tensor, torch.Tensor]) -> float:
        arms.append(arm)
        return timed(arm, batch)

    monkeypatch.setattr(program_speed, "_step_seconds", noted)
    gain = program_speed.measure("lenet-300-100", "dst", 2, Budget(3, 60.0), torch.device("cpu"))
    assert (gain.n, gain.cells, gain.batch_size) == (3, 2, 64)
    alone, program = arms[0], arms[1]
    assert isinstance(alone, list)
    assert isinstance(program, Program)
    for one, other in zip(alone, program.trainings, strict=True):
        assert one.spec == other.spec
        assert one.steps_done == other.steps_done > 3
        assert float(one.loss_sum) == pytest.approx(float(other.loss_sum), abs=1e-3)


def test_table_and_json_name_cells_and_machine(bench: Bench) -> None:
    table = bench("speed", *FEW)
    lines = table.stdout.splitlines()
    assert [line.split()[:5] for line in lines[1:4]] == [
        ["lenet-300-100", method, "2", "64", "3"] for method in ("dense", "static", "dst")
    ]
    assert "kernel path: " in table.stdout
    document = json.loads(bench("speed", *FEW, "--method", "dst", "--json").stdout)
    assert document["kind"] == "programs"
    (row,) = document["programs"]
    assert 0 < row["gain"]["lower"] <= row["gain"]["median"] <= row["gain"]["upper"]


@pytest.mark.parametrize(
    "wrong",
    [
        ("--cells-per-program", "2", "--method", "set"),
        ("--cells-per-program", "2", "--model", "lstm-a"),
        ("--grid", "--cells-per-program", "2", "--method", "set", "--data", "synthetic"),
    ],
)
def test_cells_that_train_alone_are_refused(wrong: tuple[str, ...], bench: Bench) -> None:
    refused = bench("speed", *wrong)
    assert (refused.code, refused.stdout) == (2, "")
    assert "train one at a time" in refused.error
