"""Whether the processes that train one model hold the same masks and thresholds."""

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


def equal(tensors: Mapping[str, Tensor], process_group: Any) -> bool:
    """Whether all processes hold the same bits. Every process of the group has to call this."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    group = _group(process_group)
    found: list[str | None] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, digest.hexdigest(), group=group)
    return len(set(found)) == 1


def _group(process_group: Any) -> Any:
    return None if isinstance(process_group, _Default) else process_group
