"""Folders of JPEGs: torchvision's layout and views, and batches that are the same bits however they are read."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import re
import shutil
from pathlib import Path
from typing import Any

import grids
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmark import data
from benchmark.data import imagenet
from benchmark.data.image_folders import ImageFolders
from benchmark.data.torchvision_import import import_torchvision
from benchmark.seeds import generator
from benchmark.spec import Data, Model, Optimizer, SpecError
from benchmark.suites import cell
from benchmark.training import records
from benchmark.training.loop import Training, train_epoch

CPU = torch.device("cpu")
CLASSES = ("ant", "bee", "cat")
TRAIN, VAL = 8, 3  # images a class
AUGMENTED = {"augment": "resized-crop-flip", "standardize": True}

Batches = list[tuple[Tensor, Tensor]]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of JPEGs of many sizes, each of a colour of its own under noise."""
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("val", VAL)):
        for label, name in enumerate(CLASSES):
            inside = root / "imagenet" / split / name
            inside.mkdir(parents=True)
            for number in range(count):
                rows, columns = random.integers(40, 90, size=2)
                pixels = random.integers(0, 120, size=(rows, columns, 3), dtype=np.uint8)
                pixels[:, :, label] += 120
                Image.fromarray(pixels).save(inside / f"{name}_{number}.JPEG", format="JPEG")
    gray = root / "imagenet/train/ant/ant_0.JPEG"
    Image.open(gray).convert("L").save(gray, format="JPEG")
    return root


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def load(folder: Path, *, image_size: int | None = 32, workers: int = 0, **fields: Any) -> ImageFolders:
    spec = Data(name="imagenet", image_size=image_size, **fields)
    return dataclasses.replace(data.load(spec, data_dir=folder, device=CPU), workers=workers)


def epoch(dataset: ImageFolders, **changes: Any) -> Batches:
    return list(dataset.train_batches(**({"batch_size": 5, "seed": 0, "epoch": 0} | changes)))


def same(ours: Batches, theirs: Batches) -> bool:
    pairs = list(zip(ours, theirs, strict=True))
    return all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in pairs)


def by_example(dataset: ImageFolders, batches: Batches, seed: int = 0, number: int = 0) -> dict[str, Tensor]:
    """The images of an epoch by the names of their files."""
    order = torch.randperm(dataset.train_size, generator=generator(seed, "order", number))
    assert torch.equal(torch.cat([labels for _, labels in batches]), dataset.train.labels[order])
    images = torch.cat([images for images, _ in batches])
    return {str(dataset.train.path(index)): image for index, image in zip(order.tolist(), images, strict=True)}


def test_the_layout_is_that_of_image_folder(folder: Path) -> None:
    loaded = load(folder)
    assert (loaded.train_size, loaded.test_size, loaded.classes) == (3 * TRAIN, 3 * VAL, 3)
    assert (loaded.in_shape, loaded.device, loaded.steps_per_epoch(5)) == ((3, 32, 32), CPU, 5)
    theirs = dict(import_torchvision().datasets.ImageFolder(str(folder / "imagenet/train")).samples)
    ours = {str(loaded.train.path(index)): int(label) for index, label in enumerate(loaded.train.labels)}
    assert ours == theirs


def test_the_size_is_224_unless_the_spec_says_otherwise(folder: Path) -> None:
    loaded = load(folder, image_size=None, **AUGMENTED)
    assert loaded.in_shape == (3, 224, 224)
    assert next(iter(epoch(loaded)))[0].shape == (5, 3, 224, 224)
    spec = cell("dense", data=Data(name="imagenet"), model=Model(name="resnet50"), optimizer=Optimizer())
    assert spec.to_dict()["data"] == {"name": "imagenet", "standardize": False}


