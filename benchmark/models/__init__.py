"""The architectures by name.

torch is imported when one is made, so that `list models` answers at once. A model's `uncounted` are
patterns of module names that stay dense and are not part of the density. If a model has a
`start_epoch()`, it is called at the start of every training epoch and every evaluation.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from benchmark.seeds import derive
from benchmark.spec import Model, SpecError, check_names

if TYPE_CHECKING:
    from torch import nn

__all__ = ["available", "create", "describe", "start_epoch"]


@dataclass(frozen=True)
class Entry:
    """One architecture.

    cls: "module:Class". fixed: arguments that the name implies. options: `Model` fields and their
    values. hidden_layers: the number of `Model.widths`; 0 if the widths are fixed.
    """

    cls: str
    description: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hidden_layers: int = 0


_LSTM_OPTIONS = {"initialization": ("official-dense", "official-masked"), "hidden_state": ("carried",)}
_OFFICIAL = {"initialization": ("official-dense", "official-masked")}
_STARTS = {"initialization": ("kaiming-normal", "xavier-uniform")}
_WIDE_RESNETS = {(16, 8): "11.0 M", (16, 10): "17.1 M", (28, 8): "23.4 M", (22, 2): "1.1 M", (28, 2): "1.5 M"}
CATALOGUE = {
    "lenet-300-100": Entry(
        "benchmark.models.lenet:LeNet300100",
        "three fully connected layers, 266,200 weights on 28x28 pixels",
        options=_STARTS,
        hidden_layers=2,
    ),
    "lenet-5-caffe": Entry(
        "benchmark.models.lenet:LeNet5Caffe",
        "two convolutions, two fully connected layers, 430,500 weights on 28x28",
        options=_STARTS,
        hidden_layers=3,
    ),
    "lstm-a": Entry(
        "benchmark.models.lstm:RowLSTM", "two LSTM layers of 128 units over the rows", {"hidden": 128}, _LSTM_OPTIONS
    ),
    "lstm-b": Entry(
        "benchmark.models.lstm:RowLSTM", "two LSTM layers of 256 units over the rows", {"hidden": 256}, _LSTM_OPTIONS
    ),
    "mlp-300-100-bn": Entry(
        "benchmark.models.mlp:NormalizedMLP",
        "lenet-300-100 without biases, batch normalisation after every layer",
        hidden_layers=2,
    ),
    "resnet50": Entry("benchmark.models.resnet:resnet50", "torchvision's ResNet-50, 25.6 M parameters at 1000 classes"),
    "vgg16": Entry(
        "benchmark.models.vgg:VGG16",
        "13 convolutions, two fully connected layers, 15.0 M parameters",
        options=_OFFICIAL,
        hidden_layers=14,
    ),
    **{
        f"wrn-{depth}-{width}": Entry(
            "benchmark.models.wide_resnet:WideResNet",
            f"wide residual network, {depth} layers, {width} times as wide, {size} parameters",
            {"depth": depth, "width": width},
            _OFFICIAL,
        )
        for (depth, width), size in _WIDE_RESNETS.items()
    },
}


def available() -> list[str]:
    """The names that `Model.name` may have."""
    return sorted(CATALOGUE)


def describe() -> dict[str, str]:
    """One line for each name."""
    return {name: entry.description for name, entry in CATALOGUE.items()}


def create(
    spec: Model, *, in_shape: tuple[int, ...], classes: int, seed: int, batch_size: int | None = None
) -> nn.Module:
    """A model on the CPU: float32 [b, *in_shape] to logits float32 [b, classes].

    Its weights follow only from `seed`, and the global generator is left as it was. batch_size: the
    largest in training, needed with hidden_state "carried". Raises SpecError for an unknown name,
    an option or value that the model does not have, and an image that is too small.
    """
    check_names([spec.name], CATALOGUE, "model")
    entry = CATALOGUE[spec.name]
    options = _options(spec, entry)
    if "hidden_state" in entry.options:
        options["batch_size"] = batch_size
    import torch

    module, _, name = entry.cls.partition(":")
    model_class = getattr(importlib.import_module(module), name)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed the GPUs as well
        torch.default_generator.manual_seed(derive(seed, "initialisation"))
        return cast("nn.Module", model_class(in_shape, classes, **entry.fixed, **options))


def start_epoch(model: nn.Module) -> None:
    """Start a training epoch or an evaluation: a model that carries state forgets it."""
    starts = getattr(model, "start_epoch", None)
    if callable(starts):
        starts()


def _options(spec: Model, entry: Entry) -> dict[str, Any]:
    given = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec) if f.name != "name"}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        valid = [*entry.options, *(["widths"] if entry.hidden_layers else [])]
        if not valid:
            raise SpecError(f"model.{name} is {value!r}: '{spec.name}' has no options")
        check_names([name], valid, f"option of model '{spec.name}'")
        if name in entry.options:
            check_names([value], entry.options[name], f"model.{name}")
        elif len(value) != entry.hidden_layers:
            raise SpecError(
                f"model.widths has {len(value)} numbers: '{spec.name}' has {entry.hidden_layers} hidden layers"
            )
    return given
