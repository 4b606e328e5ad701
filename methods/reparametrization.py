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


class EffectiveWeight(ABC):
    """The weight that a layer computes with.

    It is a picklable function of the layer's dense weight and of an extra parameter beside it.
    """

    @abstractmethod
    def __call__(self, weight: Tensor, extra: Tensor, /) -> Tensor:
        """The effective weight, in the shape of the dense weight."""

    def linear(self, inputs: Tensor, weight: Tensor, extra: Tensor, bias: Tensor | None, /) -> Tensor:
        """What a linear layer computes with that weight: [..., c_out] of inputs [..., c_in]."""
        return F.linear(inputs, self(weight, extra), bias)


class _Running(threading.local):
    """The effective weights of the layers whose forward this thread is in, by id and name."""

    def __init__(self) -> None:
        self.weights: dict[int, dict[str, Tensor]] = {}


_RUNNING = _Running()


class _Reparametrized:
    """What a reparametrized module adds to its class: effective weights by parameter name."""

    base_class: type[nn.Module]
    effective: dict[str, EffectiveWeight]

    def attribute(self, name: str) -> Tensor:
        """The effective weight, as the module's attribute."""
        return self.effective_weight(name)

    def effective_weight(self, name: str) -> Tensor:
        parameters = cast(nn.Module, self)._parameters
        weight, extra = parameters[name], parameters[extra_name(name)]
        try:
            return self.effective[name](cast(Tensor, weight), cast(Tensor, extra))
        except AttributeError as error:
            # an AttributeError in a property would make torch find the dense weight instead
            raise RuntimeError(f"{name} cannot be computed: {error}") from error

    def __prepare_scriptable__(self) -> NoReturn:
        raise RuntimeError("torch.jit.script of a model with thresholds: call methods.finalize(model) first")

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _rebuild, (self.base_class, tuple(self.effective)), self.__getstate__()


class _Once(_Reparametrized):
    """A layer of torch whose forward reads its weights often. Each is computed once per forward."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return self.base_class.forward(self, *args, **kwargs)
        _RUNNING.weights[id(self)] = {name: self.effective_weight(name) for name in self.effective}
        try:
            return self.base_class.forward(self, *args, **kwargs)
        finally:
            del _RUNNING.weights[id(self)]

    def attribute(self, name: str) -> Tensor:
        computed = _RUNNING.weights.get(id(self))
        return self.effective_weight(name) if computed is None else computed[name]


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
            computed = {name: self.effective_weight(name) for name in self.effective}
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
        weight, extra = module._parameters["weight"], module._parameters[extra_name("weight")]
        return self.effective["weight"].linear(input, cast(Tensor, weight), cast(Tensor, extra), module.bias)


def extra_name(parameter_name: str) -> str:
    """The name of the extra parameter beside a reparametrized weight."""
    return f"{parameter_name}_threshold"


def reparametrize(weight: MaskableWeight, effective: EffectiveWeight, extra: Tensor) -> nn.Parameter:
    """Make a module compute with effective(weight, extra), and return the new parameter `extra`.

    extra: the initial value of the new trainable parameter, of any shape. The dense weight stays
    under its own key; `extra` is registered as <weight>_threshold. The module's attribute is then
    the effective weight, which its forward reads. There are two exceptions: RNN, GRU and LSTM keep
    the attribute, and their forward receives the effective weights; a Linear with torch's own
    forward computes effective.linear(inputs, weight, extra, bias). Raises ValueError for a weight
    that is reparametrized already.
    """
    module, name = weight.module, weight.parameter_name
    base: type[nn.Module] = type(module)
    if isinstance(module, _Reparametrized):
        base = module.base_class
    else:
        module.__dict__["effective"] = {}
    effectives: dict[str, EffectiveWeight] = module.__dict__["effective"]
    if name in effectives:
        raise ValueError(f"{weight.name} is reparametrized already: call methods.finalize(model) first")
    parameter = nn.Parameter(extra)
    module.register_parameter(extra_name(name), parameter)
    effectives[name] = effective
    module.__class__ = _reparametrized_class(base, tuple(effectives))  # type: ignore[arg-type]
    return parameter


def restore(module: nn.Module) -> None:
    """Undo `reparametrize`: write the effective weights into the parameters, restore the class."""
    if not isinstance(module, _Reparametrized):
        return
    for name in module.effective:
        with torch.no_grad():
            cast(Tensor, module._parameters[name]).copy_(module.effective_weight(name))
        del module._parameters[extra_name(name)]
    module.__class__ = module.base_class  # type: ignore[assignment]
    del module.__dict__["effective"]


@functools.cache
def _reparametrized_class(base: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """The class of reparametrized modules of one kind; made once, so that copies share it."""
    mixin = _mixin(base)
    members: dict[str, Any] = {"base_class": base, "__module__": base.__module__}
    if mixin is not _Recurrent:
        members |= {name: property(functools.partial(mixin.attribute, name=name)) for name in names}
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
