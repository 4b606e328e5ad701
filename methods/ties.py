"""Which parameters of a model share numbers: one tensor under several names, or overlapping views."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def sharing(parameters: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """For each name, the names of all parameters that share a number with it, its own included.

    Two parameters share numbers where they are one tensor, or where they are views that overlap in
    memory. Views of disjoint parts of one storage share nothing.
    """
    by_tensor: dict[int, list[str]] = {}
    for name, parameter in parameters.items():
        by_tensor.setdefault(id(parameter), []).append(name)
    shared = {name: list(names) for names in by_tensor.values() for name in names}
    for first, second in _overlapping([parameters[names[0]] for names in by_tensor.values()]):
        for one, other in ((first, second), (second, first)):
            for name in by_tensor[id(one)]:
                shared[name] += by_tensor[id(other)]
    return shared


def repeats_a_number(parameter: Tensor) -> bool:
    """Whether several entries of the parameter are one number in memory, as after `expand`."""
    return any(step == 0 and size > 1 for size, step in zip(parameter.shape, parameter.stride(), strict=True))


def has_memory(parameter: Tensor) -> bool:
    """Whether the entries lie in memory with strides: no meta, sparse, empty or lazy tensor."""
    strided = not isinstance(parameter, nn.UninitializedParameter) and parameter.layout == torch.strided
    return strided and not parameter.is_meta and parameter.numel() > 0 and parameter.data_ptr() != 0


def _overlapping(parameters: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    spans = sorted(
        ((*_span(p), p) for p in parameters if has_memory(p)), key=lambda span: (str(span[2].device), span[0])
    )
    pairs = []
    for i, (_, end, first) in enumerate(spans):
        for start, _, second in itertools.islice(spans, i + 1, None):
            if start >= end or second.device != first.device:
                break
            if _share_an_entry(first, second):
                pairs.append((first, second))
    return pairs


def _span(parameter: Tensor) -> tuple[int, int]:
    """The addresses of its first byte and of the byte after its last."""
    last = sum((size - 1) * step for size, step in zip(parameter.shape, parameter.stride(), strict=True))
    return parameter.data_ptr(), parameter.data_ptr() + (last + 1) * parameter.element_size()


def _share_an_entry(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors whose spans overlap have an entry in common. `first` begins first."""
    offset, rest = divmod(second.data_ptr() - first.data_ptr(), first.element_size())
    if rest or first.dtype != second.dtype:
        return True
    ends = [_span(parameter)[1] for parameter in (first, second)]
    entries = torch.arange((max(ends) - first.data_ptr()) // first.element_size())
    mine = entries.as_strided(first.shape, first.stride())
    return bool(torch.isin(entries.as_strided(second.shape, second.stride(), offset), mine).any())
