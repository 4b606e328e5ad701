"""Cells of the paper on made-up data of the real shape, to time training steps with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmark import data, models
from benchmark.data.catalogue import SHAPES, TRAIN_EXAMPLES
from benchmark.data.tensors import TensorDataset
from benchmark.spec import Data, Model, Optimizer, RunSpec, SpecError
from benchmark.suites import cell, cifar10, mnist, rivals_cifar10, rivals_mnist

BATCHES = 8
MODELS = tuple(sorted({*models.CATALOGUE} - {"resnet50"}))  # its batches are 1024
RIVALS: dict[str, tuple[Data, Optimizer]] = {  # networks that only these suites train
    "mlp-300-100-bn": (rivals_mnist.MNIST, rivals_mnist.SGD),
    "wrn-22-2": (rivals_cifar10.CIFAR10, rivals_cifar10.RIGL_SGD),
    "wrn-28-2": (rivals_cifar10.CIFAR10, rivals_cifar10.SGD),
}


@dataclass(frozen=True, eq=False)
class FewBatches(TensorDataset):
    """A few batches in place of a whole epoch; methods see the real number of steps per epoch."""

    epoch_examples: int

    @property
    def train_size(self) -> int:
        return self.epoch_examples

    def steps_per_epoch(self, batch_size: int) -> int:
        return -(-self.epoch_examples // batch_size)


def spec_of(model: str, method: str) -> RunSpec:
    """The paper's cell of one of MODELS, on made-up pixels, with the method's defaults.

    Raises SpecError.
    """
    real, optimizer = data_and_optimizer(model)
    pixels = Data(
        name="synthetic",
        shape=SHAPES.get(real.name),
        train_limit=BATCHES * optimizer.batch_size,
        test_limit=1,
        standardize=real.standardize,
    )
    try:
        return cell(method, data=pixels, model=Model(name=model), optimizer=optimizer)
    except ValueError as error:
        raise SpecError(f"method {method}: {error}") from error


def data_and_optimizer(model: str) -> tuple[Data, Optimizer]:
    """The data and the optimizer that the suites give a model."""
    if model in mnist.LENETS:
        return mnist.MNIST, mnist.SGD
    if model in mnist.LSTMS:
        return mnist.MNIST, mnist.ADAM
    return RIVALS.get(model, (cifar10.CIFAR10, cifar10.SGD))


def train_size(real: Data) -> int:
    """How many examples an epoch of this data has."""
    return real.train_limit or TRAIN_EXAMPLES[real.name]


def load(model: str, spec: RunSpec, device: torch.device) -> FewBatches:
    """The data of such a cell, on the device."""
    pixels = data.load(spec.data, data_dir=Path(), device=device)
    assert isinstance(pixels, TensorDataset)
    fields = {field.name: getattr(pixels, field.name) for field in dataclasses.fields(pixels)}
    return FewBatches(**fields, epoch_examples=train_size(data_and_optimizer(model)[0]))
