"""The processes that train one model: whether they hold the same masks and thresholds, and means over them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor


class _Default:
    """Stands for the default process group, if one is initialized."""


DEFAULT: Final = _Default()


def usable(process_group: Any) -> bool:
    """Whether there are several processes to compare."""
    if process_group is None or not dist.is_available() or not dist.is_initialized():
        return False
    return dist.get_world_size(_group(process_group)) > 1


def check(tensors: Mapping[str, Tensor], process_group: Any, advice: str) -> None:
    """Raises RuntimeError with the advice unless all processes, which have to call this, hold the same bits."""
    if not usable(process_group):
        return
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    group = _group(process_group)
    found: list[str | None] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, digest.hexdigest(), group=group)
    if len(set(found)) > 1:
        raise RuntimeError(f"processes hold different masks or thresholds: {advice}")


def mean(tensors: Mapping[str, Tensor], process_group: Any) -> dict[str, Tensor]:
    """The mean of each tensor over all processes, which have to call this; the tensors as they are in one process."""
    if not usable(process_group):
        return dict(tensors)
    group = _group(process_group)
    found = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    for tensor in found.values():
        dist.all_reduce(tensor, group=group)
    return {name: tensor / dist.get_world_size(group) for name, tensor in found.items()}


def _group(process_group: Any) -> Any:
    return None if isinstance(process_group, _Default) else process_group
