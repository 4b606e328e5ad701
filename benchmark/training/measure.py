"""Accuracy, density, parameters and FLOPs of a network, measured by code that belongs to no method.

Everything is measured on a plain copy of the network with its zeros baked in (`plain_copy`), so
that measuring does not disturb the training.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils.rnn import PackedSequence

import methods
from benchmark import models
from benchmark.data.tensors import Dataset
from methods.layers import MaskableWeight, maskable_weights
from methods.thresholds import aligned

EVALUATION_BATCH = 1000


def plain_copy(model: nn.Module) -> nn.Module:
    """A finalized copy in evaluation mode; the model stays as it is."""
    return methods.finalize(copy.deepcopy(model)).eval()


@dataclass(frozen=True)
class Accuracy:
    """Percentages and the mean cross-entropy over the test examples."""

    top1_percent: float
    top5_percent: float
    loss: float


@torch.no_grad()
def accuracy(plain: nn.Module, data: Dataset, *, batch_size: int = EVALUATION_BATCH) -> Accuracy:
    """One pass over the test split; waits for the device once, at the end."""
    totals = torch.zeros(3, dtype=torch.float64, device=data.device)
    models.start_epoch(plain)
    for inputs, labels in data.test_batches(batch_size):
        logits = plain(inputs)
        ranked = logits.topk(min(5, data.classes), dim=1).indices == labels[:, None]
        loss = F.cross_entropy(logits, labels, reduction="sum")
        totals += torch.stack([ranked[:, 0].sum(), ranked.sum(), loss]).to(totals.dtype)
    top1, top5, loss_sum = totals.tolist()
    count = data.test_size
    return Accuracy(100 * top1 / count, 100 * top5 / count, loss_sum / count)


@dataclass(frozen=True)
class Kept:
    """Kept weights and all weights of each maskable weight, and how many values are not 0."""

    kept: dict[str, int]
    weights: dict[str, int]
    nonzero: int

    @property
    def density(self) -> float:
        return sum(self.kept.values()) / sum(self.weights.values())

    @property
    def nonzero_density(self) -> float:
        return self.nonzero / sum(self.weights.values())


def kept(masks: Mapping[str, Tensor], plain: nn.Module) -> Kept:
    """Counts from the masks, and from the weights of the plain copy."""
    values = dict(plain.named_parameters())
    return Kept(
        kept={name: int(mask.sum()) for name, mask in masks.items()},
        weights={name: mask.numel() for name, mask in masks.items()},
        nonzero=sum(int(values[name].count_nonzero()) for name in masks),
    )


def density_as_authors_count(masks: Mapping[str, Tensor], plain: nn.Module) -> float:
    """The density, with the LSTM's output gate counted as the authors' code does.

    Their cell adds up the gate's kept *weights*, with their signs, instead of its mask
    (mnist_lstm/model/lstmcell.py). torch orders the gates i, f, g, o along the first axis. Equal to
    the density for every other layer.
    """
    total = 0.0
    for name, mask in masks.items():
        module_name, _, _ = name.rpartition(".")
        counted = mask.double()
        if isinstance(plain.get_submodule(module_name), (nn.LSTM, nn.LSTMCell)):
            output_gate = slice(3 * len(mask) // 4, None)
            weight = plain.get_parameter(name).detach().double()
            counted[output_gate] *= weight[output_gate]
        total += float(counted.sum())
    return total / sum(mask.numel() for mask in masks.values())


@torch.no_grad()
def ranges(weights: Mapping[str, Tensor], thresholds: Mapping[str, Tensor]) -> dict[str, float | None]:
    """Ranges of the weights, the thresholds and Q = |W| - t, over all layers that have them.

    weights: as the optimizer has them, before masks. thresholds: by the name of their weight. What
    a method without thresholds lacks is None.
    """
    found: dict[str, float | None] = dict.fromkeys(
        ("threshold_min", "threshold_max", "threshold_share_in_0_1", "q_min", "q_max")
    )
    found["weight_max"] = max(float(weight.abs().max()) for weight in weights.values())
    if thresholds:
        joined = torch.cat([threshold.flatten() for threshold in thresholds.values()])
        scores = [weights[name].abs() - aligned(threshold, weights[name]) for name, threshold in thresholds.items()]
        found |= {
            "threshold_min": float(joined.min()),
            "threshold_max": float(joined.max()),
            "threshold_share_in_0_1": float(((joined >= 0) & (joined <= 1)).double().mean()),
            "q_min": min(float(score.min()) for score in scores),
            "q_max": max(float(score.max()) for score in scores),
        }
    return found


def parameters_remaining(plain: nn.Module, measured: Kept) -> int:
    """All parameters of the network except the maskable weights that the masks drop."""
    everything = sum(parameter.numel() for parameter in plain.parameters())
    return everything - sum(measured.weights.values()) + sum(measured.kept.values())


def forward_flops(plain: nn.Module, in_shape: tuple[int, ...]) -> dict[str, int]:
    """Dense FLOPs of one example's forward pass by weight: 2 for each multiply-add.

    Counts only the products of maskable layers: no biases, normalisation, activations or gates.
    """
    weights = maskable_weights(plain)
    by_module: dict[nn.Module, list[MaskableWeight]] = {}
    for weight in weights.values():
        by_module.setdefault(weight.module, []).append(weight)
    flops = dict.fromkeys(weights, 0)

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        inputs = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        holders = [module]
        if isinstance(module, nn.MultiheadAttention):
            holders.append(module.out_proj)  # which is never called
        for holder in holders:
            for weight in by_module.get(holder, ()):
                flops[weight.name] += round(2 * weight.parameter.numel() * _uses(weight, module, inputs, output))

    called = [module for module in plain.modules() if module in by_module or isinstance(module, nn.MultiheadAttention)]
    handles = [module.register_forward_hook(count, with_kwargs=True) for module in called]
    try:
        with torch.no_grad():
            plain(next(plain.parameters()).new_zeros(1, *in_shape))
    finally:
        for handle in handles:
            handle.remove()
    return flops


def _uses(weight: MaskableWeight, module: nn.Module, inputs: Mapping[str, Any], output: Any) -> float:
    """How often each weight was used in one call: positions of a convolution, time steps, tokens.

    module: the one that was called, with these inputs by name; a subclass may name them otherwise. In
    every other kind of layer, an output unit is computed once at each position of the output.
    """
    first = next(iter(inputs.values()))
    if isinstance(module, nn.MultiheadAttention):
        asked = inputs.get("query", first)
        keys = inputs.get("key", asked)
        query, key, value = (x[..., 0].numel() for x in (asked, keys, inputs.get("value", keys)))
        uses = {"k_proj_weight": key, "v_proj_weight": value, "in_proj_weight": (query + key + value) / 3}
        return float(uses.get(weight.parameter_name, query))
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return float((first.data if isinstance(first, PackedSequence) else first)[..., 0].numel())
    if isinstance(module, _ConvTransposeNd):  # each weight is used at every position of the input
        return float(first.numel() / module.in_channels)
    outputs = output if isinstance(output, Tensor) else output[0]
    return outputs.numel() / (weight.parameter.shape[weight.units.axis] * weight.units.groups)
