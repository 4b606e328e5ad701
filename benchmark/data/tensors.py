"""The interface of data sets as training uses them, and data sets that are tensors on the device.

Shapes: n examples, b a batch, c channels, h rows, w columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from benchmark.data.augmentation import AUGMENTATIONS, crop_flip, crop_flip_draws, crop_flip_places
from benchmark.seeds import generator
from benchmark.spec import Data, SpecError, check_names

WHOLE = slice(None)


class Dataset(Protocol):
    """The data of one cell: what training and measuring need."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> torch.device:
        """Where the batches lie."""

    @property
    def classes(self) -> int: ...

    @property
    def in_shape(self) -> tuple[int, ...]:
        """(c, h, w)"""

    @property
    def train_size(self) -> int:
        """Examples of an epoch."""

    @property
    def test_size(self) -> int: ...

    def steps_per_epoch(self, batch_size: int) -> int:
        """The last, smaller batch counts."""

    def train_batches(
        self, *, batch_size: int, seed: int, epoch: int, start_step: int = 0, share: slice = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in its own order: inputs float32 [b, c, h, w] and labels int64 [b].

        The last batch may be smaller. Order and augmentation follow only from (seed, epoch), so the
        batches from start_step on have the same bits whether or not the earlier ones were made.
        share: only these examples of each batch, unchanged; of the last batch there may be none.
        """

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every test example once, in order and never augmented; shapes as in train_batches."""


class Sliceable(Protocol):
    """A split that limits can be applied to."""

    def __len__(self) -> int: ...

    def slice(self, start: int, stop: int) -> Self: ...


S = TypeVar("S", bound=Sliceable)


@dataclass(frozen=True, eq=False)
class Split:
    """images: uint8 [n, c, h, w]; labels: int64 [n]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def slice(self, start: int, stop: int) -> Split:
        return Split(self.images[start:stop], self.labels[start:stop])

    def to(self, device: torch.device) -> Split:
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Examples:
    """Both splits of a data set, on the CPU.

    normalizations: mean and deviation per channel, of pixels in [0, 1], by the name that
    `Data.normalization` has.
    """

    train: Split
    test: Split
    classes: int
    normalizations: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)

    def dataset(self, spec: Data, *, device: torch.device) -> Dataset:
        """The data set that spec asks for, on the device. Raises SpecError.

        Statistics are those of the whole training split, before a validation split and limits.
        """
        check_names([spec.augment] if spec.augment is not None else [], AUGMENTATIONS, "data.augment")
        channels = self.train.images.shape[1]
        mean, std = torch.zeros(channels), torch.ones(channels)
        if spec.normalization is not None:
            check_names([spec.normalization], self.normalizations, "data.normalization")
            mean, std = (torch.tensor(values) for values in self.normalizations[spec.normalization])
        elif spec.standardize:
            mean, std = statistics(self.train.images)
            if not std.all():
                channel = int((std == 0).nonzero()[0])
                raise SpecError(f"{spec.name}: channel {channel} is constant, so it cannot be standardised")
        train, test = limited(spec, self.train, self.test)
        return TensorDataset(
            name=spec.name,
            train=train.to(device),
            test=test.to(device),
            classes=self.classes,
            mean=mean.to(device),
            std=std.to(device),
            augment=spec.augment,
        )


@dataclass(frozen=True, eq=False)
class TensorDataset:
    """The data of one cell, all on one device; follows `Dataset`.

    mean, std: float32 [c], for pixels in [0, 1]; 0 and 1 if the spec does not standardise. augment:
    None or "crop-flip", only in training.
    """

    name: str
    train: Split
    test: Split
    classes: int
    mean: Tensor
    std: Tensor
    augment: str | None

    @property
    def device(self) -> torch.device:
        return self.train.labels.device

    @property
    def in_shape(self) -> tuple[int, ...]:
        return tuple(self.train.images.shape[1:])

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
        """One epoch.

        Order and augmentation are drawn for the whole epoch on the CPU and copied to the device
        once; after that nothing waits for the device.
        """
        order = self._draw(torch.randperm(len(self.train), generator=generator(seed, "order", epoch)))
        draws = places = None
        if self.augment == "crop-flip":
            places = crop_flip_places(*self.in_shape[1:], device=self.device)
            draws = self._draw(crop_flip_draws(len(self.train), generator=generator(seed, "augmentation", epoch)))
        for start in range(start_step * batch_size, len(self.train), batch_size):
            index = order[start : start + batch_size][share]
            images = self.train.images.index_select(0, index)  # copies whole images
            if draws is not None and places is not None:
                images = crop_flip(images, draws[start : start + batch_size][share], places)
            yield self._inputs(images), self.train.labels.index_select(0, index)

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.test), batch_size):
            batch = self.test.slice(start, start + batch_size)
            yield self._inputs(batch.images), batch.labels

    def _draw(self, drawn: Tensor) -> Tensor:
        return drawn.to(self.device, non_blocking=True)

    def _inputs(self, images: Tensor) -> Tensor:
        return standardized(images, self.mean, self.std)


def standardized(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """float32 [b, c, h, w] of uint8 images: pixels in [0, 1], minus mean [c], by std [c]."""
    pixels = images.to(torch.float32).div_(255)
    return pixels.sub_(mean[:, None, None]).div_(std[:, None, None])


def limited(spec: Data, train: S, test: S) -> tuple[S, S]:
    """Both splits after the spec's validation split and limits.

    Raises SpecError if there are too few examples.
    """
    if spec.validation is not None:
        kept = len(train) - spec.validation
        if kept < 1:
            raise SpecError(f"data.validation is {spec.validation}: '{spec.name}' has {len(train)} training examples")
        train, test = train.slice(0, kept), train.slice(kept, len(train))
    return _first(train, spec.train_limit, "data.train_limit"), _first(test, spec.test_limit, "data.test_limit")


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population deviation per channel, float32 [c], of pixels in [0, 1].

    images: uint8 [n, c, h, w]. From exact counts of the 256 levels, so the bits are the same on
    every machine and no float copy is needed.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(dim=1)])
    shares = counts / counts.sum(dim=1, keepdim=True, dtype=torch.float64)
    mean = (shares * levels).sum(dim=1)
    variance = (shares * (levels - mean[:, None]) ** 2).sum(dim=1)
    return mean.float(), variance.sqrt().float()


def _first(split: S, limit: int | None, field: str) -> S:
    if limit is None:
        return split
    if limit > len(split):
        raise SpecError(f"{field} is {limit}: there are only {len(split)} examples to take them from")
    return split.slice(0, limit)
