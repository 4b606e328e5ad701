"""The rule that turns a sparse pattern into the widths of a compact network, and networks as narrow all over."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.settings import Setting

VGG16 = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512)
OWN = {"lenet-300-100": (300, 100), "lenet-5-caffe": (20, 50, 500), "vgg16": VGG16}
STEPS = 2000  # of the factor of an even network


def suggested(own: Sequence[int], remaining: Sequence[float]) -> tuple[int, ...]:
    """Each hidden layer keeps the share of its units that is its weights' remaining ratio, at least one.

    own: widths of the hidden layers. remaining: ratios of every layer, the output's last, whose units
    are the classes and stay. Raises ValueError where the lengths do not fit.
    """
    if len(remaining) != len(own) + 1:
        raise ValueError(f"{len(remaining)} ratios for {len(own)} hidden layers: it must be one more")
    return tuple(max(1, round(ratio * width)) for width, ratio in zip(own, remaining, strict=False))


def weights_of(own: Sequence[int], widths: Sequence[int], weights: Sequence[int]) -> int:
    """Weights of the network with other widths; `weights` are those of each of its layers at `own`."""
    ratios = [1.0, *(new / old for old, new in zip(own, widths, strict=True)), 1.0]
    return sum(round(count * ratios[i] * ratios[i + 1]) for i, count in enumerate(weights))


def even(own: Sequence[int], weights: Sequence[int], wanted: int) -> tuple[int, ...]:
    """All hidden layers times one factor, so that the network's weights come nearest to `wanted`, on a log scale."""
    ladder = dict.fromkeys(tuple(max(1, round(step / STEPS * width)) for width in own) for step in range(1, STEPS + 1))
    return min(ladder, key=lambda widths: abs(math.log(weights_of(own, widths, weights) / wanted)))


def architecture(setting: Setting) -> str:
    """The model's name without its widths."""
    return str(setting.spec["model"]["name"])


def widths_of(setting: Setting) -> tuple[int, ...] | None:
    found = setting.spec["model"].get("widths")
    return None if found is None else tuple(found)