@pytest.mark.parametrize("size", [None, 32])
def test_evaluation_is_torchvisions_centre_crop(folder: Path, size: int | None) -> None:
    loaded = load(folder, image_size=size, standardize=True)
    transforms = import_torchvision().transforms
    resized, cropped = (256, 224) if size is None else (37, 32)
    view = transforms.Compose(
        [
            transforms.Resize(resized),
            transforms.CenterCrop(cropped),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    images = torch.cat([images for images, _ in loaded.test_batches(4)])
    theirs = [view(Image.open(loaded.test.path(index)).convert("RGB")) for index in range(loaded.test_size)]
    torch.testing.assert_close(images, torch.stack(theirs))


def test_without_an_augmentation_training_sees_what_evaluation_sees(folder: Path) -> None:
    loaded = load(folder)
    swapped = dataclasses.replace(loaded, test=loaded.train)
    shown = by_example(loaded, epoch(loaded))
    expected = torch.cat([images for images, _ in swapped.test_batches(6)])
    for index, image in enumerate(expected):
        assert torch.equal(shown[str(loaded.train.path(index))], image)


def test_an_epoch_shows_every_example_once_in_an_order_of_its_own(folder: Path) -> None:
    loaded = load(folder)
    orders = []
    for seed, number in [(0, 0), (0, 1), (1, 0)]:
        batches = epoch(loaded, seed=seed, epoch=number)
        assert [len(labels) for _, labels in batches] == [5, 5, 5, 5, 4]
        assert len(by_example(loaded, batches, seed, number)) == 3 * TRAIN
        orders.append(torch.cat([labels for _, labels in batches]).tolist())
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_crops_follow_from_seed_epoch_and_example_alone(folder: Path) -> None:
    loaded = load(folder, **AUGMENTED)
    once = by_example(loaded, epoch(loaded))
    in_other_batches = by_example(loaded, epoch(loaded, batch_size=7))
    assert all(torch.equal(image, in_other_batches[name]) for name, image in once.items())
    for changes in ({"epoch": 1}, {"seed": 1}):
        other = by_example(loaded, epoch(loaded, **changes), changes.get("seed", 0), changes.get("epoch", 0))
        assert not any(torch.equal(image, other[name]) for name, image in once.items())


@pytest.mark.parametrize("start_step", [0, 2, 4, 5])
@pytest.mark.parametrize("fields", [{}, AUGMENTED], ids=["plain", "augmented"])
def test_a_resumed_epoch_repeats_the_remaining_batches(folder: Path, fields: dict[str, Any], start_step: int) -> None:
    loaded = load(folder, **fields)
    assert same(epoch(loaded, epoch=2)[start_step:], epoch(loaded, epoch=2, start_step=start_step))


@pytest.mark.slow
def test_loader_processes_change_no_bit_nor_does_a_resume(folder: Path) -> None:
    alone, two = load(folder, **AUGMENTED), load(folder, workers=2, **AUGMENTED)
    before = torch.get_rng_state()
    assert same(epoch(alone, epoch=1), epoch(two, epoch=1))
    assert same(epoch(alone, epoch=1)[3:], epoch(two, epoch=1, start_step=3))
    assert same(list(alone.test_batches(4)), list(two.test_batches(4)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_an_epoch_left_in_the_middle_leaves_no_loader_process(folder: Path) -> None:
    batches = load(folder, workers=2, **AUGMENTED).train_batches(batch_size=5, seed=0, epoch=0)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


def test_the_global_generator_is_left_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    loaded = load(folder, **AUGMENTED)
    epoch(loaded), list(loaded.test_batches(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_limits_and_validation_are_samples_of_all_classes(folder: Path) -> None:
    whole, held = load(folder), load(folder, validation=8, train_limit=12)
    assert (held.train_size, held.test_size) == (12, 8)
    assert sorted(held.train.labels.unique().tolist()) == sorted(held.test.labels.unique().tolist()) == [0, 1, 2]
    assert held.train.names.tolist() == whole.train.names[:12].tolist()
    assert held.test.names.tolist() == whole.train.names[-8:].tolist()
    assert load(folder).train.names.tolist() == whole.train.names.tolist()
    with pytest.raises(SpecError, match=r"data\.test_limit is 10: there are only 9"):
        load(folder, test_limit=10)


def test_an_augmentation_of_other_data_is_refused(folder: Path) -> None:
    with pytest.raises(SpecError, match="'crop-flip': did you mean 'resized-crop-flip'"):
        load(folder, augment="crop-flip")


def test_files_are_counted_and_compared_with_the_complete_set(folder: Path) -> None:
    train, val = data.verify("imagenet", folder)
    assert train.startswith(f"{folder}/imagenet/train: 3 classes, 24 files, ")
    assert train.endswith("; ILSVRC2012 has 1000 and 1281167")
    assert val.startswith(f"{folder}/imagenet/val: 3 classes, 9 files, ")
    data.fetch("imagenet", folder)


def test_the_fingerprint_is_of_names_and_sizes(folder: Path, copy: Path) -> None:
    before = data.fingerprint("imagenet", copy)
    assert before == data.fingerprint("imagenet", folder)
    (copy / "imagenet/val/bee/bee_0.JPEG").rename(copy / "imagenet/val/bee/bee_9.JPEG")
    renamed = data.fingerprint("imagenet", copy)
    with (copy / "imagenet/val/bee/bee_1.JPEG").open("ab") as file:
        file.write(b"\0")
    assert len({before, renamed, data.fingerprint("imagenet", copy)}) == 3


def test_fetch_says_how_to_lay_it_out(tmp_path: Path) -> None:
    for use in (data.fetch, data.verify, data.fingerprint):
        with pytest.raises(data.DataError) as caught:
            use("imagenet", tmp_path)
        assert "https://image-net.org" in str(caught.value)
        assert f"{tmp_path}/imagenet/train/CLASS/*.JPEG and {tmp_path}/imagenet/val/CLASS/*.JPEG" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_different_classes_and_empty_folders_and_files_are_refused(copy: Path) -> None:
    (copy / "imagenet/val/ant/ant_1.JPEG").write_bytes(b"")
    with pytest.raises(data.DataError, match=r"ant_1\.JPEG is empty"):
        data.verify("imagenet", copy)
    shutil.rmtree(copy / "imagenet/val/bee")
    with pytest.raises(data.DataError, match="different classes, bee is only in one of them"):
        load(copy)
    (copy / "imagenet/val/bee").mkdir()
    with pytest.raises(data.DataError, match="Found no valid file for the classes bee"):
        load(copy)


def test_a_broken_link_among_the_images_is_missing_data(copy: Path) -> None:
    broken = copy / "imagenet/train/cat/cat_5.JPEG"
    broken.unlink()
    broken.symlink_to(copy / "gone.JPEG")
    for check in (data.verify, data.fetch, data.fingerprint):
        with pytest.raises(data.DataError, match=r"cat_5\.JPEG: No such file or directory; put a good copy") as caught:
            check("imagenet", copy)
        assert str(caught.value).startswith(str(broken))
    with pytest.raises(data.DataError, match=r"cat_5\.JPEG cannot be read: .*; put a good copy in its place"):
        epoch(load(copy, **AUGMENTED))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_file_that_is_no_image_is_named(copy: Path, workers: int) -> None:
    bad = copy / "imagenet/train/cat/cat_5.JPEG"
    bad.write_bytes(bad.read_bytes()[:300])
    with pytest.raises(data.DataError) as caught:
        epoch(load(copy, workers=workers, **AUGMENTED))
    assert str(caught.value).startswith(f"{bad} cannot be read: ")
    assert "\n" not in str(caught.value)


def test_a_training_on_the_cpu_reads_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert imagenet.loader_workers(CPU) == 0
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)))
    assert imagenet.loader_workers(torch.device("cuda")) == 5


@pytest.mark.slow
@pytest.mark.rare
@pytest.mark.parametrize("workers", [0, 2])
def test_resnet50_resumes_in_mid_epoch_to_the_same_bits(folder: Path, workers: int) -> None:
    pixels = Data(name="imagenet", image_size=32, **AUGMENTED)
    optimizer = Optimizer(lr=0.01, momentum=0.9, batch_size=6)
    spec = cell("dst", data=pixels, model=Model(name="resnet50"), optimizer=optimizer)

    def training(workers: int) -> Training:
        return Training(spec, load(folder, workers=workers, **AUGMENTED))

    whole, first, states = training(0), training(0), []
    train_epoch(whole, lambda: None)

    def stop() -> None:
        if first.step == 2:
            states.append(first.state_dict())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_epoch(first, stop)
    second = training(workers)
    second.load_state_dict(states[0])
    train_epoch(second, lambda: None)
    assert second.steps_done == whole.steps_done == 4
    assert all(torch.equal(value, second.model.state_dict()[key]) for key, value in whole.model.state_dict().items())
    summary = records.epoch_record(second)
    assert summary["train_loss"] == records.epoch_record(whole)["train_loss"]
    assert math.isfinite(summary["train_loss"])
    assert 0 <= summary["test_accuracy"] <= 100


@pytest.mark.slow
@pytest.mark.rare
@pytest.mark.usefixtures("one_thread")
def test_a_resnet50_cell_killed_between_its_epochs_ends_in_the_same_bits(folder: Path, tmp_path: Path) -> None:
    filters = ("--suite", "imagenet", "--where", "method=dst", "--where", "alpha=5e-6", "--device", "cpu")
    values = ("optimizer.epochs=2", "optimizer.lr=0.01", "optimizer.batch_size=6", "data.image_size=32")
    changes = [word for value in values for word in ("--set", value)]
    command = ("run", *filters, *changes, "--data-dir", folder)
    alone = grids.finish(grids.start(*command, "--out", tmp_path / "alone"))
    assert (alone.code, alone.stderr) == (0, "")

    killed = grids.start(*command, "--out", tmp_path / "killed", checkpoint_seconds=0)
    grids.wait_for(lambda: one_epoch_is_recorded(tmp_path / "killed"), "the end of the first epoch")
    grids.kill_all(killed)
    assert not list((tmp_path / "killed").glob("cells/*/result.json"))
    last = grids.finish(grids.start(*command, "--out", tmp_path / "killed"))
    assert (last.code, last.stderr) == (0, "")
    assert int(re.findall(r"resumed at step (\d+)", last.stdout)[0]) >= 4
    assert grids.bits(tmp_path / "killed") == grids.bits(tmp_path / "alone")


def one_epoch_is_recorded(out: Path) -> bool:
    return any('"epoch": 1' in path.read_text() for path in out.glob("cells/*/attempts/*/metrics.jsonl"))


def test_a_share_of_a_batch_is_the_same_images_as_in_the_whole(folder: Path) -> None:
    """24 images: the fifth batch of 5 has 4, of which two processes read 3 and 1."""
    dataset = load(folder, **AUGMENTED)
    first, second = (epoch(dataset, share=share) for share in (slice(3), slice(3, 5)))
    joined = [(torch.cat([a, b]), torch.cat([x, y])) for (a, x), (b, y) in zip(first, second, strict=True)]
    assert same(joined, epoch(dataset))
    assert len(epoch(dataset, share=slice(4, 5))[-1][1]) == 0
