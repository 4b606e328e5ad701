"""Linear layers that hold only their kept weights, and the conversion from and to a dense weight.

The parameter stays the same object, so that an optimizer keeps training it. Its data changes from
the matrix to a vector of the kept weights, and so do its gradient and the optimizer's state. The
layer's attribute `weight` and its state_dict show the dense weight.
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
from methods.weights.masked_modules import masks_of

TYPES = (torch.float32, torch.float64)
MOST = 2**31 - 1  # the kernels' indices are int32
OWN = ("places", "weight_name", "states")  # what a KeptLinear has in its __dict__ beside a Linear's
States = Callable[[Tensor], Iterable[dict[str, Any]]]  # the optimizer's state of a parameter


class KeptLinear(nn.Linear):
    """A Linear layer while it holds only its kept weights.

    Before its weight is replaced, a state is loaded or the layer is moved, it becomes a Linear with
    its dense weight again. Its copies are such Linears too.
    places: of the kept weights. weight_name: the weight's qualified name, for messages. states:
    returns the optimizer's state of a parameter.
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
        """The dense weight, computed from the kept weights; it refuses writes."""
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
        """A Linear with the dense weight that shares everything else with this layer."""
        values = cast(nn.Parameter, self._parameters["weight"])
        weight = nn.Parameter(self.places.scatter(values.detach()), requires_grad=values.requires_grad)
        weight.grad = None if values.grad is None else self.places.scatter(values.grad.detach())
        dense = _empty()
        dense.__dict__ = {key: value for key, value in vars(self).items() if key not in OWN}
        dense.__dict__["_parameters"] = self._parameters | {"weight": weight}
        return dense

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Linear:
        """A Linear. An optimizer that is copied after it trains the copy, with dense state."""
        values = cast(nn.Parameter, self._parameters["weight"])
        if id(values) in memo:
            raise ValueError(f"{self.weight_name}: copy the model before its optimizer, or use execution='dense'")
        copied = copy.deepcopy(self._dense(), memo)
        memo[id(self)], memo[id(values)] = copied, copied.weight
        for value in (value for state in self.states(values) for value in state.values()):
            if isinstance(value, Tensor) and value.shape == values.shape:
                memo[id(value)] = self.places.scatter(value)
        if (mask := masks_of(copied).get("weight")) is not None:
            mask.note_copy(copied.weight)
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _empty, (), vars(self._dense())


def _empty() -> nn.Linear:
    """A Linear without attributes."""
    return nn.Linear.__new__(nn.Linear)


def holds_kept(module: nn.Module) -> bool:
    """Whether a layer holds only its kept weights."""
    return isinstance(module, KeptLinear)


def can_hold(module: nn.Module) -> bool:
    """Whether a layer is torch's own Linear: a subclass may compute differently."""
    return type(module) is nn.Linear


def fits(weight: Tensor) -> bool:
    """Whether a layer can hold only a part of this dense weight.

    The weight needs memory of its own, and must have no hook, which would get another shape.
    """
    supported = weight.is_cpu and weight.dtype in TYPES and weight.dim() == 2 and weight.numel() <= MOST
    if not supported or type(weight) is not nn.Parameter or weight.is_inference():
        return False
    if weight.is_shared():  # type: ignore[no-untyped-call]
        return False
    return weight.untyped_storage().nbytes() == weight.nbytes and not weight._backward_hooks


def distinguishable(weight: Tensor, kept: int) -> bool:
    """Whether a vector of this many kept weights cannot be mistaken for the dense weight.

    A vector of one weight, or of as many as the matrix has columns, would broadcast: adding it to a
    matrix, such as an average of dense weights, gives no error. Such a layer stays dense.
    """
    return kept < weight.numel() and kept not in (0, 1, weight.shape[1])


@torch.no_grad()
def compress_(module: nn.Module, places: Places, *, name: str, states: States = lambda _: ()) -> None:
    """Make a Linear hold only the weights at these places; all others count as 0.

    name: the weight's qualified name. states: returns the optimizer's state of a parameter, of which
    tensors of the parameter's shape are converted.
    """
    if (mask := masks_of(module).get("weight")) is not None:
        mask.hold(places)
    _replace_(cast(nn.Parameter, module._parameters["weight"]), places.gather, states)
    module.__dict__.update(zip(OWN, (places, name, states), strict=True))
    module.__class__ = KeptLinear


@torch.no_grad()
def expand_(module: nn.Module) -> None:
    """Make the weight of a layer dense again; does nothing where it is dense."""
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
    """Convert a parameter, its gradient, and the tensors of its shape in the optimizer's state."""
    shape, gradient = parameter.shape, parameter.grad
    converted = convert(parameter.detach())
    parameter.grad = None
    # an earlier loss still holds the autograd node that accumulates the gradient in the old shape:
    # a change of the type makes torch create a new node
    parameter.data = parameter.new_empty(0, dtype=torch.float64 if parameter.dtype == torch.float32 else torch.float32)
    parameter.data = converted
    parameter.grad = None if gradient is None else convert(gradient)
    torch.autograd.graph.increment_version(parameter)  # makes backward() of that loss an error
    for state in states(parameter):
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == shape:
                state[key] = convert(value)
