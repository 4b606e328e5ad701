"""Which weights of a model can be masked.

A maskable weight is the weight of a Linear, a convolution or a recurrent layer. Its first axis is
the output unit: [c_out, c_in], [c_out, c_in / groups, k...], or [gates * hidden, c_in] for
recurrent layers. Biases, normalisation, embeddings and transposed convolutions are not maskable.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

RECURRENT = (nn.RNNBase, nn.RNNCellBase)


@dataclass(frozen=True)
class MaskableWeight:
    """One weight: its qualified name, and the module that holds it under parameter_name."""

    name: str
    module: nn.Module
    parameter_name: str

    @property
    def parameter(self) -> nn.Parameter:
        """The dense parameter, even where the module's attribute is an effective weight."""
        return self.module._parameters[self.parameter_name]  # type: ignore[return-value]

    @property
    def recurrent(self) -> bool:
        return isinstance(self.module, RECURRENT)


def maskable_weights(
    model: nn.Module, *, include: Sequence[str] | None = None, exclude: Sequence[str] | None = None
) -> dict[str, MaskableWeight]:
    """The maskable weights by qualified name, in the model's order.

    include, exclude: fnmatch patterns on module names; a pattern covers everything inside the
    modules it matches. Raises ValueError for a pattern that matches no module, for a weight that is
    shared with another module, and where no weight is left.
    """
    modules = dict(model.named_modules())
    for pattern in [*(include or ()), *(exclude or ())]:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in modules if name):
            raise ValueError(f"pattern '{pattern}' matches no module; modules: {', '.join(n for n in modules if n)}")
    found = {}
    for module_name, module in modules.items():
        if include is not None and not _covered(module_name, include):
            continue
        if exclude is not None and _covered(module_name, exclude):
            continue
        for parameter_name in _weight_names(module):
            name = f"{module_name}.{parameter_name}" if module_name else parameter_name
            found[name] = MaskableWeight(name, module, parameter_name)
    if not found:
        raise ValueError("nothing to prune: no Linear, convolution or recurrent layer is left to mask in this model")
    _refuse_shared(model, found)
    return found


def _weight_names(module: nn.Module) -> list[str]:
    if isinstance(module, nn.RNNBase):
        return [name for name in module._flat_weights_names if name.startswith("weight_")]
    if isinstance(module, nn.RNNCellBase):
        return ["weight_ih", "weight_hh"]
    plain = isinstance(module, (nn.Linear, _ConvNd)) and not isinstance(module, _ConvTransposeNd)
    return ["weight"] if plain else []


def _covered(module_name: str, patterns: Iterable[str]) -> bool:
    parts = module_name.split(".")
    prefixes = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return any(fnmatch.fnmatchcase(prefix, pattern) for pattern in patterns for prefix in prefixes)


def _refuse_shared(model: nn.Module, found: Mapping[str, MaskableWeight]) -> None:
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for name, weight in found.items():
        held = weight.module._parameters.get(weight.parameter_name)
        if held is None:
            raise ValueError(f"{name} is computed from other parameters (weight_norm, parametrize): exclude its module")
        if isinstance(weight.parameter, nn.UninitializedParameter):
            raise ValueError(f"{name} has no data yet: run one batch through the model before attaching a method")
        names = owners[id(weight.parameter)]
        if len(names) > 1:
            raise ValueError(f"one tensor is the weight of {' and '.join(names)}: exclude all of these modules")
