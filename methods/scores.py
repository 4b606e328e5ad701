"""Pure functions that score weights: a weight with a larger score is more worth keeping."""

from __future__ import annotations

import torch
from torch import Tensor


def magnitude(weight: Tensor) -> Tensor:
    """|W|, shape of the weight."""
    return weight.detach().abs()


def random(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform scores in [0, 1): float32, shape and device of `like`.

    They are drawn on the CPU and so are the same on any device.
    """
    return torch.rand(like.shape, generator=generator, dtype=torch.float64, device="cpu").to(like.device, torch.float32)


def momentum(optimizer: torch.optim.Optimizer, parameter: Tensor) -> Tensor:
    """The optimizer's momentum of a parameter, in its shape.

    This is SGD's buffer, or Adam's m / (sqrt(v) + 1e-8). Raises ValueError for an optimizer without
    momentum.
    """
    state = optimizer.state.get(parameter, {})
    if "exp_avg" in state:
        scaled: Tensor = state["exp_avg"] / (state["exp_avg_sq"].sqrt() + 1e-8)
        return scaled
    if state.get("momentum_buffer") is None:
        raise ValueError("the optimizer has no momentum: use SGD with momentum above 0, or Adam")
    buffer: Tensor = state["momentum_buffer"]
    return buffer


def top(score: Tensor, count: int, *, among: Tensor | None = None) -> Tensor:
    """Mask of exactly `count` entries of the highest score; ties go to the earlier entry.

    among: bool mask of the entries that may be chosen. NaN counts as the highest score. Takes time
    proportional to the number of entries. Raises ValueError where too few may be chosen.
    """
    flat = score.flatten()
    allowed = torch.ones_like(flat, dtype=torch.bool) if among is None else among.flatten()
    room = int(torch.count_nonzero(allowed))
    if count > room:
        raise ValueError(f"cannot choose {count} of {room} entries")
    if count == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    lowest = (flat if among is None else flat[allowed]).kthvalue(room - count + 1).values
    mask, tied = _compare(flat, lowest)
    mask &= allowed
    tied &= allowed
    mask[tied.nonzero()[: count - int(torch.count_nonzero(mask))]] = True
    return mask.view(score.shape)


def _compare(values: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """Masks of the values above the limit and of those equal to it, NaN the highest of all."""
    is_nan = values.isnan()
    if limit.isnan():
        return torch.zeros_like(is_nan), is_nan
    return (values > limit) | is_nan, values == limit
