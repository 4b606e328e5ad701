"""Images read from files when they are needed, by loader processes whose number changes no bits.

The order of an epoch follows from (seed, epoch), and each example's augmentation from (seed, epoch,
example).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as LoaderDataset

from benchmark.data.catalogue import DataError
from benchmark.data.tensors import WHOLE, standardized
from benchmark.data.torchvision_import import import_torchvision
from benchmark.seeds import derive, generator

Read = tuple[Tensor, Tensor] | str


@dataclass(frozen=True, eq=False)
class Paths:
    """names: [n], bytes, relative to root; labels: int64 [n]."""

    root: Path
    names: npt.NDArray[np.bytes_]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def slice(self, start: int, stop: int) -> Paths:
        return Paths(self.root, self.names[start:stop], self.labels[start:stop])

    def path(self, index: int) -> Path:
        return self.root / os.fsdecode(bytes(self.names[index]))


@dataclass(frozen=True, eq=False)
class ImageFolders:
    """The data of one cell, in files; follows `Dataset`.

    size: rows and columns of the network's input. augment: only in training. mean, std: float32
    [3], on the device. workers: spawned processes that read, each with up to two batches in shared
    memory; 0: this process reads.
    """

    name: str
    train: Paths
    test: Paths
    classes: int
    size: int
    augment: bool
    mean: Tensor
    std: Tensor
    workers: int

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (3, self.size, self.size)

    @property
    def train_size(self) -> int:
        return len(self.train)

    @property
    def test_size(self) -> int:
        return len(self.test)

    def steps_per_epoch(self, batch_size: int) -> int:
        return -(-len(self.train) // batch_size)

    def train_batches(
        self, *, batch_size: int, seed: int, epoch: int, start_step: int = 0, share: slice = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch from a step on; only the files of the share are read.

        Raises DataError for an unreadable file.
        """
        order = torch.randperm(len(self.train), generator=generator(seed, "order", epoch))
        draws = (seed, epoch) if self.augment else None
        return self._read(_Batches(self.train, order, batch_size, self.size, draws, share), start_step)

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every test example once, in order and never augmented. Raises DataError."""
        order = torch.arange(len(self.test))
        return self._read(_Batches(self.test, order, batch_size, self.size, None), 0)

    def _read(self, batches: _Batches, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        workers = min(self.workers, len(batches) - start)
        loader: DataLoader[Read] = DataLoader(
            batches,
            batch_size=None,
            sampler=range(start, len(batches)),
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # otherwise the loader draws from the global one
        )
        for read in loader:
            if isinstance(read, str):
                raise DataError(read)
            images, labels = (part.to(self.device, non_blocking=True) for part in read)
            yield standardized(images, self.mean, self.std), labels


class _Batches(LoaderDataset[Read]):
    """Batch number -> images uint8 [b, 3, size, size] and labels [b], or what is wrong with a file.

    draws: (seed, epoch) of the augmentation, or None. share: which examples of a batch are wanted.
    Spawned processes receive this object: it holds plain values, and torchvision is imported when
    the first image is read.
    """

    def __init__(
        self,
        paths: Paths,
        order: Tensor,
        batch_size: int,
        size: int,
        draws: tuple[int, int] | None,
        share: slice = WHOLE,
    ) -> None:
        self.paths, self.order, self.batch_size = paths, order, batch_size
        self.size, self.draws, self.share = size, draws, share

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, step: int) -> Read:
        chosen = self.order[step * self.batch_size : (step + 1) * self.batch_size][self.share]
        images = [torch.empty(0, 3, self.size, self.size, dtype=torch.uint8)]
        for index in chosen.tolist():
            path = self.paths.path(index)
            try:
                images.append(_image(path, self.size, self._seed(index))[None])
            except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for bad files
                return f"{path} cannot be read: {' '.join(str(error).split())}; put a good copy in its place"
        return torch.cat(images), self.paths.labels[chosen]

    def _seed(self, index: int) -> int | None:
        if self.draws is None:
            return None
        seed, epoch = self.draws
        return derive(seed, f"augmentation of epoch {epoch}", index)


def _image(path: Path, size: int, seed: int | None) -> Tensor:
    """uint8 [3, size, size]: a resized random crop, perhaps flipped; without a seed the centre."""
    torchvision = import_torchvision()
    transforms = torchvision.transforms
    image = torchvision.datasets.folder.pil_loader(str(path))
    if seed is None:
        view = transforms.Compose([transforms.Resize(round(size * 8 / 7)), transforms.CenterCrop(size)])
        shown = view(image)
    else:
        view = transforms.Compose([transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()])
        with torch.random.fork_rng(devices=[]):  # torchvision draws only from the global generator
            torch.default_generator.manual_seed(seed)
            shown = view(image)
    pixels: Tensor = transforms.functional.pil_to_tensor(shown)
    return pixels
