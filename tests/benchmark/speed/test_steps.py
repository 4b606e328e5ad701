"""`speed`: the arithmetic of pairs, the steps it times, what it prints. No speed is asserted anywhere."""

from __future__ import annotations

import io
import json

import pytest
import torch
from grids import Bench
from rich.console import Console

from benchmark.spec import SpecError
from benchmark.speed import steps as speed
from benchmark.speed import workloads
from benchmark.suites import cifar10, mnist, rivals_cifar10, rivals_mnist
from benchmark.training.loop import Training, digest, train_step
from methods import registry

CPU = torch.device("cpu")
FEW = ("--model", "lenet-300-100", "--steps", "4")


def training(method: str, model: str = "lenet-300-100") -> tuple[Training, list[speed.Batch]]:
    spec = workloads.spec_of(model, method)
    pixels = workloads.load(model, spec, CPU)
    batches = list(pixels.train_batches(batch_size=spec.optimizer.batch_size, seed=0, epoch=0))
    return Training(spec, pixels), batches


def test_the_timed_cell_is_that_of_the_suite_that_trains_the_model() -> None:
    for module in (cifar10, mnist, rivals_cifar10, rivals_mnist):
        for model in {spec.model.name for spec in module.suite()} & set(workloads.RIVALS):
            real, optimizer = workloads.data_and_optimizer(model)
            of = [(spec.data, spec.optimizer) for spec in module.suite() if spec.model.name == model]
            assert (real, optimizer) in of, model
    spec = workloads.spec_of("mlp-300-100-bn", "dense")
    pixels = workloads.load("mlp-300-100-bn", spec, CPU)
    assert (pixels.in_shape, spec.optimizer.batch_size, pixels.steps_per_epoch(100)) == ((1, 28, 28), 100, 540)


def test_quartiles_lie_between_the_values() -> None:
    assert speed.quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == speed.Quartiles(2.0, 3.0, 4.0)
    assert speed.quartiles([1.0, 2.0]) == speed.Quartiles(1.25, 1.5, 1.75)


def test_a_slow_moment_that_falls_on_a_whole_pair_leaves_the_ratio_alone() -> None:
    dense, other = [1.0, 1.0, 10.0, 1.0], [3.0, 3.0, 30.0, 3.0]
    assert speed.paired_ratios(dense, other) == [3.0] * 4
    assert speed.quartiles(speed.paired_ratios(dense, other)) == speed.Quartiles(3.0, 3.0, 3.0)


def test_an_unpaired_step_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        speed.paired_ratios([1.0, 1.0], [1.0])


def test_pairs_alternate_their_order_and_share_their_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    (dense, batches), (dst, _) = training("dense"), training("dst")
    seen: list[tuple[str, int]] = []

    def noted(arm: Training, *batch: torch.Tensor) -> torch.Tensor:
        which = next(at for at, known in enumerate(batches) if known[0] is batch[0])
        seen.append((arm.spec.method["name"], which))
        return train_step(arm, *batch)

    monkeypatch.setattr(speed, "train_step", noted)
    timed = speed.timed_pairs(dense, dst, batches, speed.Budget(3, 60.0), least=1)
    assert seen == [("dense", 0), ("dst", 0), ("dst", 1), ("dense", 1), ("dense", 2), ("dst", 2)]
    assert [len(times) for times in timed] == [3, 3]
    assert all(seconds > 0 for times in timed for seconds in times)


def test_the_seconds_end_the_pairs_but_not_before_the_least() -> None:
    (dense, batches), (static, _) = training("dense"), training("static")
    dense_times, times = speed.timed_pairs(dense, static, batches, speed.Budget(100, 0.0), least=3)
    assert len(dense_times) == len(times) == 3


def test_the_timed_steps_are_those_of_a_training() -> None:
    (timed, batches), (plain, _), (dense, _) = training("dst"), training("dst"), training("dense")
    speed.timed_pairs(dense, timed, batches, speed.Budget(4, 60.0), least=1)
    for batch in batches[:4]:
        train_step(plain, *batch)
    assert digest(timed.model, timed.optimizer.state_dict()) == digest(plain.model, plain.optimizer.state_dict())


