"""Linear layers that hold kept weights only, and the change to and from a dense weight.

The parameter stays the same object, so that an optimizer keeps training it: its data changes from
the matrix to a vector of the kept weights, and so do its gradient and the optimizer's state. The
layer's attribute and its state_dict show the dense weight.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
Choose = Callable[[nn.Module, Tensor], None]  # gets the layer and the inputs of a forward pass
States = Callable[[Tensor], Iterable[dict[str, Any]]]  # the optimizer's state of a parameter


@dataclass
class Held:
    """What a layer holds. places: of the kept weights, if it holds these only; None for a dense weight.

    name: the weight's. states: see `States`. choose: called before each forward pass of a layer
    that holds a dense weight; it may call `compress_`.
    """

    name: str
    states: States = lambda _: ()
    choose: Choose | None = None
    places: Places | None = None


class KeptLinear:
    """What a layer that may hold kept weights only adds to its class.

    Writing to the layer from outside and moving it first make its weight dense again; copies are
    layers of the original class.
    """

    base_class: type[nn.Module]
    held: Held

    def forward(self, input: Tensor) -> Tensor:
        module, held = cast(nn.Linear, self), self.held
        if held.places is None and held.choose is not None:
            held.choose(module, input)
        values = cast(Tensor, module._parameters["weight"])
        if held.places is None:
            return F.linear(input, values, module.bias)
        if values.dim() > 1:  # stands in for the parameter, as in torch.func.functional_call
            return F.linear(input, values * held.places.mask(), module.bias)
        return kernels.backend_for(values).kept_linear(input, values, held.places, module.bias)

    @property
    def weight(self) -> Tensor:
        """The dense weight. Where it is computed from the kept ones, it refuses writes."""
        values = cast(Tensor, cast(nn.Module, self)._parameters["weight"])
        if self.held.places is None or values.dim() > 1:
            return values
        return ComputedWeight.of(self.held.places.scatter(values), values, self.held.name)

    def make_dense_(self) -> None:
        expand_(cast(nn.Module, self))

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        if name == "weight":
            expand_(cast(nn.Module, self))
        self.base_class.register_parameter(cast(nn.Module, self), name, param)

    def reset_parameters(self) -> None:
        expand_(cast(nn.Module, self))
        cast(Any, self.base_class).reset_parameters(self)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        expand_(cast(nn.Module, self))
        return cast(Any, self.base_class)._apply(self, fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        expand_(cast(nn.Module, self))
        cast(Any, self.base_class)._load_from_state_dict(self, *args)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        module, places = cast(nn.Module, self), self.held.places
        self.base_class._save_to_state_dict(module, destination, prefix, keep_vars)
        values = cast(Tensor, module._parameters["weight"])
        if places is not None and values.dim() == 1:
            destination[f"{prefix}weight"] = places.scatter(values if keep_vars else values.detach())

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        module, places = cast(nn.Module, self), self.held.places
        state = {key: value for key, value in vars(module).items() if key != "held"}
        if places is not None:
            values = cast(nn.Parameter, module._parameters["weight"])
            dense = nn.Parameter(places.scatter(values.detach()), requires_grad=values.requires_grad)
            state["_parameters"] = module._parameters | {"weight": dense}
        return _plain, (self.base_class,), state


def holds_kept(module: nn.Module) -> bool:
    """Whether a layer holds kept weights only."""
    return isinstance(module, KeptLinear) and module.held.places is not None


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


def prepare(module: nn.Module, held: Held) -> None:
    """Let a layer hold kept weights only; it holds its dense weight for now."""
    module.__dict__["held"] = held
    module.__class__ = _class(type(module))  # type: ignore[arg-type]  # mypy: a class has no hash


@torch.no_grad()
def compress_(module: nn.Module, places: Places) -> None:
    """Make a prepared layer hold the weights at these places only; all others are 0."""
    assert isinstance(module, KeptLinear)
    if (mask := masks_of(module).get("weight")) is not None:
        mask.hold(places)
    module.held.places = places
    _replace_(cast(nn.Parameter, module._parameters["weight"]), places.gather, module.held.states)


@torch.no_grad()
def expand_(module: nn.Module) -> None:
    """Make the weight of a layer dense again; does nothing where it is."""
    if not isinstance(module, KeptLinear) or (places := module.held.places) is None:
        return
    module.held.places = None
    if (mask := masks_of(module).get("weight")) is not None:
        mask.hold(None)
    parameter = module._parameters["weight"]
    if parameter is not None and parameter.dim() == 1:
        _replace_(parameter, places.scatter, module.held.states)


def release_(module: nn.Module) -> None:
    """Undo `prepare`."""
    if isinstance(module, KeptLinear):
        expand_(module)
        del module.__dict__["held"]
        module.__class__ = module.base_class  # type: ignore[assignment]


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
