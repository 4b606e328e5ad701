"""Which weights of a model can be masked.

Maskable are the weights of Linear, convolution, transposed convolution, Bilinear, attention and
recurrent layers, and of the classes that `register_layer` adds. Biases, normalisation and
embeddings are not maskable.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from methods.ties import repeats_a_number, sharing

RECURRENT = (nn.RNNBase, nn.RNNCellBase)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
# the output axis of each weight by class and parameter name; RNN, GRU and LSTM name their own
_REGISTERED: dict[type[nn.Module], dict[str, int]] = {
    nn.Linear: {"weight": 0},
    nn.Bilinear: {"weight": 0},
    _ConvNd: {"weight": 0},
    _ConvTransposeNd: {"weight": 1},
    nn.MultiheadAttention: dict.fromkeys(_ATTENTION, 0),
    nn.RNNCellBase: {"weight_ih": 0, "weight_hh": 0},
}
Extra = Sequence[str] | Mapping[str, int]


def register_layer(cls: type[nn.Module], parameter: str, output_axis: int = 0) -> None:
    """Make a parameter of a class and of its subclasses maskable, in this process.

        methods.register_layer(transformers.pytorch_utils.Conv1D, "weight", output_axis=1)

    output_axis: the axis of the output units, which is where DST's thresholds lie. Methods with
    masks only do not use it. Raises ValueError for a class that is no module, and where the
    parameter is registered with another axis.
    """
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ValueError(f"{cls!r} is no class of modules: register_layer takes a subclass of torch.nn.Module")
    known = _REGISTERED.get(cls, {})
    if known.get(parameter, output_axis) != output_axis:
        raise ValueError(f"{cls.__name__}.{parameter} is registered with output_axis {known[parameter]} already")
    _REGISTERED[cls] = known | {parameter: output_axis}


@dataclass(frozen=True)
class OutputUnits:
    """Where the output units of a weight lie: on `axis`, in each of `groups` equal parts of axis 0.

    Only grouped transposed convolutions have several groups: their weight is
    [c_in, c_out / groups, k...], and each part [c_in / groups, c_out / groups, k...] has units of
    its own.
    """

    axis: int = 0
    groups: int = 1

    def rows(self, tensor: Tensor) -> Tensor:
        """A tensor of the weight's shape as [units, ...]; the tensor itself where axis is 0."""
        if self.axis == 0:
            return tensor
        return self._grouped(tensor).movedim(self.axis + 1, 1).flatten(0, 1).contiguous()

    def restored(self, rows: Tensor) -> Tensor:
        """Undo `rows`: [units, ...] in the weight's shape."""
        if self.axis == 0:
            return rows
        return self._grouped(rows).movedim(1, self.axis + 1).flatten(0, 1).contiguous()

    def _grouped(self, tensor: Tensor) -> Tensor:
        return tensor.reshape(self.groups, -1, *tensor.shape[1:])


@dataclass(frozen=True)
class MaskableWeight:
    """One weight: its qualified name, and the module that holds it under parameter_name.

    units: which entries belong to one output unit. By default that is a row:
    [c_out, c_in], [c_out, c_in / groups, k...], or [gates * hidden, c_in] for recurrent layers.
    """

    name: str
    module: nn.Module
    parameter_name: str
    units: OutputUnits = OutputUnits()

    @property
    def held(self) -> nn.Parameter:
        """The parameter as the module holds it: dense, or a vector of the kept weights."""
        return self.module._parameters[self.parameter_name]  # type: ignore[return-value]

    @property
    def parameter(self) -> nn.Parameter:
        """The dense parameter, even where the module's attribute is an effective weight.

        A layer that holds kept weights only holds its dense weight from then on.
        """
        if (make_dense := getattr(type(self.module), "make_dense_", None)) is not None:
            make_dense(self.module)
        return self.held

    @property
    def recurrent(self) -> bool:
        return isinstance(self.module, RECURRENT)


@dataclass(frozen=True)
class Selection:
    """What happens to each weight of a model, by its qualified name, in the model's order.

    weights: the maskable ones. dense: weights with two or more axes that are not maskable. aside:
    weights that are dense on purpose, with the reason.
    """

    weights: dict[str, MaskableWeight] = field(default_factory=dict)
    dense: dict[str, nn.Parameter] = field(default_factory=dict)
    aside: dict[str, str] = field(default_factory=dict)


def maskable_weights(
    model: nn.Module,
    *,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    extra: Extra = (),
) -> dict[str, MaskableWeight]:
    """The maskable weights by qualified name, in the model's order: `select(...).weights`."""
    return select(model, include=include, exclude=exclude, extra=extra).weights


