"""Pure functions that score weights: a weight with a larger score is more worth keeping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from methods.checks.bound_optimizer import innermost


def magnitude(weight: Tensor) -> Tensor:
    """|W|, shape of the weight."""
    return weight.detach().abs()


def random(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform scores in [0, 1): float32, shape and device of `like`.

    They are drawn on the CPU and so are the same on any device. For float64, a generator of their own
    draws them: layers that torch.manual_seed initialised with the same seed have the same uniform numbers.
    """
    if like.dtype == torch.float64:
        own_seed = int(torch.randint(2**62, (), generator=generator, device="cpu"))
        generator = torch.Generator("cpu").manual_seed(own_seed)
    return torch.rand(like.shape, generator=generator, dtype=torch.float64, device="cpu").to(like.device, torch.float32)


def momentum(optimizer: torch.optim.Optimizer, parameter: Tensor) -> Tensor:
    """The optimizer's momentum of a parameter, in its shape.

    This is the momentum buffer of SGD, RMSprop or Muon, m / (sqrt(v) + 1e-8) of Adam and its
    relatives, m / (u + 1e-8) of Adamax and m of Lion. Raises ValueError for an optimizer without
    momentum, and for a parameter that it has not updated yet.
    """
    state = _inner(optimizer).state.get(parameter, {})
    if not state:
        raise ValueError("the optimizer has no momentum of this parameter yet: it had no gradient so far")
    moment = state.get("exp_avg", state.get("momentum_buffer"))
    if moment is None:
        raise ValueError(f"{_no_momentum(_inner(optimizer))} (its state holds {', '.join(state)})")
    if "exp_avg_sq" in state:
        moment = moment / (state["exp_avg_sq"].sqrt() + 1e-8)
    elif "exp_inf" in state:
        moment = moment / (state["exp_inf"] + 1e-8)
    return cast(Tensor, moment)


def has_momentum(optimizer: torch.optim.Optimizer, parameter: Tensor) -> bool:
    """False for a parameter that is frozen or had no gradient so far: nothing is known of it."""
    return parameter.requires_grad and bool(_inner(optimizer).state.get(parameter))


def check_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError where the optimizer's options show that it will have no momentum.

    An optimizer of another library that has the options of one with momentum, and keeps none, is
    found by `momentum`, after its first step.
    """
    inner = _inner(optimizer)
    for one in (optimizer, inner):
        if "ScheduleFree" in type(one).__name__:  # it has betas, and keeps an average of weights
            raise ValueError(_no_momentum(one))
    if not any(map(_decays_gradients, inner.param_groups)):
        raise ValueError(_no_momentum(inner))


def _decays_gradients(group: Mapping[str, Any]) -> bool:
    return "betas" in group or any(group.get(key) for key in ("momentum", "beta1", "beta"))


def _no_momentum(optimizer: torch.optim.Optimizer) -> str:
    options = " with momentum 0" if optimizer.param_groups[0].get("momentum") == 0 else ""
    return (
        f"{type(optimizer).__name__}{options} has no momentum: use SGD or RMSprop with momentum above 0, "
        "Adam, AdamW, NAdam, RAdam, Adamax or Lion"
    )


def _inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer inside its wrappers, such as accelerate's: the one that has the momentum."""
    return innermost(optimizer) or optimizer


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


def top_of_all(
    scores: Mapping[str, Tensor], count: int, *, among: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Masks of exactly `count` entries of the highest score over all layers; `top` has the rules."""
    names, device = list(scores), next(iter(scores.values())).device  # a model may lie on several
    joined = torch.cat([scores[name].flatten().to(device) for name in names])
    allowed = None if among is None else torch.cat([among[name].flatten().to(device) for name in names])
    parts = torch.split(top(joined, count, among=allowed), [scores[name].numel() for name in names])
    return {n: part.view(scores[n].shape).to(scores[n].device) for n, part in zip(names, parts, strict=True)}


def _compare(values: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """Masks of the values above the limit and of those equal to it, NaN the highest of all."""
    is_nan = values.isnan()
    if limit.isnan():
        return torch.zeros_like(is_nan), is_nan
    return (values > limit) | is_nan, values == limit
