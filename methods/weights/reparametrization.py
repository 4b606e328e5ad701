"""Layers that compute with a function of their weight, under their original keys."""

from __future__ import annotations

import functools
import threading
from abc import ABC, abstractmethod
from typing import Any, NoReturn, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.layers import MaskableWeight
from methods.weights.computed_weight import ComputedWeight


class EffectiveWeight(ABC):
    """The weight that a layer computes with.

    It is a picklable function of the layer's dense weight and of an extra parameter beside it, or
    None where there is no extra parameter. stochastic: in training mode the layer computes with
    `sampled` and `sampled_linear`, which draw random numbers.
    """

    stochastic = False

    @abstractmethod
    def __call__(self, weight: Tensor, extra: Any, /) -> Tensor:
        """The effective weight, in the shape of the dense weight."""

    def linear(self, inputs: Tensor, weight: Tensor, extra: Any, bias: Tensor | None, /) -> Tensor:
        """What a linear layer computes with that weight: [..., c_out] of inputs [..., c_in]."""
        return F.linear(inputs, self(weight, extra), bias)

    def sampled(self, weight: Tensor, extra: Any, /) -> Tensor:
        """A random effective weight, in the shape of the dense weight."""
        return self(weight, extra)

    def sampled_linear(self, inputs: Tensor, weight: Tensor, extra: Any, bias: Tensor | None, /) -> Tensor:
        """What a linear layer computes with a random weight: [..., c_out] of inputs [..., c_in]."""
        return F.linear(inputs, self.sampled(weight, extra), bias)

    def kept(self, weight: Tensor, extra: Any, /) -> Tensor:
        """True where the weight is kept: bool, in its shape."""
        return self(weight, extra) != 0

    def threshold(self, extra: Any, /) -> Tensor | None:
        """The threshold that |weight| is compared with, [c_out], [] or of its shape; None without one."""
        return None


class _Running(threading.local):
    """The layers whose forward this thread is in, by id, with effective weights by name."""

    def __init__(self) -> None:
        self.weights: dict[int, dict[str, Tensor]] = {}


_RUNNING = _Running()


class _Reparametrized:
    """What a reparametrized module adds to its class: effective weights by parameter name."""

    base_class: type[nn.Module]
    effective: dict[str, EffectiveWeight]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The base's forward, in which the attribute is a plain tensor."""
        if torch.compiler.is_compiling() or id(self) in _RUNNING.weights:
            return self.base_class.forward(self, *args, **kwargs)
        computed = self.at_forward()
        _RUNNING.weights.update(computed)
        try:
            return self.base_class.forward(self, *args, **kwargs)
        finally:
            for layer in computed:
                del _RUNNING.weights[layer]

    def at_forward(self) -> dict[int, dict[str, Tensor]]:
        """The layers whose weights the base's forward reads, by id, with what is computed once before it."""
        return {id(self): {}}

    def computed(self) -> dict[str, Tensor]:
        """The effective weights of a forward, by the parameter's name."""
        return {name: self.effective_weight(name, in_forward=True) for name in self.effective}

    def attribute(self, name: str) -> Tensor:
        """The effective weight as the module's attribute; outside its forward it refuses writes.

        Compiled code cannot tell where it is read: there it is as in a forward.
        """
        running = _RUNNING.weights.get(id(self))
        if running and name in running:
            return running[name]
        in_forward = running is not None or torch.compiler.is_compiling()
        weight = self.effective_weight(name, in_forward=in_forward)
        dense = cast(nn.Module, self)._parameters[name]
        if in_forward or not isinstance(dense, nn.Parameter):
            return weight
        return ComputedWeight.of(weight, dense, self.__dict__["names"][name])

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        if isinstance(param, ComputedWeight):
            param.refuse()
        self.base_class.register_parameter(cast(nn.Module, self), name, param)

    def __delattr__(self, name: str) -> None:
        if name in self.effective:
            qualified = self.__dict__["names"][name]
            raise ValueError(f"{qualified} is computed from a parameter and its thresholds: finalize the model first")
        self.base_class.__delattr__(cast(nn.Module, self), name)

    def _replicate_for_data_parallel(self) -> NoReturn:
        raise RuntimeError(
            "torch.nn.DataParallel cannot copy layers with thresholds: use DistributedDataParallel, and attach before "
            "wrapping"
        )

    @property
    def qconfig(self) -> Any:
        """How torch.ao.quantization converts the layer: never, so that setting it is an error."""
        raise AttributeError("qconfig")

    @qconfig.setter
    def qconfig(self, _: Any) -> NoReturn:
        names = ", ".join(self.__dict__["names"].values())
        raise RuntimeError(
            f"{names} is computed, which torch.ao.quantization does not convert: call methods.finalize(model) first"
        )

    def on_dense_weights(self, method: str) -> Any:
        """Call a method of the base, such as reset_parameters, that writes the dense weights."""
        module, kind = cast(nn.Module, self), cast(type[nn.Module], type(self))
        beside = {extra_name(name) for name in self.effective} & module._parameters.keys()
        extras = {name: module._parameters.pop(name) for name in beside}
        module.__class__ = self.base_class
        try:
            return getattr(module, method)()
        finally:
            module.__class__ = kind
            module._parameters.update(extras)

    def effective_weight(self, name: str, *, in_forward: bool = False) -> Tensor:
        module, effective = cast(nn.Module, self), self.effective[name]
        weight, extra = cast(Tensor, module._parameters[name]), module._parameters.get(extra_name(name))
        try:
            if effective.stochastic and module.training and in_forward:
                return effective.sampled(weight, extra)
            return effective(weight, extra)
        except AttributeError as error:
            # an AttributeError in a property would make torch find the dense weight instead
            raise RuntimeError(f"{name} cannot be computed: {error}") from error

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _rebuild, (self.base_class, tuple(self.effective)), self.__getstate__()


