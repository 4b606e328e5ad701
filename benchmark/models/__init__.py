"""The architectures by name: those of this package, registered ones, and installed plug-ins.

torch is imported when one is made, so that `list models` answers at once. A model's `uncounted` are
patterns of module names that stay dense and are not part of the density. If a model has a
`start_epoch()`, it is called at the start of every training epoch and every evaluation.
docs/plug-ins.md says what a plug-in has to be.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmark.plain_values import plain, tuples
from benchmark.seeds import derive
from benchmark.spec import Model, SpecError, check_file_name, check_names
from methods.plug_ins import PlugIns

if TYPE_CHECKING:
    from torch import nn

__all__ = ["available", "create", "describe", "describe_network", "register", "released", "start_epoch"]


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


plug_ins = PlugIns(
    "model", group="sparse_training.models", own=lambda name: CATALOGUE[name].cls if name in CATALOGUE else None
)
register = plug_ins.register


def available() -> list[str]:
    """The names that `Model.name` may have."""
    return sorted({*CATALOGUE, *plug_ins.names()})


def describe() -> dict[str, str]:
    """One line for each name; plug-ins are imported for it."""
    own = {name: entry.description for name, entry in CATALOGUE.items()}
    return dict(sorted({**own, **plug_ins.describe()}.items()))


def create(
    spec: Model, *, in_shape: tuple[int, ...], classes: int, seed: int, batch_size: int | None = None
) -> nn.Module:
    """A model on the CPU: float32 [b, *in_shape] to logits float32 [b, classes].

    Its weights follow only from `seed`, and the global generator is left as it was. batch_size: the
    largest in training, needed with hidden_state "carried". Raises SpecError for an unknown name,
    an option or value that the model does not have, and an image that is too small; ValueError for
    a plug-in that cannot be loaded or makes no such model.
    """
    check_names([spec.name], available(), "model")
    make = _of_catalogue(spec, batch_size) if spec.name in CATALOGUE else _plugged_in(spec, batch_size)
    import torch

    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed the GPUs as well
        torch.default_generator.manual_seed(derive(seed, "initialisation"))
        model = make(in_shape, classes)
        if spec.name not in CATALOGUE:
            _check(model, spec.name, (batch_size or 1) if getattr(model, "carries", False) else 2, in_shape, classes)
    return model


def describe_network(
    spec: Model, *, in_shape: tuple[int, ...], classes: int, batch_size: int
) -> tuple[str, dict[str, Any]]:
    """What `methods.save` writes down so that `methods.load` finds `released`, its entry point."""
    return "benchmark", {"model": plain(spec), "in_shape": in_shape, "classes": classes, "batch_size": batch_size}


def released(arguments: Mapping[str, Any]) -> nn.Module:
    """The network of `describe_network`'s arguments, which a stranger may have written.

    Raises SpecError as `create` does, and for arguments that are not these.
    """
    names = ("model", "in_shape", "classes", "batch_size")
    check_names(arguments, names, "argument")
    model, shape, *counts = (arguments.get(name, 0) for name in names)
    if not isinstance(model, Mapping) or not isinstance(shape, list):
        raise SpecError("model is no mapping, or in_shape no list")
    check_names(model, [f.name for f in dataclasses.fields(Model)], "model field")
    sizes = [*shape, *counts, *(model.get("widths") or ())]
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        raise SpecError(f"{sizes} are no sizes")
    spec = Model(**{name: tuples(value) for name, value in model.items()})
    check_file_name(spec.name, "model.name")
    return create(spec, in_shape=tuple(shape), classes=counts[0], seed=0, batch_size=counts[1])


def _of_catalogue(spec: Model, batch_size: int | None) -> Callable[[tuple[int, ...], int], nn.Module]:
    entry = CATALOGUE[spec.name]
    options = _options(spec, entry)
    if "hidden_state" in entry.options:
        options["batch_size"] = batch_size
    module, _, name = entry.cls.partition(":")
    return functools.partial(getattr(importlib.import_module(module), name), **entry.fixed, **options)


def _plugged_in(spec: Model, batch_size: int | None) -> Callable[[tuple[int, ...], int], nn.Module]:
    """A plug-in with those of the spec's options, and the batch size, that its signature names."""
    factory = plug_ins.load(spec.name)
    if not callable(factory):
        raise ValueError(f"model '{spec.name}' is {type(factory).__name__}, no class or function that makes a model")
    parameters = inspect.signature(factory).parameters
    given = _given(spec)
    for name, value in given.items():
        if name not in parameters:
            raise SpecError(f"model.{name} is {value!r}: '{spec.name}' has no such option")
    return functools.partial(factory, **given, **({"batch_size": batch_size} if "batch_size" in parameters else {}))


def _check(model: Any, name: str, batch: int, in_shape: tuple[int, ...], classes: int) -> None:
    """Raises ValueError unless it is a module whose logits for a batch are float32 [batch, classes]."""
    import torch

    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model '{name}' made {type(model).__name__}, no torch.nn.Module")
    start_epoch(model)
    with torch.no_grad():
        logits = model.eval()(torch.zeros(batch, *in_shape))
    model.train()
    start_epoch(model)
    found = f"{logits.dtype} {list(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
    if found != (wanted := f"torch.float32 {[batch, classes]}"):
        raise ValueError(f"model '{name}': its output for inputs {[batch, *in_shape]} is {found}, not {wanted}")


def start_epoch(model: nn.Module) -> None:
    """Start a training epoch or an evaluation: a model that carries state forgets it."""
    starts = getattr(model, "start_epoch", None)
    if callable(starts):
        starts()


def _options(spec: Model, entry: Entry) -> dict[str, Any]:
    given = _given(spec)
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


def _given(spec: Model) -> dict[str, Any]:
    """The options that a spec gives."""
    options = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec) if f.name != "name"}
    return {name: value for name, value in options.items() if value is not None}