def select(
    model: nn.Module,
    *,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    extra: Extra = (),
) -> Selection:
    """Sort the weights of a model into maskable ones, dense ones, and those left out on purpose.

    include, exclude: fnmatch patterns on module names; a pattern covers everything inside the
    modules it matches. A module with several names goes by its first one, and is covered where a
    pattern covers any of them. extra: names of further parameters that are maskable, whatever the
    patterns are, or a mapping from these names to their output axes (0 by default).

    Left out on purpose are excluded weights, embeddings and the weights tied to them, frozen
    weights that no `include` pattern covers, and empty weights. Raises ValueError for a pattern
    that matches no module, an `include` pattern that covers no maskable weight, an `extra` name
    that cannot be masked, a weight that shares numbers with another parameter, and where no weight
    is left.
    """
    return _Search(model, include, exclude, extra).selection()


@dataclass(frozen=True)
class _Place:
    """One parameter of one module, under the module's first name. aliases: the module's names."""

    name: str
    module: nn.Module
    parameter_name: str
    aliases: Sequence[str]

    @property
    def parameter(self) -> nn.Parameter:
        return self.module._parameters[self.parameter_name]  # type: ignore[return-value]


class _Search:
    """The search for maskable weights in one model."""

    def __init__(
        self, model: nn.Module, include: Sequence[str] | None, exclude: Sequence[str] | None, extra: Extra
    ) -> None:
        self.include, self.exclude = include, exclude
        self.modules: dict[nn.Module, list[str]] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            self.modules.setdefault(module, []).append(name)
        self.places = {place.name: place for place in self._places()}
        self.shared = sharing({name: place.parameter for name, place in self.places.items()})
        self.extra = self._extra(extra)

    def selection(self) -> Selection:
        self._check_patterns()
        self._refuse_computed()
        found = Selection()
        for place in self.places.values():
            units = self.extra.get(place.name) or _units(place.module).get(place.parameter_name)
            if units is None and not _counts(place):
                continue
            if (reason := self._reason_to_leave(place)) is not None:
                found.aside[place.name] = reason
            elif units is not None and _can_be_masked(place):
                found.weights[place.name] = MaskableWeight(place.name, place.module, place.parameter_name, units)
            else:
                found.dense[place.name] = place.parameter
        self._check(found)
        return found

    def _places(self) -> Iterator[_Place]:
        for module, aliases in self.modules.items():
            for parameter_name, parameter in module._parameters.items():
                if parameter is not None:
                    yield _Place(_joined(aliases[0], parameter_name), module, parameter_name, aliases)

    def _extra(self, extra: Extra) -> dict[str, OutputUnits]:
        """The units of the parameters named in `extra`, each under its first name."""
        if isinstance(extra, str):
            raise ValueError(f"extra is '{extra}': give a list of parameter names")
        axes = extra if isinstance(extra, Mapping) else dict.fromkeys(extra, 0)
        names = {_joined(alias, p.parameter_name): p for p in self.places.values() for alias in p.aliases}
        units = {}
        for name, axis in axes.items():
            if name not in names:
                raise ValueError(f"extra names '{name}', which is no parameter; parameters: {', '.join(self.places)}")
            place = names[name]
            if isinstance(place.parameter, nn.UninitializedParameter):
                raise ValueError(f"{name} has no data yet: run one batch through the model before attaching a method")
            if not _can_be_masked(place) or not place.parameter.numel():
                kind = f"{place.parameter.dtype} {list(place.parameter.shape)}"
                raise ValueError(f"extra names {name}, which is {kind}: only real floating-point numbers can be masked")
            units[place.name] = OutputUnits(_axis(name, axis, place.parameter.dim()))
        return units

    def _check_patterns(self) -> None:
        names = [alias for aliases in self.modules.values() for alias in aliases if alias]
        for pattern in [*(self.include or ()), *(self.exclude or ())]:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
                raise ValueError(f"pattern '{pattern}' matches no module; modules: {', '.join(names)}")

    def _refuse_computed(self) -> None:
        """Raise ValueError where a layer's weight is no parameter."""
        for module, aliases in self.modules.items():
            missing = [name for name in _units(module) if name not in module._parameters]
            if not missing or self._left_by_pattern(aliases) is not None:
                continue
            if not hasattr(module, missing[0]):
                kind = type(module).__name__
                raise ValueError(f"{kind} is registered with the parameter '{missing[0]}', which '{aliases[0]}' lacks")
            if getattr(module, missing[0]) is not None:
                name = _joined(aliases[0], missing[0])
                raise ValueError(
                    f"{name} is computed from other parameters (weight_norm, parametrize): exclude its module"
                )

    def _left_by_pattern(self, aliases: Sequence[str]) -> str | None:
        if self.exclude is not None and _covered(aliases, self.exclude):
            return "excluded"
        return "not included" if self.include is not None and not _covered(aliases, self.include) else None

    def _reason_to_leave(self, place: _Place) -> str | None:
        if place.name in self.extra:
            return None
        if any(isinstance(self.places[name].module, EMBEDDINGS) for name in self.shared[place.name]):
            return "embedding"
        if (reason := self._left_by_pattern(place.aliases)) is not None:
            return reason
        if self.include is None and not place.parameter.requires_grad:
            return "frozen"
        empty = not isinstance(place.parameter, nn.UninitializedParameter) and not place.parameter.numel()
        return "empty" if empty else None

    def _check(self, found: Selection) -> None:
        if not found.weights:
            left = ", ".join(f"{name} ({reason})" for name, reason in found.aside.items())
            raise ValueError(
                "nothing to prune: no trainable weight of a Linear, convolution, attention or recurrent layer is left "
                f"to mask in this model{'; left out: ' if left else ''}{left}"
            )
        for pattern in self.include or ():
            if not any(_covered(self.places[name].aliases, [pattern]) for name in found.weights):
                raise ValueError(
                    f"include pattern '{pattern}' covers no weight that can be masked: register the class of its "
                    "layers with methods.register_layer, or name their parameters in extra"
                )
        for name, weight in found.weights.items():
            if isinstance(weight.parameter, nn.UninitializedParameter):
                raise ValueError(f"{name} has no data yet: run one batch through the model before attaching a method")
            if repeats_a_number(weight.parameter):
                raise ValueError(f"{name} repeats its numbers in several entries: make it contiguous, or exclude it")
            if len(self.shared[name]) > 1:
                self._refuse_shared(sorted(self.shared[name], key=list(self.places).index))

    def _refuse_shared(self, names: Sequence[str]) -> None:
        same = len({id(self.places[name].parameter) for name in names}) == 1
        joined = " and ".join(names)
        what = f"one tensor is the weight of {joined}" if same else f"{joined} are views that share numbers"
        raise ValueError(f"{what}: exclude all of these modules, or use one module in their places")