class _Once(_Reparametrized):
    """A layer of torch whose forward reads its weights often. Each is computed once per forward.

    The forward of attention also reads the weight of its layer out_proj, which it does not call.
    """

    def at_forward(self) -> dict[int, dict[str, Tensor]]:
        layers = (layer for layer in (self, getattr(self, "out_proj", None)) if isinstance(layer, _Reparametrized))
        return {id(layer): layer.computed() for layer in layers}


class _Recurrent(_Once):
    """A recurrent layer. Its forward reads the list `_flat_weights`: all time steps share one mask.

    Another thread, and all other code of torch, find the dense weights in that list.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        cast(nn.RNNBase, self)._update_flat_weights()  # or torch does in its forward, over the effective weights
        return super().forward(*args, **kwargs)

    @property
    def _flat_weights(self) -> list[Tensor | None]:
        dense: list[Tensor | None] = self.__dict__["_flat_weights"]
        computed = _RUNNING.weights.get(id(self))
        if torch.compiler.is_compiling():
            computed = self.computed()
        if computed is None:
            return dense
        names = cast(nn.RNNBase, self)._flat_weights_names
        return [computed.get(name, weight) for name, weight in zip(names, dense, strict=True)]

    @_flat_weights.setter
    def _flat_weights(self, weights: list[Tensor | None]) -> None:
        self.__dict__["_flat_weights"] = weights


class _Linear(_Reparametrized):
    """A linear layer: computed from both parameters, without writing out the effective weight."""

    def forward(self, input: Tensor) -> Tensor:
        module = cast(nn.Linear, self)
        effective, extra = self.effective["weight"], module._parameters.get(extra_name("weight"))
        compute = effective.sampled_linear if effective.stochastic and module.training else effective.linear
        return compute(input, cast(Tensor, module._parameters["weight"]), extra, module.bias)


def extra_name(parameter_name: str) -> str:
    """The name of the extra parameter beside a reparametrized weight."""
    return f"{parameter_name}_threshold"


def reparametrize(weight: MaskableWeight, effective: EffectiveWeight, extra: Tensor | None = None) -> None:
    """Make a module compute with effective(weight, extra).

    extra: the initial value of a new trainable parameter, of any shape; None for no parameter. The
    dense weight stays under its own key; `extra` is registered as <weight>_threshold. The module's
    attribute is then the effective weight, which its forward reads. There are two exceptions: RNN,
    GRU and LSTM keep the attribute, and their forward receives the effective weights; a Linear with
    torch's own forward computes effective.linear(inputs, weight, extra, bias). Raises ValueError for
    a weight that is reparametrized already.
    """
    module, name = weight.module, weight.parameter_name
    base: type[nn.Module] = type(module)
    if isinstance(module, _Reparametrized):
        base = module.base_class
    else:
        module.__dict__.update(effective={}, names={})
    effectives: dict[str, EffectiveWeight] = module.__dict__["effective"]
    if name in effectives:
        raise ValueError(f"{weight.name} is reparametrized already: call methods.finalize(model) first")
    if extra is not None:
        module.register_parameter(extra_name(name), nn.Parameter(extra))
    effectives[name] = effective
    module.__dict__["names"][name] = weight.name
    module.__class__ = _reparametrized_class(base, tuple(effectives))  # type: ignore[arg-type]


def restore(module: nn.Module) -> None:
    """Undo `reparametrize`: write the effective weights into the parameters, restore the class."""
    if not isinstance(module, _Reparametrized):
        return
    for name in module.effective:
        with torch.no_grad():
            cast(Tensor, module._parameters[name]).copy_(module.effective_weight(name))
        module._parameters.pop(extra_name(name), None)
    module.__class__ = module.base_class  # type: ignore[assignment]
    for key in ("effective", "names"):
        module.__dict__.pop(key, None)


def kept(module: nn.Module, parameter_name: str) -> Tensor | None:
    """What a reparametrized weight keeps: bool; None where the weight is not reparametrized."""
    if not isinstance(module, _Reparametrized) or parameter_name not in module.effective:
        return None
    weight, extra = module._parameters[parameter_name], module._parameters.get(extra_name(parameter_name))
    with torch.no_grad():
        return module.effective[parameter_name].kept(cast(Tensor, weight), extra)


@functools.cache
def _reparametrized_class(base: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """The class of reparametrized modules of one kind; made once, so that copies share it."""
    mixin = _mixin(base)
    members: dict[str, Any] = {"base_class": base, "__module__": base.__module__}
    if mixin is not _Recurrent:
        members |= {name: property(functools.partial(_Reparametrized.attribute, name=name)) for name in names}
    for reset in ("reset_parameters", "_reset_parameters"):
        if hasattr(base, reset):
            members[reset] = functools.partialmethod(_Reparametrized.on_dense_weights, reset)
    return type(f"Masked{base.__name__}", (mixin, base), members)


def _mixin(base: type[nn.Module]) -> type[_Reparametrized]:
    if issubclass(base, nn.RNNBase):
        return _Recurrent
    if base.forward is nn.MultiheadAttention.forward:
        return _Once
    is_plain = base.forward is nn.Linear.forward  # another forward reads the attribute
    return _Linear if is_plain else _Reparametrized


def _rebuild(base: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    kind = _reparametrized_class(base, names)  # type: ignore[arg-type]  # mypy: a class has no hash
    return kind.__new__(kind)
