"""Linear layers that hold kept weights only, and the change to and from a dense weight.

The parameter stays the same object, so that an optimizer keeps training it: its data changes from
the matrix to a vector of the kept weights, and so do its gradient and the optimizer's state. The
layer's attribute and its state_dict show the dense weight.
"""

from __future__ import annotations

import copy
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
OWN = ("places", "weight_name", "states")  # of the layer's __dict__
States = Callable[[Tensor], Iterable[dict[str, Any]]]  # the optimizer's state of a parameter


class KeptLinear(nn.Linear):
    """A Linear layer while it holds kept weights only.

    Writing to the layer from outside and moving it first make it a Linear with its dense weight
    again; copies are such layers too. places: of the kept weights. weight_name: the qualified one.
    """

    places: Places
    weight_name: str
    states: States

    def forward(self, input: Tensor) -> Tensor:
        values = cast(Tensor, self._parameters["weight"])
        if values.dim() > 1:  # stands in for the parameter, as in torch.func.functional_call
            return F.linear(input, values * self.places.mask(), self.bias)
        return kernels.backend_for(values).kept_linear(input, values, self.places, self.bias)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The dense weight, computed from the kept ones: it refuses writes."""
        values = cast(Tensor, self._parameters["weight"])
        if values.dim() > 1:
            return values
        return ComputedWeight.of(self.places.scatter(values), values, self.weight_name, self)

    def make_dense_(self) -> None:
        expand_(self)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        if name == "weight":
            expand_(self)
        nn.Linear.register_parameter(self, name, param)

    def __delattr__(self, name: str) -> None:
        if name == "weight":
            expand_(self)
        nn.Linear.__delattr__(self, name)

    def reset_parameters(self) -> None:
        expand_(self)
        nn.Linear.reset_parameters(self)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        expand_(self)
        return cast(Any, nn.Linear)._apply(self, fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        expand_(self)
        nn.Linear._load_from_state_dict(self, *args)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        values = cast(Tensor, self._parameters["weight"])
        if values.dim() == 1:
            destination[f"{prefix}weight"] = self.weight if keep_vars else self.weight.detach()

    def _dense(self) -> nn.Linear:
        """A Linear that shares all but the weight with this layer."""
        values = cast(nn.Parameter, self._parameters["weight"])
        weight = nn.Parameter(self.places.scatter(values.detach()), requires_grad=values.requires_grad)
        weight.grad = None if values.grad is None else self.places.scatter(values.grad.detach())
        dense = _empty()
        dense.__dict__ = {key: value for key, value in vars(self).items() if key not in OWN}
        dense.__dict__["_parameters"] = self._parameters | {"weight": weight}
        return dense

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Linear:
        """A Linear. An optimizer that is copied next trains it, with dense state."""
        values = cast(nn.Parameter, self._parameters["weight"])
        if id(values) in memo:
            raise ValueError(f"{self.weight_name}: copy the model before its optimizer, or use execution='dense'")
        copied = copy.deepcopy(self._dense(), memo)
        memo[id(self)], memo[id(values)] = copied, copied.weight
        for value in (value for state in self.states(values) for value in state.values()):
            if isinstance(value, Tensor) and value.shape == values.shape:
                memo[id(value)] = self.places.scatter(value)
        if (mask := masks_of(copied).get("weight")) is not None:
            mask.note(copied.weight)
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _empty, (), vars(self._dense())


def _empty() -> nn.Linear:
    return nn.Linear.__new__(nn.Linear)


def holds_kept(module: nn.Module) -> bool:
    """Whether a layer holds kept weights only."""
    return isinstance(module, KeptLinear)


def can_hold(module: nn.Module) -> bool:
    """Whether it is a Linear of torch, and no subclass with ways of its own."""
    return type(module) is nn.Linear


def fits(weight: Tensor) -> bool:
    """Whether a layer can hold a part of this dense weight only.

    It has to lie in memory of its own, and may have no hook, which would get another shape.
    """
    supported = weight.is_cpu and weight.dtype in TYPES and weight.dim() == 2 and weight.numel() <= MOST
    if not supported or type(weight) is not nn.Parameter or weight.is_inference():
        return False
    if weight.is_shared():  # type: ignore[no-untyped-call]
        return False
    return weight.untyped_storage().nbytes() == weight.nbytes and not weight._backward_hooks


def tells(weight: Tensor, kept: int) -> bool:
    """Whether a vector of so many kept weights is told from this dense weight by its shape.

    A vector of as many as the weight has columns would be added to a matrix, such as an average of
    dense weights, without an error: such a layer stays dense.
    """
    return kept < weight.numel() and kept not in (0, 1, weight.shape[1])


@torch.no_grad()
def compress_(module: nn.Module, places: Places, *, name: str, states: States = lambda _: ()) -> None:
    """Make a Linear hold the weights at these places only; all others are 0.

    name: the weight's. states: the optimizer's state of a parameter; what has its shape is converted.
    """
    if (mask := masks_of(module).get("weight")) is not None:
        mask.hold(places)
    _replace_(cast(nn.Parameter, module._parameters["weight"]), places.gather, states)
    module.__dict__.update(zip(OWN, (places, name, states), strict=True))
    module.__class__ = KeptLinear


@torch.no_grad()
def expand_(module: nn.Module) -> None:
    """Make the weight of a layer dense again; does nothing where it is."""
    if not isinstance(module, KeptLinear):
        return
    places, states = (module.__dict__.pop(key) for key in OWN if key != "weight_name")
    del module.__dict__["weight_name"]
    cast(nn.Module, module).__class__ = nn.Linear
    parameter = module._parameters["weight"]
    if parameter is not None and parameter.dim() == 1:
        _replace_(parameter, places.scatter, states)
    if (mask := masks_of(module).get("weight")) is not None:
        mask.hold(None)
        if parameter is not None:
            mask.note(parameter)


def _replace_(parameter: nn.Parameter, convert: Callable[[Tensor], Tensor], states: States) -> None:
    """Convert a parameter, its gradient and the states of its shape."""
    shape, gradient = parameter.shape, parameter.grad
    converted = convert(parameter.detach())
    parameter.grad = None
    # a loss of before still holds the node that adds up the gradient, and the node the old shape:
    # torch makes a new one where the type changes
    parameter.data = parameter.new_empty(0, dtype=torch.float64 if parameter.dtype == torch.float32 else torch.float32)
    parameter.data = converted
    parameter.grad = None if gradient is None else convert(gradient)
    torch.autograd.graph.increment_version(parameter)  # that loss has no backward pass any more
    for state in states(parameter):
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == shape:
                state[key] = convert(value)