def _units(module: nn.Module) -> dict[str, OutputUnits]:
    """The weights of a layer by parameter name; {} for a module that is no known layer."""
    if isinstance(module, nn.RNNBase):
        return {name: OutputUnits() for name in module._flat_weights_names if name.startswith("weight_")}
    axes: dict[str, int] = {}
    for cls in reversed(type(module).__mro__):
        axes |= _REGISTERED.get(cls, {})
    groups = module.groups if isinstance(module, _ConvTransposeNd) else 1
    held = {name: module._parameters.get(name) for name in axes}
    return {
        name: OutputUnits(axis if held[name] is None else _axis(name, axis, _dimensions(held[name])), groups)
        for name, axis in axes.items()
    }


def _dimensions(parameter: Tensor | None) -> int:
    if parameter is None or isinstance(parameter, nn.UninitializedParameter):
        return 2
    return parameter.dim()


def _axis(name: str, axis: int, dimensions: int) -> int:
    if not -dimensions <= axis < dimensions:
        raise ValueError(f"output axis {axis} of {name}: it has {dimensions} axes")
    return axis % dimensions


def _counts(place: _Place) -> bool:
    """Whether a parameter that is no known layer's weight counts as a weight of the model."""
    if isinstance(place.parameter, nn.UninitializedParameter) or isinstance(place.module, NORMS):
        return False
    return place.parameter.dim() > 1 and "bias" not in place.parameter_name


def _can_be_masked(place: _Place) -> bool:
    parameter = place.parameter
    if isinstance(parameter, nn.UninitializedParameter):
        return True
    return parameter.layout == torch.strided and parameter.is_floating_point()


def _joined(module_name: str, parameter_name: str) -> str:
    return f"{module_name}.{parameter_name}" if module_name else parameter_name


def _covered(aliases: Iterable[str], patterns: Iterable[str]) -> bool:
    """Whether a pattern matches one of a module's names, or a module around it."""
    prefixes = {prefix for alias in aliases for prefix in _prefixes(alias)}
    return any(fnmatch.fnmatchcase(prefix, pattern) for pattern in patterns for prefix in prefixes)


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]
