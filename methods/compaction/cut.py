"""Cuts units that cannot affect the output out of a finalized network.

A *unit* is a row of a Linear's weight or a filter of a Conv2d. Its *region* is everything that its
output passes through on the way to the next Linear or Conv2d layers, its *consumers*. A unit is cut
where, in each consumer, either

    all weights that read it are 0, or
    its own weights are all 0: its output is a constant, which is added to the consumer's bias

The constant is the unit's bias after normalisation, activation and pooling. A convolution that pads
with zeros reads another value at its border, so there the constant has to be 0. A cut may leave
other units with only zeros, so cutting is repeated until nothing changes. A layer keeps at least
one unit.

Not cut are channels that reach a residual addition or another operation that
`methods.compaction.graph` does not know, and the units of recurrent layers, of grouped layers and
of layers that are used twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from methods.compaction.graph import NORMS, WEIGHTED, Network, Region, Weighted


def compact_(model: nn.Module) -> nn.Module:
    """Cut dead units out of a plain model, in place, and return the model.

    In evaluation mode the model computes the same function. It takes inputs [b, n] or [b, c, h, w].
    Modules keep their names and classes and get smaller. A module without a bias gets one where a
    constant is added to it. Raises ValueError, naming the module, where torch.fx cannot trace
    `forward`; the model is then unchanged.
    """
    with _evaluating(model), torch.no_grad():
        network = Network(model)
        while sum(_shrink_(network.region(node)) for node in network.producers()):
            pass
    return model


def regions(model: nn.Module) -> list[Region]:
    """Everything in a plain model that `compact_` can cut; the model stays as it is. Raises like it."""
    with _evaluating(model), torch.no_grad():
        network = Network(model)
        found = [network.region(node) for node in network.producers()]
    return [region for region in found if region is not None]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Set only the training flags: a model's own `eval` may do more."""
    before = {module: module.training for module in model.modules()}
    try:
        for module in before:
            module.training = False
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _shrink_(region: Region | None) -> bool:
    """Cut the units of the region's producer that no consumer needs; whether there were any."""
    if region is None:
        return False
    gone = torch.ones(len(region.producer.weight), dtype=torch.bool, device=region.producer.weight.device)
    for consumer, values in region.consumers:
        gone &= _unneeded(consumer, values)
    if gone.all():
        gone[0] = False
    if gone.any():
        _cut_(region, gone)
    return bool(gone.any())


def _columns(consumer: Weighted, units: int) -> Tensor:
    """A consumer's weights by the unit that they read, float64 [c_out, units, positions]."""
    weight: Tensor = consumer.weight.double()
    return weight.reshape(len(weight), units, -1)


def _unneeded(consumer: Weighted, values: Tensor) -> Tensor:
    """The units that the consumer does not need: bool [units]."""
    unused = (_columns(consumer, len(values)) == 0).all(2).all(0)
    pads = isinstance(consumer, nn.Conv2d) and consumer.padding_mode == "zeros"
    pads = pads and consumer.padding not in ("valid", (0, 0))
    return unused | ((values == 0) if pads else values.isfinite()).all(1)


def _cut_(region: Region, gone: Tensor) -> None:
    kept, units = ~gone, len(gone)
    for consumer, values in region.consumers:
        _fold_(consumer, values, gone)
        positions = _columns(consumer, units).shape[2] if isinstance(consumer, nn.Linear) else 1
        _keep_(consumer, "weight", kept.repeat_interleave(positions), axis=1)
    for module in region.norms:
        entries = kept.repeat_interleave(module.num_features // units)
        for name in ("weight", "bias", "running_mean", "running_var"):
            _keep_(module, name, entries)
    for name in ("weight", "bias"):
        _keep_(region.producer, name, kept)
    for changed in (region.producer, *region.norms, *(consumer for consumer, _ in region.consumers)):
        note_sizes_(changed)


def _fold_(consumer: Weighted, values: Tensor, gone: Tensor) -> None:
    """Add the constant outputs of these units to the consumer's bias."""
    columns = _columns(consumer, len(gone))[:, gone]  # c_out, units, positions
    given = values[gone].expand(-1, columns.shape[2]).where((columns != 0).any(0), 0)
    added = torch.einsum("oup,up->o", columns, given)
    if consumer.bias is None and added.any():
        consumer.bias = nn.Parameter(consumer.weight.new_zeros(len(consumer.weight)))
    if consumer.bias is not None:
        consumer.bias.copy_(consumer.bias.double() + added)


def _keep_(module: nn.Module, name: str, entries: Tensor, axis: int = 0) -> None:
    """Keep only these entries of a parameter or a buffer along an axis."""
    tensor = getattr(module, name)
    if tensor is None:
        return
    left = tensor.index_select(axis, entries.nonzero().flatten()).contiguous()
    setattr(module, name, nn.Parameter(left, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else left)


def note_sizes_(module: nn.Module) -> None:
    """Set a module's numbers of units and features to those of its tensors."""
    if isinstance(module, NORMS):
        if module.running_mean is not None:
            module.num_features = len(module.running_mean)
        return
    assert isinstance(module, WEIGHTED)
    c_out, c_in = module.weight.shape[:2]
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = c_out, c_in
    else:
        module.out_channels, module.in_channels = c_out, c_in * module.groups
