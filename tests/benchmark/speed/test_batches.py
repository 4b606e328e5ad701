"""`speed data-path`: its arithmetic, what it times, what it refuses. No speed is asserted anywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import Bench

from benchmark import data
from benchmark.data.tensors import TensorDataset
from benchmark.speed import batches as data_path
from benchmark.speed.batches import COLUMNS, TARGET_IMAGES_A_SECOND, Turns, pixels_of, row, summary

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
# seconds per image: of three epochs, of the same ones without augmentation, of steps
TURNS = Turns([2e-6, 4e-6, 5e-6], [1e-6, 2e-6, 1e-6], [6e-6, 12e-6, 5e-6])


def summed(model: str = "vgg16", chosen: str = "own", turns: Turns = TURNS, device: torch.device = CPU) -> Any:
    return summary(model, pixels_of(model, chosen), 64, turns, device)


def test_images_a_second_are_those_of_the_epochs() -> None:
    assert summed()["images_a_second"]["median"] == pytest.approx(250_000)
    assert summed()["step_images_a_second"] == pytest.approx(1e6 / 6)
    assert summed()["n"] == 3


def test_ratio_and_share_are_of_what_ran_in_the_same_turn() -> None:
    assert summed()["plain_ratio"]["median"] == pytest.approx(2), "2, 2 and 5"
    assert summed()["share"]["median"] == pytest.approx(0.25), "2 of 8, 4 of 16, 5 of 10"


def test_without_augmentation_there_is_nothing_to_compare_with() -> None:
    found = summed("lenet-300-100", turns=dataclasses.replace(TURNS, plain=[]))
    assert (found["augment"], found["plain_ratio"]) == (None, None)
    assert len(row(found)) == len(COLUMNS)


@pytest.mark.parametrize(
    ("model", "device", "slower", "verdict"),
    [
        ("vgg16", CUDA, 2.5, "reached"),
        ("vgg16", CUDA, 2.6, "missed"),
        ("vgg16", CPU, 1, "-"),
        ("lenet-300-100", CUDA, 1, "-"),
    ],
)
def test_the_target_is_that_of_cifar10_on_a_gpu(model: str, device: torch.device, slower: float, verdict: str) -> None:
    turns = dataclasses.replace(TURNS, own=[slower * seconds for seconds in TURNS.own])
    found = summed(model, turns=turns, device=device)
    assert row(found)[-1] == verdict
    assert found["target"] == (None if verdict == "-" else TARGET_IMAGES_A_SECOND)


def test_made_up_pixels_are_as_many_as_the_real_ones_and_treated_alike() -> None:
    real, made_up = pixels_of("vgg16", "own"), pixels_of("vgg16", "synthetic")
    assert (real.name, real.augment, real.standardize) == ("cifar10", "crop-flip", True)
    assert made_up == dataclasses.replace(
        real, name="synthetic", shape=(3, 32, 32), train_limit=50_000, test_limit=made_up.test_limit
    )


@pytest.mark.data
def test_data_that_are_missing_are_found_before_anything_is_measured(
    bench: Bench, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mnist").symlink_to(data_dir / "mnist")
    monkeypatch.setattr(data_path, "measure", lambda *asked: pytest.fail("measured"))
    finished = bench("speed", "data-path", "--data-dir", tmp_path)
    assert finished.code == 3
    assert "CIFAR-10 is not in" in finished.error


def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few turns, few steps, and few examples in place of the whole data."""
    whole = pixels_of
    monkeypatch.setattr(data_path, "pixels_of", lambda *asked: dataclasses.replace(whole(*asked), train_limit=300))
    monkeypatch.setattr(data_path, "TURNS", 2)
    monkeypatch.setattr(data_path, "MOST_STEPS", 2)


def test_a_turn_draws_whole_epochs_both_ways_and_turns_change_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    pixels = dataclasses.replace(data_path.pixels_of("lenet-300-100", "synthetic"), augment="crop-flip")
    own = data.load(pixels, data_dir=Path(), device=CPU)
    assert isinstance(own, TensorDataset)
    seen: list[tuple[str | None, int, int]] = []
    drawn = TensorDataset.train_batches

    def noted(self: TensorDataset, *, batch_size: int, epoch: int, **others: Any) -> Iterator[Any]:
        batches = list(drawn(self, batch_size=batch_size, epoch=epoch, **others))
        seen.append((self.augment, epoch, sum(len(labels) for _, labels in batches)))
        return iter(batches)

    monkeypatch.setattr(TensorDataset, "train_batches", noted)
    turns = data_path.measure("lenet-300-100", own, 64)
    by_steps, *epochs = seen
    assert by_steps[:2] == ("crop-flip", 0)
    names = {"a": "crop-flip", "p": None}
    assert epochs == [(names[which], turn, 300) for turn, order in enumerate(["pa", "ap", "pa"]) for which in order]
    assert [len(seconds) for seconds in (turns.own, turns.plain, turns.step)] == [2, 2, 2]
    assert all(seconds > 0 for each in (turns.own, turns.plain, turns.step) for seconds in each)


def test_the_clock_waits_for_the_device_around_an_epoch_and_not_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    own = data.load(data_path.pixels_of("lenet-300-100", "synthetic"), data_dir=Path(), device=CPU)
    waits: list[torch.device] = []
    monkeypatch.setattr(data_path, "wait_for", waits.append)
    assert data_path.epoch_seconds(own, 8, 0) > 0
    assert waits == [CPU, CPU], "300 examples are 38 batches"


def test_the_json_has_a_row_for_every_model_and_batch_size(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    asked = ("--model", "lenet-300-100", "--model", "lenet-300-100", "--data", "synthetic", "--device", "cpu")
    document = bench("speed", "data-path", *asked, "--json").json
    assert document["kind"] == "data-path"
    assert document["data"].startswith("made-up")
    assert {"torch", "device_name", "threads", "kernel_path", "commit"} <= set(document["machine"])
    assert len(document["load_before"]) == len(document["load_after"]) == 3
    assert [(path["model"], path["batch_size"]) for path in document["paths"]] == [
        ("lenet-300-100", batch_size) for batch_size in data_path.BATCH_SIZES
    ]
    table = bench("speed", "data-path", *asked).stdout
    assert all(word in table for word in ("images/s", "load average", "made-up", "torch 2.", "threads: 1"))


@pytest.mark.data
def test_the_real_data_are_measured(bench: Bench, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    finished = bench("speed", "data-path", "--model", "lenet-300-100", "--data-dir", data_dir, "--json")
    assert {path["data"] for path in finished.json["paths"]} == {"mnist"}


@pytest.mark.parametrize(
    ("arguments", "code", "fragments"),
    [
        (["--model", "lenet-300"], 2, ["unknown model 'lenet-300'", "did you mean 'lenet-300-100'?"]),
        (["--data", "cifar10"], 2, ["unknown --data 'cifar10'", "own, synthetic"]),
        (["--device", "gpu"], 2, ["unknown device 'gpu'"]),
        (["--data-dir", "nowhere"], 3, ["MNIST is not in nowhere"]),
        (["--model", "vgg16", "--data-dir", "nowhere"], 3, ["CIFAR-10 is not in nowhere"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--") else "",
)
def test_a_wrong_option_of_the_data_path_is_one_line(
    arguments: list[str], code: int, fragments: list[str], bench: Bench
) -> None:
    finished = bench("speed", "data-path", *arguments)
    assert (finished.code, finished.stdout) == (code, "")
    assert all(fragment in finished.error for fragment in fragments), finished.error
