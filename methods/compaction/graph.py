"""Finds what a layer's output passes through up to the next layers, in a graph of torch.fx.

Every known operation on the way treats each unit (a row of a Linear's weight, a filter of a Conv2d)
separately in evaluation mode. The lists below hold all known operations. Any other operation, such
as a sum with another tensor, leaves a region open, and nothing may be cut in an open region.
"""

from __future__ import annotations

import collections
import operator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

Weighted = nn.Linear | nn.Conv2d
Norm = nn.BatchNorm1d | nn.BatchNorm2d
WEIGHTED = (nn.Linear, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
# in evaluation mode
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, "contiguous")
ELEMENTWISE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish,
    F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, torch.relu, torch.sigmoid, torch.tanh,
    "relu", "relu_", "sigmoid", "tanh",
)  # fmt: skip
MAXIMA_AND_ADAPTIVE = (
    nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d,
    F.max_pool2d, F.adaptive_max_pool2d, F.adaptive_avg_pool2d, torch.max_pool2d,
)  # fmt: skip
MEANS = (nn.AvgPool2d, F.avg_pool2d)


class _Tracer(fx.Tracer):
    """Remembers the module in which tracing failed."""

    inside = ""

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        before, self.inside = self.inside, self.path_of_module(m)
        result = super().call_module(m, forward, args, kwargs)
        self.inside = before
        return result


def _traced(model: nn.Module) -> fx.Graph:
    tracer = _Tracer()
    try:
        return tracer.trace(model)
    except Exception as error:
        where = f"module '{tracer.inside}'" if tracer.inside else "the model"
        kind = type(model.get_submodule(tracer.inside)).__name__
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"cannot compact: {where} ({kind}) cannot be traced: {reason}") from error


@dataclass
class Region:
    """What follows a producer. consumers: with the constants that they read, as in `_Signal`."""

    producer: Weighted
    norms: list[Norm] = field(default_factory=list)
    consumers: list[tuple[Weighted, Tensor]] = field(default_factory=list)


@dataclass(frozen=True)
class _Signal:
    """A tensor on the way from a producer to its consumers.

    values: float64 [units, positions]: the constant that a unit outputs, NaN where its output is
    not constant. positions is 1 until positions of a unit have different constants. flat: the
    tensor is [b, units * positions]; otherwise it is [b, units, h, w]. linear: the producer is a
    Linear. single_reader: nothing else reads this tensor or a tensor that it is a view of.
    """

    values: Tensor
    flat: bool
    linear: bool
    single_reader: bool = True

    def positions(self, features: int) -> int | None:
        """How many of these features belong to one unit; None where some belong to no unit."""
        positions, rest = divmod(features, len(self.values))
        return None if rest or (positions != 1 and (self.linear or not self.flat)) else positions


class _OpenError(Exception):
    """The region reaches an unknown operation."""


class Network:
    """The graph of a model, and the modules that may be cut."""

    def __init__(self, model: nn.Module) -> None:
        self.graph = _traced(model)
        self.modules = dict(model.named_modules())
        calls = [node for node in self.graph.nodes if node.op == "call_module"]
        uses = collections.Counter(id(self.modules[node.target]) for node in calls)
        owners = collections.Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
        read = {str(node.target).rpartition(".")[0] for node in self.graph.nodes if node.op == "get_attr"}
        self.free = {
            node.target
            for node in calls
            if (uses[id(module := self.modules[node.target])] == 1 or not module.state_dict())
            and node.target not in read
            and not (module._forward_hooks or module._forward_pre_hooks)
            and all(owners[id(parameter)] == 1 for parameter in module.parameters())
        }

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def producers(self) -> list[fx.Node]:
        """The layers whose units might be cut."""
        return [node for node in self.graph.nodes if self._weighted(node)]

    def region(self, node: fx.Node) -> Region | None:
        """What follows one of the producers; None where the region is open."""
        producer = self.module(node)
        assert isinstance(producer, WEIGHTED)
        linear = isinstance(producer, nn.Linear)
        region = Region(producer)
        try:
            self._follow(node, _Signal(_constants(producer)[:, None], flat=linear, linear=linear), region)
        except _OpenError:
            return None
        return region

    def _weighted(self, node: fx.Node) -> bool:
        module = self.module(node)
        free = node.target in self.free and type(module) in WEIGHTED
        return free and getattr(module, "groups", 1) == 1

    def _follow(self, node: fx.Node, signal: _Signal, region: Region) -> None:
        readers = [user for user in node.users if not _reads_batch_size(user)]
        signal = replace(signal, single_reader=signal.single_reader and len(readers) == 1)
        for user in readers:
            if self._weighted(user):
                self._consume(user, signal, region)
            else:
                self._follow(user, self._through(user, signal, region), region)

    def _consume(self, node: fx.Node, signal: _Signal, region: Region) -> None:
        module = self.module(node)
        assert isinstance(module, WEIGHTED)
        if isinstance(module, nn.Linear) != signal.flat:
            raise _OpenError
        if isinstance(module, nn.Linear) and signal.positions(module.in_features) is None:
            raise _OpenError
        region.consumers.append((module, signal.values))

    def _through(self, node: fx.Node, signal: _Signal, region: Region) -> _Signal:
        """The signal after an operation that treats each unit separately.

        Raises _OpenError for any other operation.
        """
        module = self.module(node)
        kind = node.target if module is None else type(module)
        if module is not None and node.target not in self.free:
            raise _OpenError
        if _flattens(node, module):
            return replace(signal, flat=True)
        if len(node.all_input_nodes) != 1:
            raise _OpenError
        if kind in IDENTITIES or (kind is F.dropout and _argument(node, 2, "training", True) is False):
            return signal
        if kind in NORMS:
            return replace(signal, values=_normalized(module, signal, region), single_reader=True)
        if kind in ELEMENTWISE:
            return replace(signal, values=_activated(node, module, signal), single_reader=True)
        if signal.flat or not (kind in MAXIMA_AND_ADAPTIVE or kind in MEANS):
            raise _OpenError
        values = signal.values
        values = values if _keeps_constants(node, module) else values.where(values == 0, torch.nan)
        return replace(signal, values=values, single_reader=True)


