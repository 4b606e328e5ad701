"""ImageNet (ILSVRC2012), or any data in its layout, from folders of JPEGs.

Russakovsky et al., doi:10.1007/s11263-015-0816-y. The layout is that of torchvision's ImageFolder:
DIR/imagenet/train/CLASS/*.JPEG and DIR/imagenet/val/CLASS/*.JPEG, the same classes in both. The
files have no checksums here; they are counted, and identified by name and size.

A folder holds its files class by class, so examples are numbered in a fixed shuffle of them; limits
and validation splits are then samples of all classes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmark.data.catalogue import DataError
from benchmark.data.image_folders import ImageFolders, Paths
from benchmark.data.tensors import Dataset, limited
from benchmark.data.torchvision_import import import_torchvision
from benchmark.seeds import generator
from benchmark.spec import Data, check_names

AUGMENTATIONS = ("resized-crop-flip",)
FOLDER, SPLITS = "imagenet", ("train", "val")
SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COMPLETE = {"train": 1_281_167, "val": 50_000}
WORKERS_AT_MOST = 16


@dataclass(frozen=True, eq=False)
class Folders:
    """Both splits as file names, before limits are applied."""

    train: Paths
    test: Paths
    classes: int

    def dataset(self, spec: Data, *, device: torch.device) -> Dataset:
        """Images of spec.image_size, 224 by default; standardised by the usual statistics.

        Raises SpecError. augment "resized-crop-flip": torchvision's RandomResizedCrop and
        RandomHorizontalFlip. None: as in evaluation, the shorter side resized to 8/7 of the size,
        and the centre cropped.
        """
        check_names([spec.augment] if spec.augment is not None else [], AUGMENTATIONS, "data.augment")
        train, test = limited(spec, self.train, self.test)
        mean, std = (MEAN, STD) if spec.standardize else ((0.0,) * 3, (1.0,) * 3)
        return ImageFolders(
            name=spec.name,
            train=train,
            test=test,
            classes=self.classes,
            size=spec.image_size if spec.image_size is not None else SIZE,
            augment=spec.augment is not None,
            mean=torch.tensor(mean, device=device),
            std=torch.tensor(std, device=device),
            workers=loader_workers(device),
        )


def loader_workers(device: torch.device) -> int:
    """0 on the CPU, where training needs every core; on a GPU one process for each core but one."""
    if device.type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores - 1, WORKERS_AT_MOST)


def read(spec: Data, data_dir: Path) -> Folders:
    """The file names of both splits.

    Raises DataError where a folder is missing, or their classes differ.
    """
    (train, classes), (test, test_classes) = (_scan(data_dir, split) for split in SPLITS)
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise DataError(f"{data_dir / FOLDER}: train and val have different classes, {odd[0]} is only in one of them")
    return Folders(_shuffled(train, "train"), _shuffled(test, "val"), len(classes))


def fetch(data_dir: Path) -> None:
    """Check what is there, as it cannot be downloaded.

    Raises DataError, which says how to lay the files out.
    """
    if not all((data_dir / FOLDER / split).is_dir() for split in SPLITS):
        raise DataError(f"ImageNet cannot be downloaded from here: {_by_hand(data_dir)}")
    verify(data_dir)


def verify(data_dir: Path) -> list[str]:
    """One line per split with its classes and files.

    Raises DataError for a missing folder, and for a file that is empty or a broken link.
    """
    read(Data(name="imagenet"), data_dir)
    return [_count(data_dir, split) for split in SPLITS]


def fingerprint(data_dir: Path) -> str:
    """SHA-256 over each file's name and size; reading all bytes would take too long.

    Raises DataError.
    """
    whole = hashlib.sha256()
    for split in SPLITS:
        paths, _ = _scan(data_dir, split)
        for name, size in zip(paths.names.tolist(), _sizes(paths), strict=True):
            whole.update(b"%s/%s %d\n" % (split.encode(), name, size))
    return whole.hexdigest()


def _scan(data_dir: Path, split: str) -> tuple[Paths, list[str]]:
    """The files of one split sorted by class and name, and the names of its classes."""
    root = data_dir / FOLDER / split
    try:
        found = import_torchvision().datasets.ImageFolder(str(root))
    except OSError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{root} cannot be used: {_by_hand(data_dir)} (reason: {reason})") from error
    names = np.array([os.fsencode(os.path.relpath(path, root)) for path, _ in found.samples])
    return Paths(root, names, torch.tensor(found.targets)), found.classes


def _shuffled(paths: Paths, split: str) -> Paths:
    order = torch.randperm(len(paths), generator=generator(0, f"imagenet {split}"))
    return Paths(paths.root, paths.names[order.numpy()], paths.labels[order])


def _sizes(paths: Paths) -> npt.NDArray[np.int64]:
    """Bytes of each file. Raises DataError for one that is empty or is not there, as behind a broken link."""
    try:
        sizes = np.array([paths.path(index).stat().st_size for index in range(len(paths))])
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}; put a good copy in its place") from error
    if not sizes.all():
        raise DataError(f"{paths.path(int(sizes.argmin()))} is empty: put a good copy in its place")
    return sizes


def _count(data_dir: Path, split: str) -> str:
    paths, classes = _scan(data_dir, split)
    size = _sizes(paths).sum()
    complete = (len(classes), len(paths)) == (1000, COMPLETE[split])
    note = "" if complete else f"; ILSVRC2012 has 1000 and {COMPLETE[split]}"
    return f"{paths.root}: {len(classes)} classes, {len(paths)} files, {size} bytes{note}"


def _by_hand(data_dir: Path) -> str:
    folder = data_dir / FOLDER
    return (
        f"get ILSVRC2012 from https://image-net.org, which wants a registration, and lay it out as "
        f"{folder}/train/CLASS/*.JPEG and {folder}/val/CLASS/*.JPEG"
    )
