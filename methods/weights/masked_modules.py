"""The modules whose weights a method masks: each carries the masks of its own weights, and hooks that keep them.

Masks in place hold wherever the weight is used. A weight may be written from outside: by a
checkpoint, an initialisation, an average of weights, or an optimizer that evaluates inside its
step. Each write raises the tensor's version or, as `parameter.data = values` does, gives the tensor
another memory. So a hook before the module's forward pass sees it and zeroes the pruned weights
again, in the memory that the parameter has then. Writes in place through `.data`, such as
`parameter.data.mul_(0.9)`, do neither; `Attachment.step`, `density` and `finalize` zero them. A
forward pass compiled by torch.compile has no such hook: there a loaded checkpoint is masked when it
is loaded.

A module carries its masks in its `__dict__`: they are no part of its `state_dict`, and copies and
pickles take them along.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from methods.layers import MaskableWeight
from methods.weights.reparametrization import extra_name
from methods.weights.weight_mask import WeightMask

KEY = "weight_masks"  # of a module's __dict__: its WeightMasks by parameter name
StandIn = tuple[nn.Module, str, Tensor]  # a module, the name of its parameter, the tensor in the parameter's place
LOST = (
    "load_state_dict gave values to weights that the present masks prune, and they are 0 now: to return to an earlier "
    "state, load attached.state_dict() of the same step first"
)
HOLDERS = "masked_modules"  # of a module's __dict__: the modules that its hook looks at


def masks_of(module: nn.Module) -> dict[str, WeightMask]:
    """The masks that a module carries, by parameter name; {} where no method is attached."""
    masks: dict[str, WeightMask] = module.__dict__.get(KEY, {})
    return masks


def carriers(model: nn.Module) -> Iterator[nn.Module]:
    """The modules in a model to whose weights a method is attached."""
    return (module for module in model.modules() if KEY in module.__dict__)


def carry(weight: MaskableWeight, mask: WeightMask) -> None:
    """Make the module that holds a weight carry its mask."""
    weight.module.__dict__.setdefault(KEY, {})[weight.parameter_name] = mask
    mask.note(weight.parameter)
    weight.module.__dict__["__prepare_scriptable__"] = _refuse_script


def watch(model: nn.Module) -> None:
    """Mask weights again before the model, or one of the modules that carry masks, computes.

    A module may read the weights of others, as attention does: so the model's own hook serves all
    its modules, and the hook of a module in it those that lie directly in the module.
    """
    holders = list(carriers(model))
    for module in model.modules():
        carried = holders if module is model else [m for m in (module, *module.children()) if KEY in m.__dict__]
        if not carried:
            continue
        if HOLDERS not in module.__dict__:
            module.register_forward_pre_hook(_settle, prepend=True)
        before = module.__dict__.get(HOLDERS, [])  # of another method at work on a part of the model
        module.__dict__[HOLDERS] = list(dict.fromkeys([*before, *carried]))
    for module in holders:
        module.register_load_state_dict_post_hook(_mask_loaded)  # type: ignore[no-untyped-call]


def release(module: nn.Module) -> None:
    """Take the masks, and the hooks of `watch`, from a module."""
    for key in (KEY, HOLDERS, "__prepare_scriptable__"):
        module.__dict__.pop(key, None)
    all_hooks: tuple[dict[int, Any], ...] = (module._forward_pre_hooks, module._load_state_dict_post_hooks)
    for hooks in all_hooks:
        for number in [number for number, hook in hooks.items() if any(hook is own for own in OWN_HOOKS)]:
            del hooks[number]


def settle_(module: nn.Module, *, written: bool = False) -> list[StandIn]:
    """Mask the weights of one module that were written since the last time; written: all of them.

    Returns the tensors that stood in for parameters and were replaced by masked copies.
    """
    replaced: list[StandIn] = []
    for name, mask in module.__dict__.get(KEY, {}).items():
        if (weight := mask.settle_(module, name, written=written)) is not None:
            replaced.append((module, name, weight))
    return replaced


def _settle(module: nn.Module, _: Any) -> None:
    if not torch.compiler.is_compiling():
        if HOLDERS not in module.__dict__:
            raise RuntimeError(
                f"a {type(module).__name__} was made from a layer with a mask, and carries none (quantization and "
                "fusion do so): call methods.finalize(model) first, and convert the finalized model"
            )
        replaced: list[StandIn] = []
        for holder in module.__dict__[HOLDERS]:
            replaced += settle_(holder)
        _put_back_after(module, replaced)


def _put_back_after(caller: nn.Module, replaced: list[StandIn]) -> None:
    """After the forward pass of `caller`, give its modules the tensors back that stood in."""
    if not replaced:
        return

    def put_back(*_: Any) -> None:
        handle.remove()
        for module, name, weight in replaced:
            module._parameters[name] = weight  # type: ignore[assignment]

    handle = caller.register_forward_hook(put_back, always_call=True)


def _mask_loaded(module: nn.Module, _: Any) -> None:
    """Mask weights that were loaded, and keep their values in case other masks are loaded next.

    Those of a copy of a fresh model wait until the copy computes: the masks of a saved training may come first.
    Warns where training has begun and the masks zero some values: those of an earlier step had other masks.
    """
    loses = False
    for name, mask in masks_of(module).items():
        weight = module._parameters.get(name)
        if weight is None or not (mask.prunes or mask.is_copy) or not mask.written(weight):
            continue
        if mask.waits:
            mask.follow_in_forward()
            continue
        loaded = weight.detach().clone()
        mask.settle_(module, name, written=True)
        if mask.prunes and not mask.forward:
            loses |= mask.loses(loaded)
            mask.before = None if mask.is_copy else loaded
    if loses:
        warnings.warn(LOST, stacklevel=2)


OWN_HOOKS = (_settle, _mask_loaded)


def _refuse_script() -> NoReturn:
    raise RuntimeError("torch.jit.script cannot compile a model with an attached method: methods.finalize(model) first")


def mask_others_(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Zero the pruned weights of a copy or an average of a model, which may be wrapped.

    masks: bool, true where a weight is kept, by the weights' names. Weights with thresholds of
    their own stay as they are. Raises ValueError for a model that lacks one of the weights.
    """
    while (lacking := masks.keys() - _names(model)) and isinstance(getattr(model, "module", None), nn.Module):
        model = cast(nn.Module, model.module)
    if lacking:
        raise ValueError(f"the model has no {', '.join(sorted(lacking))}: it is no copy of the attached one")
    for name, mask in masks.items():
        module_name, _, parameter_name = name.rpartition(".")
        module = model.get_submodule(module_name)
        weight = cast(Tensor, module._parameters[parameter_name])
        if extra_name(parameter_name) in module._parameters:
            continue
        if (held := masks_of(module).get(parameter_name)) is not None:
            held.replace(~mask.to(weight.device))
            if held.forward:
                continue
        weight.masked_fill_(~mask.to(weight.device), 0)


def _names(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters(remove_duplicate=False)}
