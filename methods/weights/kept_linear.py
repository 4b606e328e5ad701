"""Linear layers that hold kept weights only, and the change to and from a dense weight.

The parameter stays the same object, so that an optimizer keeps training it: its data changes from
the matrix to a vector of the kept weights, and so do its gradient and the optimizer's state. The
layer's attribute and its state_dict show the dense weight.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods import kernels
from methods.kernels.places import Places
from methods.weights.computed_weight import ComputedWeight
from methods.weights.weight_mask import masks_of

TYPES = (torch.float32, torch.float64)
MOST = 2**31 - 1  # the kernels' indices are int32
States = Callable[[Tensor], Iterable[dict[str, Any]]]  # the optimizer's state of a parameter


class KeptLinear:
    """What a layer that holds kept weights adds to its class.

    Writing to the layer from outside, copying and moving it first make its weight dense again.
    """

    base_class: type[nn.Module]
    places: Places
    name: str  # of the weight
    states: States

    def forward(self, input: Tensor) -> Tensor:
        module = cast(nn.Linear, self)
        values = cast(Tensor, module._parameters["weight"])
        if values.dim() > 1:  # stands in for the parameter, as in torch.func.functional_call
            return F.linear(input, values * self.places.mask(), module.bias)
        return kernels.backend_for(values).kept_linear(input, values, self.places, module.bias)

    def make_dense_(self) -> None:
        expand_(cast(nn.Module, self))

    @property
    def weight(self) -> Tensor:
        """The dense weight, computed from the kept ones: it refuses writes."""
        values = cast(Tensor, cast(nn.Module, self)._parameters["weight"])
        if values.dim() > 1:
            return values
        return ComputedWeight.of(self.places.scatter(values), values, self.name)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        if name == "weight":
            expand_(cast(nn.Module, self))
        self.base_class.register_parameter(cast(nn.Module, self), name, param)

    def reset_parameters(self) -> None:
        expand_(cast(nn.Module, self))
        cast(nn.Linear, self).reset_parameters()

    def _apply(self, fn: Any, recurse: bool = True) -> nn.Module:
        expand_(cast(nn.Module, self))
        return cast(nn.Module, cast(Any, self)._apply(fn, recurse))

    def _load_from_state_dict(self, *args: Any) -> None:
        expand_(cast(nn.Module, self))
        cast(nn.Module, self)._load_from_state_dict(*args)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        module = cast(nn.Module, self)
        self.base_class._save_to_state_dict(module, destination, prefix, keep_vars)
        values = cast(Tensor, module._parameters["weight"])
        if values.dim() == 1:
            destination[f"{prefix}weight"] = self.places.scatter(values if keep_vars else values.detach())

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Copies and pickles are dense layers."""
        module, values = cast(nn.Module, self), cast(nn.Parameter, cast(nn.Module, self)._parameters["weight"])
        state = {key: value for key, value in vars(module).items() if key not in OWN}
        dense = nn.Parameter(self.places.scatter(values.detach()), requires_grad=values.requires_grad)
        state["_parameters"] = vars(module)["_parameters"] | {"weight": dense}
        return _plain, (self.base_class,), state


OWN = ("places", "name", "states")


def holds_kept(module: nn.Module) -> bool:
    """Whether a layer holds kept weights only."""
    return isinstance(module, KeptLinear)


def can_hold(module: nn.Module) -> bool:
    """Whether it is a Linear, with torch's own forward, that may hold kept weights only.

    The output layer of torch's attention is none: its weight is read by the attention.
    """
    plain = isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
    return plain and not isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)


def fits(weight: Tensor, kept: int) -> bool:
    """Whether a layer can hold `kept` of the weights of this dense weight only.

    A vector of as many kept weights as the weight has columns would be added to a matrix, such as
    an average of dense weights, without an error: such a layer stays dense.
    """
    supported = weight.is_cpu and weight.dtype in TYPES and weight.dim() == 2 and weight.numel() <= MOST
    return supported and kept < weight.numel() and kept not in (0, 1, weight.shape[1])


@torch.no_grad()
def compress_(module: nn.Module, places: Places, *, name: str, states: States = lambda _: ()) -> None:
    """Make a layer hold the weights at these places only; all others are 0.

    name: the weight's. states: returns the optimizers' states of a parameter; tensors of its shape
    become vectors too.
    """
    if (mask := masks_of(module).get("weight")) is not None:
        mask.hold(places)
    _replace_(cast(nn.Parameter, module._parameters["weight"]), places.gather, states)
    module.__dict__.update(places=places, name=name, states=states)
    module.__class__ = _class(type(module))  # type: ignore[arg-type]  # mypy: a class has no hash


@torch.no_grad()
def expand_(module: nn.Module) -> None:
    """Make the weight of a layer dense again; does nothing where it is."""
    if not isinstance(module, KeptLinear):
        return
    places, states = module.places, module.states
    module.__class__ = module.base_class  # type: ignore[assignment]
    for key in OWN:
        del module.__dict__[key]
    if (mask := masks_of(module).get("weight")) is not None:
        mask.hold(None)
    parameter = cast(nn.Module, module)._parameters["weight"]
    if parameter is not None and parameter.dim() == 1:
        _replace_(parameter, places.scatter, states)


def _replace_(parameter: nn.Parameter, convert: Callable[[Tensor], Tensor], states: States) -> None:
    """Convert a parameter, its gradient and the states of its shape."""
    shape, gradient = parameter.shape, parameter.grad
    converted = convert(parameter.detach())
    parameter.grad = None
    # a loss of before still holds the node that adds up the gradient, and the node the old shape:
    # torch makes a new one where the type changes
    parameter.data = torch.empty(0, dtype=torch.float64 if parameter.dtype == torch.float32 else torch.float32)
    parameter.data = converted
    parameter.grad = None if gradient is None else convert(gradient)
    for state in states(parameter):
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == shape:
                state[key] = convert(value)


@functools.cache
def _class(base: type[nn.Module]) -> type[nn.Module]:
    return type(f"Kept{base.__name__}", (KeptLinear, base), {"base_class": base, "__module__": base.__module__})


def _plain(base: type[nn.Module]) -> nn.Module:
    return base.__new__(base)
