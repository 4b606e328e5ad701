"""Data as tensors: splits, limits, standardising, and batches that a resume repeats bit by bit."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmark import data
from benchmark.data import digits
from benchmark.data.tensors import Split, TensorDataset, statistics
from benchmark.spec import Data, SpecError

CPU = torch.device("cpu")


def load(name: str = "synthetic", **fields: Any) -> TensorDataset:
    return data.load(Data(name=name, **fields), data_dir=Path("nowhere"), device=CPU)


def epoch(dataset: TensorDataset, **changes: int) -> list[tuple[Tensor, Tensor]]:
    return list(dataset.train_batches(**({"batch_size": 32, "seed": 0, "epoch": 0} | changes)))


def same(ours: list[tuple[Tensor, Tensor]], theirs: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = list(zip(ours, theirs, strict=True))
    return all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_names_are_listed_without_importing_torch() -> None:
    code = "import sys, benchmark.data as d; print(d.available() == sorted(d.describe()), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


@pytest.mark.parametrize("use", [data.fetch, data.verify, data.fingerprint])
def test_an_unknown_name_is_answered_with_the_nearest(use: Any) -> None:
    with pytest.raises(SpecError, match=r"did you mean 'mnist'\? valid: cifar10, digits, fashion-mnist, imagenet"):
        use("mnits", Path())
    with pytest.raises(SpecError, match="did you mean 'mnist'"):
        load("mnits")


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_data_without_files_need_no_folder(name: str) -> None:
    data.fetch(name, Path("nowhere"))
    assert len(data.verify(name, Path("nowhere"))) == 1
    assert data.fingerprint(name, Path("nowhere")) == data.fingerprint(name, Path("elsewhere"))
    assert len(load(name).train) > 0


def test_digits_are_split_by_class() -> None:
    whole = load("digits")
    assert (len(whole.train), len(whole.test), whole.in_shape) == (1437, 360, (1, 28, 28))
    train, test = whole.train.labels.bincount(), whole.test.labels.bincount()
    assert train.sum() + test.sum() == 1797
    assert len(train) == len(test) == 10
    assert (test - (train + test) / 5).abs().max() < 1


def test_digits_are_enlarged_bilinearly_to_the_full_range() -> None:
    ramp = torch.arange(8)[None, :, None].expand(1, 8, 8) * 2  # 0, 2, … 14 down the rows
    column = digits.enlarge(ramp)[0, 0, :, 0]
    centres = (torch.arange(28, dtype=torch.float64) + 0.5) * 8 / 28 - 0.5
    assert (column - centres.clamp(0, 7) * 2 * 255 / 16).abs().max() <= 0.5 + 1e-6
    assert digits.enlarge(torch.full((1, 8, 8), 16)).unique().tolist() == [255]


def test_another_copy_of_digits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "SHA256", "0" * 64)
    with pytest.raises(data.DataError, match=f"expected SHA-256 {'0' * 64}, found 87ff0c9e"):
        load("digits")


def test_synthetic_data_have_the_shape_and_size_of_the_spec() -> None:
    assert (len(load().train), len(load().test), load().in_shape, load().classes) == (2000, 500, (1, 28, 28), 10)
    made = load(shape=(3, 8, 6), classes=4, train_limit=70, test_limit=3000)
    assert made.train.images.shape == (70, 3, 8, 6)
    assert len(made.test) == 3000
    assert made.classes == 4
    assert sorted(made.train.labels.unique().tolist()) == [0, 1, 2, 3]


def test_synthetic_data_are_the_same_each_time_and_the_test_split_is_new() -> None:
    once, again = load(shape=(1, 8, 8)), load(shape=(1, 8, 8))
    assert torch.equal(once.train.images, again.train.images)
    assert torch.equal(once.test.images, again.test.images)
    assert not torch.equal(once.train.images[:500], once.test.images)


def test_synthetic_classes_can_be_learned() -> None:
    made = load(shape=(1, 8, 8), standardize=True)
    (images, labels), (test_images, test_labels) = epoch(made, batch_size=2000)[0], next(made.test_batches(500))
    means = torch.stack([images[labels == label].mean(0) for label in range(10)])
    nearest = (test_images[:, None] - means).pow(2).sum((2, 3, 4)).argmin(1)
    assert (nearest == test_labels).float().mean() > 0.9


@pytest.mark.parametrize("shape", [(28, 28), (1, 0, 28), (1, 2, 3, 4)])
def test_a_shape_that_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match=r"data\.shape is \["):
        load(shape=shape)


@pytest.mark.parametrize("fields", [{"shape": (1, 8, 8)}, {"classes": 3}])
def test_shape_and_classes_of_real_data_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="of synthetic data only"):
        load("digits", **fields)


def test_an_image_size_is_of_imagenet_only() -> None:
    with pytest.raises(SpecError, match=r"data\.image_size is of imagenet data only: leave it out for 'digits'"):
        load("digits", image_size=32)


def test_a_data_set_says_its_sizes_and_its_device() -> None:
    made = load(train_limit=70, validation=5)
    assert (made.train_size, made.test_size, made.device) == (70, 5, CPU)


def test_limits_are_the_first_examples() -> None:
    whole, part = load("digits"), load("digits", train_limit=50, test_limit=7)
    assert torch.equal(part.train.images, whole.train.images[:50])
    assert len(part.train) == 50
    assert torch.equal(part.test.labels, whole.test.labels[:7])
    assert len(part.test) == 7


def test_validation_is_the_end_of_training_and_leaves_it() -> None:
    whole, held = load("digits"), load("digits", validation=100, train_limit=1337)
    assert torch.equal(held.test.images, whole.train.images[-100:])
    assert torch.equal(held.train.images, whole.train.images[:1337])
    made = load(validation=30, train_limit=100, shape=(1, 8, 8))
    assert (len(made.train), len(made.test)) == (100, 30)


@pytest.mark.parametrize(
    "fields",
    [
        {"train_limit": 1438},
        {"test_limit": 361},
        {"validation": 1437},
        {"validation": 100, "train_limit": 1338},
        {"validation": 100, "test_limit": 101},
    ],
)
def test_more_examples_than_there_are_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(SpecError, match=r"data\.\w+ is \d+: "):
        load("digits", **fields)


def test_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(SpecError, match="did you mean 'crop-flip'"):
        load("digits", augment="crop-flop")


def test_pixels_are_255ths() -> None:
    whole = load("digits")
    images, labels = next(whole.test_batches(16))
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert torch.equal(images, whole.test.images[:16].float() / 255)


def test_standardising_uses_the_whole_training_split() -> None:
    part = load("digits", standardize=True, train_limit=20, validation=400)
    pixels = load("digits").train.images.double() / 255
    assert part.mean.item() == pytest.approx(pixels.mean().item(), rel=1e-6)
    assert part.std.item() == pytest.approx(pixels.std(correction=0).item(), rel=1e-6)
    images, _ = next(part.test_batches(8))
    torch.testing.assert_close(images, (part.test.images[:8] / 255 - part.mean) / part.std)


def test_statistics_are_per_channel() -> None:
    images = torch.tensor([[[[0, 255]], [[51, 51]]], [[[0, 255]], [[51, 153]]]], dtype=torch.uint8)  # [2, 2, 1, 2]
    mean, std = statistics(images)
    torch.testing.assert_close(mean, torch.tensor([0.5, 0.3]))
    torch.testing.assert_close(std, torch.tensor([0.5, 0.03**0.5]))


def test_an_epoch_shows_every_example_once_in_an_order_of_its_own() -> None:
    small = load(shape=(1, 8, 8), train_limit=100)
    orders = []
    for seed, number in [(0, 0), (0, 1), (1, 0)]:
        batches = epoch(small, seed=seed, epoch=number)
        assert [len(labels) for _, labels in batches] == [32, 32, 32, 4]
        assert len(batches) == small.steps_per_epoch(32)
        seen = torch.cat([images for images, _ in batches]).flatten(1)
        whole = small.train.images.flatten(1) / 255
        orders.append((seen[:, None] == whole).all(2).nonzero()[:, 1].tolist())
        assert sorted(orders[-1]) == list(range(100))
        assert torch.equal(torch.cat([labels for _, labels in batches]), small.train.labels[orders[-1]])
    assert orders[0] != orders[1] != orders[2] != orders[0]


@pytest.mark.parametrize("augment", [None, "crop-flip"])
@pytest.mark.parametrize("start_step", [0, 1, 3, 4])
def test_a_resumed_epoch_repeats_the_remaining_batches(augment: str | None, start_step: int) -> None:
    small = load(shape=(3, 8, 8), train_limit=100, augment=augment, standardize=True)
    assert same(epoch(small, epoch=2)[start_step:], epoch(small, epoch=2, start_step=start_step))


def test_augmentation_leaves_the_order_and_the_test_split_alone() -> None:
    plain, augmented = load(train_limit=64), load(train_limit=64, augment="crop-flip")
    assert torch.equal(epoch(plain)[0][1], epoch(augmented)[0][1])
    assert not torch.equal(epoch(plain)[0][0], epoch(augmented)[0][0])
    assert same(list(plain.test_batches(100)), list(augmented.test_batches(100)))


def test_augmentation_is_drawn_anew_for_each_epoch_and_seed() -> None:
    augmented = load(train_limit=1, augment="crop-flip")
    one = augmented.train
    alike = dataclasses.replace(augmented, train=Split(one.images.repeat(64, 1, 1, 1), one.labels.repeat(64)))
    first, again = epoch(alike), epoch(alike)
    assert same(first, again)
    assert not same(first, epoch(alike, epoch=1))
    assert not same(first, epoch(alike, seed=1))


def test_the_border_of_a_crop_is_a_black_pixel_before_standardising() -> None:
    bright = load(train_limit=200, augment="crop-flip", standardize=True)
    images, _ = epoch(bright, batch_size=200)[0]
    black = (torch.zeros(1) - bright.mean) / bright.std
    corners = images[:, 0, 0, 0]
    assert (corners == black).float().mean() > 0.5  # a corner is padding in 65 of 81 crops


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    epoch(load(train_limit=64, augment="crop-flip"))
    load("digits")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("augment", "shown"), [(None, "6c1776336afcfc7b"), ("crop-flip", "69e55d5c6f695117")], ids=["plain", "crop-flip"]
)
def test_the_batches_of_a_seed_and_an_epoch_are_these_bits(augment: str | None, shown: str) -> None:
    made = load(shape=(3, 12, 8), train_limit=100, augment=augment, standardize=True)
    content = hashlib.sha256()
    for images, labels in epoch(made, seed=3, epoch=2):
        content.update(images.numpy().tobytes() + labels.numpy().tobytes())
    assert content.hexdigest()[:16] == shown


class Computing(TorchDispatchMode):
    """Collects the operators that are more than a view: about as many kernels on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("augment", "most"), [(None, 6), ("crop-flip", 10)])
def test_a_batch_takes_few_operators_whatever_its_size(augment: str | None, most: int) -> None:
    """100,000 images a second in batches of 64 are 640 us per batch: launching a kernel on a GPU takes 5 to 10."""
    made = load(shape=(3, 8, 8), train_limit=300, augment=augment, standardize=True)
    for batch_size in (10, 100):
        batches = made.train_batches(batch_size=batch_size, seed=0, epoch=0)
        next(batches)
        with Computing() as operators:
            next(batches)
        assert len(operators.seen) <= most, operators.seen
