"""The attribute `weight` of a layer that computes with a function of its parameter."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

GRADIENT = Tensor.grad.__get__  # type: ignore[union-attr]
INITIALISATION, OPTIMIZERS = "torch.nn.init", "torch.optim.optimizer"


class ComputedWeight(Tensor):
    """A weight that is computed from a parameter: it reads like any tensor and refuses writes.

    A write would be lost with the tensor. Functions of torch.nn.init write the parameter instead.
    `grad` is the gradient of the parameter.
    qualified_name: that of the parameter. dense: the parameter. layer: the layer that holds only
    kept weights; None where the parameter is a matrix.
    """

    qualified_name: str
    dense: Tensor
    layer: Any

    @classmethod
    def of(cls, weight: Tensor, dense: Tensor, name: str, layer: Any = None) -> ComputedWeight:
        """The computed weight, which shares its memory and its gradient function."""
        with torch._C.DisableTorchFunctionSubclass():
            computed = weight.as_subclass(cls)
        computed.qualified_name, computed.dense, computed.layer = name, dense, layer
        return computed

    def plain(self) -> Tensor:
        """The values, detached, as a plain tensor."""
        with torch._C.DisableTorchFunctionSubclass():
            return self.detach().as_subclass(Tensor)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.plain().clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.plain().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def refuse(self) -> NoReturn:
        if self.layer is not None:
            raise ValueError(
                f"{self.qualified_name} is computed from its kept weights, so a change of it would be lost: use "
                "attached.set_weights (for an optimizer: attached.parameter_groups()), or execution='dense'"
            )
        raise ValueError(
            f"{self.qualified_name} is computed from a parameter and its thresholds, so a change of it would be lost: "
            f"use attached.weights()['{self.qualified_name}'] (for an optimizer: attached.parameter_groups()), "
            "or finalize the model first"
        )

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        caller = sys._getframe(1).f_globals.get("__name__")
        with torch._C.DisableTorchFunctionSubclass():
            if func == GRADIENT:
                return _gradient(args[0])
            if INITIALISATION in (caller, getattr(func, "__module__", None)):
                return func(*map(_dense, args), **{key: _dense(value) for key, value in kwargs.items()})
            written = kwargs.get("out") if "out" in kwargs else args[0] if args and _writes(func) else None
            for tensor in written if isinstance(written, tuple | list) else (written,):
                if isinstance(tensor, cls):
                    tensor.refuse()
            source = next((value for value in args if isinstance(value, cls)), None)
            if caller == OPTIMIZERS and source is not None:
                source.refuse()
            result = func(*args, **kwargs)
            return result if source is None else _guarded(result, source)


def _dense(value: Any) -> Any:
    """The parameter that a computed weight stands for, made dense; any other value as it is."""
    if not isinstance(value, ComputedWeight):
        return value
    if (make_dense := getattr(value.layer, "make_dense_", None)) is not None:
        make_dense()
    return value.dense


def _gradient(weight: ComputedWeight) -> Tensor | None:
    """The parameter's gradient, in the shape of the dense weight."""
    gradient = weight.dense.grad
    return gradient if gradient is None or gradient.shape == weight.shape else weight.layer.places.scatter(gradient)


def _writes(func: Callable[..., Any]) -> bool:
    """Whether an operator changes its first argument: `mul_`, `__imul__`, `__setitem__`, `data =`."""
    name = getattr(func, "__name__", "")
    return name in INPLACE if name.startswith("__") else name.endswith("_")


OPERATORS = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "div", "mod", "pow", "and", "or", "xor")
INPLACE = {f"__i{name}__" for name in (*OPERATORS, "lshift", "rshift")} | {"__setitem__", "__set__"}


def _guarded(result: Any, source: ComputedWeight) -> Any:
    """The result; where it shares the weight's memory (detach, data, a view), it refuses writes too."""
    if isinstance(result, tuple | list):
        return type(result)(_guarded(value, source) for value in result) if type(result) in (tuple, list) else result
    if not isinstance(result, Tensor) or result.layout != torch.strided or result.device != source.device:
        return result
    if result.untyped_storage().data_ptr() != source.untyped_storage().data_ptr():
        return result
    return ComputedWeight.of(result, source.dense, source.qualified_name, source.layer)