def _constants(producer: nn.Linear | nn.Conv2d) -> Tensor:
    """The constant output of each unit, [units]; NaN where the output depends on the input."""
    dead = (producer.weight == 0).flatten(1).all(1)
    given = torch.zeros(len(dead), device=dead.device) if producer.bias is None else producer.bias
    return given.double().where(dead, torch.nan)


def _normalized(module: nn.Module | None, signal: _Signal, region: Region) -> Tensor:
    assert isinstance(module, NORMS)
    positions = signal.positions(module.num_features)
    if positions is None or module.running_mean is None or isinstance(module, nn.BatchNorm1d) != signal.flat:
        raise _OpenError
    region.norms.append(module)
    values = signal.values.expand(-1, positions)
    mean, variance, weight, bias = (
        None if tensor is None else tensor.double()
        for tensor in (module.running_mean, module.running_var, module.weight, module.bias)
    )
    return F.batch_norm(values.reshape(1, -1), mean, variance, weight, bias, eps=module.eps).view_as(values)


def _activated(node: fx.Node, module: nn.Module | None, signal: _Signal) -> Tensor:
    in_place = getattr(module, "inplace", False) or node.kwargs.get("inplace") or True in node.args[1:]
    if (in_place or str(node.target).endswith("_")) and not signal.single_reader:
        raise _OpenError
    values = signal.values.clone()
    if module is not None:
        result = module(values)
    elif node.op == "call_method":
        result = getattr(values, str(node.target))(*node.args[1:], **node.kwargs)
    else:
        assert callable(node.target)
        result = node.target(values, *node.args[1:], **node.kwargs)
    assert isinstance(result, Tensor)
    return result


def _keeps_constants(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether pooling a constant gives the constant at the border too: a mean may count padding."""
    if isinstance(module, nn.AvgPool2d):
        padding = module.padding if isinstance(module.padding, tuple) else (module.padding,)
        return module.divisor_override is None and not (module.count_include_pad and any(padding))
    plain = len(node.args) <= 3 and not {"padding", "divisor_override"} & {*node.kwargs}
    return node.target is not F.avg_pool2d or plain


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _flattens(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether this is flatten(1), in any spelling, or view(batch size, -1)."""
    if module is not None:
        return isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1)
    if node.target in ("flatten", torch.flatten):
        return (_argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1)) == (1, -1)
    if node.target not in ("view", "reshape", torch.reshape) or len(node.args) < 2:
        return False
    sizes = node.args[1] if isinstance(node.args[1], (tuple, list)) else node.args[1:]
    first, *rest = sizes
    return rest == [-1] and isinstance(first, fx.Node) and _is_batch_size(first)


def _is_batch_size(node: fx.Node) -> bool:
    if node.op == "call_method" and node.target == "size" and node.args[1:] == (0,):
        return True
    whole = node.args[0] if node.target is operator.getitem and node.args[1] == 0 else None
    return isinstance(whole, fx.Node) and _is_shape(whole)


def _is_shape(node: fx.Node) -> bool:
    whole = node.op == "call_method" and node.target == "size" and len(node.args) == 1
    return whole or (node.target is getattr and node.args[1] == "shape")


def _reads_batch_size(node: fx.Node) -> bool:
    return _is_batch_size(node) or (_is_shape(node) and all(_is_batch_size(user) for user in node.users))
