"""Loads the state of a compact network into a model of the original architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from methods.compaction.cut import note_sizes_, regions
from methods.compaction.graph import NORMS, WEIGHTED

CUT = ("weight", "bias", "running_mean", "running_var")


def load_compact(model: nn.Module, state: Mapping[str, Any]) -> nn.Module:
    """Load the `state_dict` of a network that `finalize(model, compact=True)` made, in place.

    model: a plain model of the architecture from before compaction, with any values. Its Linear,
    Conv2d and BatchNorm modules take the sizes of the state, and biases where compaction added
    them. Returns the model, which then computes what the compact network computes, bit for bit.
    A model on the meta device gets the state's own tensors. Raises ValueError with the key where the
    state cannot be of this model; the model is then unchanged.
    """
    check_compact(model, state)
    check_layers_fit(model, state)
    for owner, module in model.named_modules():
        if type(module) in (*WEIGHTED, *NORMS):
            _resize_(module, {name: state[key] for name in CUT if (key := _key(owner, name)) in state})
    on_meta = any(value.is_meta for value in model.state_dict().values())
    model.load_state_dict(state, assign=on_meta)
    return model


def _key(owner: str, name: str) -> str:
    return f"{owner}.{name}" if owner else name


def check_compact(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Raises ValueError with the key where the state cannot be of this model, compact or whole."""
    modules, own = dict(model.named_modules()), model.state_dict()
    for key in own:
        if key not in state:
            raise ValueError(f"the state lacks '{key}': it is not of this model")
    for key, value in state.items():
        owner, _, name = key.rpartition(".")
        module = modules.get(owner)
        added = name == "bias" and isinstance(module, WEIGHTED)  # by compaction
        if key not in own and not added:
            raise ValueError(f"the state has '{key}', which this model lacks: it is not of this model")
        if not isinstance(value, Tensor):
            if isinstance(own.get(key), Tensor):
                raise ValueError(f"'{key}' is {type(value).__name__}, and the model has a tensor")
            continue
        before = own[key].shape if key in own else own[_key(owner, "weight")].shape[:1]
        if value.shape != before and not _may_be_cut(module, name, before, value.shape):
            raise ValueError(f"'{key}' is {list(value.shape)}, which cannot be cut out of {list(before)}")
    for key, value in state.items():
        owner, _, name = key.rpartition(".")
        beside = state.get(_key(owner, "weight"))
        cut = isinstance(modules.get(owner), (*WEIGHTED, *NORMS)) and name in CUT
        if cut and beside is not None and len(value) != len(beside):
            raise ValueError(f"'{key}' has {len(value)} units, and the weight beside it {len(beside)}")


def check_layers_fit(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Raises ValueError with the key where a layer is not what compaction makes of it beside the other layers.

    state: one that `check_compact` takes.
    """
    own = {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}
    if all(value.shape == state[key].shape for key, value in own.items()):
        return
    try:
        found = regions(model)
    except ValueError as error:
        raise ValueError(f"the state is smaller than this model, which compaction cannot cut: {error}") from error
    names = {module: name for name, module in model.named_modules()}
    wanted = {key: list(value.shape) for key, value in own.items()}
    for region in found:
        units, kept = len(region.producer.weight), len(state[_key(names[region.producer], "weight")])
        for module in (region.producer, *region.norms):
            for key in (key for name in CUT if (key := _key(names[module], name)) in wanted):
                wanted[key][0] = wanted[key][0] // units * kept
        for consumer, _ in region.consumers:
            key = _key(names[consumer], "weight")
            wanted[key][1] = wanted[key][1] // units * kept
    for key, shape in wanted.items():
        if list(state[key].shape) != shape:
            raise ValueError(
                f"'{key}' is {list(state[key].shape)}, and the state's other layers need {shape}: "
                "they do not fit one another, or compaction cuts no such layer"
            )


def _may_be_cut(module: nn.Module | None, name: str, before: torch.Size, after: torch.Size) -> bool:
    """Whether compaction can make this shape out of the other one."""
    fits = len(after) == len(before) and all(0 < a <= b for a, b in zip(after, before, strict=True))
    whole = getattr(module, "groups", 1) == 1 and after[2:] == before[2:]  # filters keep their rows and columns
    return type(module) in (*WEIGHTED, *NORMS) and name in CUT and fits and whole


def _resize_(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    weight = getattr(module, "weight", None)
    for name, value in values.items():
        tensor = getattr(module, name)
        if tensor is not None and tensor.shape == value.shape:
            continue
        like = weight if tensor is None else tensor
        assert isinstance(like, Tensor)
        empty = torch.empty(value.shape, dtype=like.dtype, device=like.device)
        is_buffer = name in module._buffers
        setattr(module, name, empty if is_buffer else nn.Parameter(empty, like.requires_grad))
    note_sizes_(module)