@pytest.mark.parametrize(
    ("model", "batch", "shape", "steps"),
    [
        ("lenet-5-caffe", 64, (1, 28, 28), 938),
        ("lstm-a", 100, (1, 28, 28), 600),
        ("vgg16", 64, (3, 32, 32), 782),
    ],
)
def test_a_model_is_timed_at_the_papers_size(model: str, batch: int, shape: tuple[int, ...], steps: int) -> None:
    spec = workloads.spec_of(model, "dst")
    pixels = workloads.load(model, spec, CPU)
    (inputs, _), *_ = pixels.train_batches(batch_size=spec.optimizer.batch_size, seed=0, epoch=0)
    assert tuple(inputs.shape) == (batch, *shape)
    assert pixels.steps_per_epoch(batch) == steps


@pytest.mark.slow
@pytest.mark.rare
def test_the_json_has_a_pair_for_every_method_and_says_what_ran(bench: Bench) -> None:
    threads = torch.get_num_threads()
    finished = bench("speed", "steps", *FEW, "--device", "cpu", "--json")
    assert finished.code == 0, finished.stderr
    document = json.loads(finished.stdout)
    assert [pair["method"] for pair in document["pairs"]] == registry.own()
    assert {"torch", "device_name", "threads", "kernel_path", "commit"} <= set(document["machine"])
    assert document["machine"]["threads"] == 1
    for pair in document["pairs"]:
        assert (pair["model"], pair["n"], pair["batch_size"]) == ("lenet-300-100", 4, 64)
        assert 0 < pair["ratio"]["lower"] <= pair["ratio"]["median"] <= pair["ratio"]["upper"]
        weights = 4 * 266_610
        assert 2 * weights < pair["dense_peak_bytes"] < 8 * weights
        assert 2 * weights < pair["method_peak_bytes"] < 20 * weights  # some keep noise, or a copy of the weights
    assert torch.get_num_threads() == threads


def test_the_table_names_machine_threads_and_kernels(bench: Bench) -> None:
    finished = bench("speed", *FEW, "--method", "dst", "--method", "dst", "--device", "cpu")
    lines = finished.stdout.splitlines()
    assert lines[1].split()[:4] == ["lenet-300-100", "dst", "64", "4"]
    assert not lines[2].startswith("lenet"), "a method that is named twice is measured once"
    assert all(word in finished.stdout for word in ("torch 2.", "threads: 1", "kernel path: ", "quartiles"))


def test_steps_are_timed_on_as_many_threads_as_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = torch.get_num_threads(), set()

    def noted(*step: object) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return train_step(*step)

    monkeypatch.setattr(speed, "train_step", noted)
    finished = bench("speed", *FEW, "--method", "dst", "--device", "cpu", "--threads", "2", "--json")
    assert json.loads(finished.stdout)["machine"]["threads"] == 2
    assert (seen, torch.get_num_threads()) == ({2}, before)


def test_threads_are_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "resolve_device", lambda _: "cuda")
    with pytest.raises(SpecError, match="--threads 2 is of a CPU's steps: leave it out on cuda"):
        speed.speed([], [], speed.Budget(2, 0.0), "auto", json_output=True, threads=2)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--model", "lenet-300"], ["unknown model 'lenet-300'", "did you mean 'lenet-300-100'?", "vgg16"]),
        (["--method", "dts"], ["unknown method 'dts'", "did you mean 'dst'?", "static"]),
        (["--threads", "2", "start-up"], ["--threads: give the options of speed start-up after its name"]),
        (["--device", "gpu"], ["unknown device 'gpu'", "auto, cpu, cuda"]),
        (["--seconds", "inf"], ["--seconds inf", "finite"]),
        (["--model", "lenet-300-100", "--steps", "100000"], ["--steps 100000", "room for 18750"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_a_wrong_option_of_speed_is_one_line(arguments: list[str], fragments: list[str], bench: Bench) -> None:
    finished = bench("speed", *arguments)
    assert (finished.code, finished.stdout) == (2, "")
    assert all(fragment in finished.error for fragment in fragments), finished.error


def test_a_method_that_cannot_be_made_is_named() -> None:
    with pytest.raises(SpecError, match="method nothing: "):
        workloads.spec_of("lenet-300-100", "nothing")


def test_a_narrow_screen_folds_names_and_cuts_no_number() -> None:
    screen = Console(width=40, record=True, file=io.StringIO())
    screen.print(
        speed.plain_table(
            ("command", "n", "quartiles", "CPU seconds"), [("run --suite digits", "7", "3.89-3.97", "4.01")]
        )
    )
    text = screen.export_text()
    assert all(word in text for word in ("CPU seconds", "quartiles", "3.89-3.97", "4.01"))
    assert "run --suite digits" not in text
    assert "…" not in text
