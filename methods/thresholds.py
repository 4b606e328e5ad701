"""Trainable pruning thresholds: the paper's equations in plain PyTorch, and nothing else.

Liu, Xu, Shi, Cheung, So, "Dynamic Sparse Training", ICLR 2020, arXiv:2005.06870. W is a weight
[c_out, ...]; t are its thresholds: [c_out], [] or of the weight's shape. `methods.kernels` computes
with these functions, or with faster code for the same results; `methods.masked_layers` holds the
thresholds of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SHAPES = ("vector", "scalar", "matrix")
RESET_RULES = ("layer", "recurrent_too", "once", "empty_units")


def threshold_shape(shape: str, weight: Tensor) -> tuple[int, ...]:
    """Shape of the thresholds of one weight: [c_out], [] or the weight's own (section 3.2, A.2)."""
    return {"vector": tuple(weight.shape[:1]), "scalar": (), "matrix": tuple(weight.shape)}[shape]


def check_reset_rule(rule: str, shape: str) -> None:
    """Raises ValueError unless there is such a rule for thresholds of this shape."""
    if rule not in RESET_RULES:
        raise ValueError(f"reset_rule is '{rule}'; valid: {', '.join(RESET_RULES)}")
    if rule == "empty_units" and shape != "vector":
        raise ValueError(f"reset_rule 'empty_units' needs vector thresholds, one for each unit: threshold is '{shape}'")


def aligned(threshold: Tensor, weight: Tensor) -> Tensor:
    """The thresholds, viewed so that they broadcast against the weight."""
    if threshold.dim() == 1 and weight.dim() > 1:
        return threshold.view(-1, *[1] * (weight.dim() - 1))
    return threshold


def keep_mask(weight: Tensor, threshold: Tensor) -> Tensor:
    """M = S(|W| - t), eq. 1 and 2: true where |W| > t. Bool, shape of the weight."""
    return weight.abs() > aligned(threshold, weight)


def keep_count(weight: Tensor, threshold: Tensor) -> Tensor:
    """The number of kept weights: 0-dim int64."""
    return keep_mask(weight, threshold).sum()


def product(weight: Tensor, threshold: Tensor) -> Tensor:
    """P = W * M, the weight that the layer computes with. Shape of the weight."""
    return weight * keep_mask(weight, threshold)


def long_tailed(x: Tensor) -> Tensor:
    """H(x), eq. 3: 2 - 4|x| up to |x| = 0.4, then 0.4 up to |x| = 1, then 0. Shape of x."""
    distance = x.abs()
    return (2 - 4 * distance).clamp_(min=0.4).mul_(distance <= 1)


def straight_through(x: Tensor) -> Tensor:
    """Figure 2c: 1 for |x| <= 1, else 0. Shape of x."""
    return (x.abs() <= 1).to(x.dtype)


Estimator = Callable[[Tensor], Tensor]
ESTIMATORS: dict[str, Estimator] = {"long_tailed": long_tailed, "straight_through": straight_through}


def long_tailed_integral(x: Tensor) -> Tensor:
    """The integral of `long_tailed` from 0 to x. Shape of x."""
    middle = x.clamp(-0.4, 0.4)
    return 0.4 * x.clamp(-1, 1) + middle * (1.6 - 2 * middle.abs())


def straight_through_integral(x: Tensor) -> Tensor:
    """The integral of `straight_through` from 0 to x. Shape of x."""
    return x.clamp(-1, 1)


INTEGRALS: dict[Estimator, Estimator] = {long_tailed: long_tailed_integral, straight_through: straight_through_integral}


def estimated_step(x: Tensor, estimator: Estimator) -> Tensor:
    """S(x) for torch to differentiate: 1 where x > 0, else 0, and dS/dx is the estimator.

    Derivatives of every order are those of the estimator's integral. Shape of x.
    """
    smooth = INTEGRALS[estimator](x)
    return (x > 0) + (smooth - smooth.detach())


def differentiable_product(weight: Tensor, threshold: Tensor, estimator: Estimator) -> Tensor:
    """`product` for torch to differentiate, in reverse or forward mode: W * S(|W| - t).

    Its first derivatives are `gradients`. Shape of the weight.
    """
    return weight * estimated_step(weight.abs() - aligned(threshold, weight), estimator)


def gradients(d_product: Tensor, weight: Tensor, threshold: Tensor, estimator: Estimator) -> tuple[Tensor, Tensor]:
    """dW and dt from dP, appendix A.3; shapes of the weight and of the threshold.

    With Q = |W| - t and the estimator H: dW = dP * M + dP * W * H(Q) * sgn(W), and
    dt = -sum of dP * W * H(Q) over the entries that share the threshold. Where torch records what
    is computed, for a second derivative, the derivative of M is the estimator here too.
    """
    distance = weight.abs() - aligned(threshold, weight)
    structure = d_product * weight * estimator(distance)
    d_threshold = -structure.sum_to_size(aligned(threshold, weight).shape).view_as(threshold)
    kept = estimated_step(distance, estimator) if torch.is_grad_enabled() else distance > 0
    return d_product * kept + structure * weight.sign(), d_threshold


def regularization(thresholds: Sequence[Tensor]) -> Tensor:
    """L_s, eq. 4: the sum of exp(-t) over the thresholds of all layers. 0-dim."""
    return torch.cat([threshold.flatten() for threshold in thresholds]).neg().exp().sum()


@dataclass(frozen=True)
class ResetRule:
    """A.1: the thresholds of a layer that keeps fewer weights than its limit return to 0.

    limits: float32 [layers]; -1 for a layer that is never reset. sizes: int64 [layers], the number
    of weights. Both lie on the device of the counts. reset_to: the value that thresholds return to,
    0 or less.
    """

    limits: Tensor
    sizes: Tensor
    reset_to: float = 0.0

    @classmethod
    def below(
        cls,
        share: float,
        sizes: Sequence[int],
        *,
        resettable: Sequence[bool],
        device: torch.device,
        reset_to: float = 0.0,
    ) -> ResetRule:
        """Reset the resettable layers that keep less than this share of their weights."""
        limits = [share * size if may_reset else -1 for size, may_reset in zip(sizes, resettable, strict=True)]
        on_device = torch.tensor(limits, dtype=torch.float32, device=device)
        return cls(on_device, torch.tensor(sizes, device=device), reset_to)

    def apply_(self, kept: Tensor, thresholds: Sequence[Tensor], resets: Tensor) -> Tensor:
        """Reset the thresholds of layers below their limit and add their number to `resets`.

        kept: int64 [layers]. Returns what is kept now, of the same shape: a layer that was reset
        counts as keeping all its weights. Does not wait for the device.
        """
        empty = kept < self.limits
        for threshold, is_empty in zip(thresholds, empty.unbind(), strict=True):
            threshold.masked_fill_(is_empty, self.reset_to)
        resets += empty.sum()
        return torch.where(empty, self.sizes, kept)

    def apply_once_(self, kept: Tensor, thresholds: Sequence[Tensor], resets: Tensor, was_reset: Tensor) -> Tensor:
        """`apply_` to the layers that were not reset before; marks those that are reset now.

        was_reset: bool [layers], on the device of the counts.
        """
        rule = replace(self, limits=self.limits.masked_fill(was_reset, -1))
        was_reset |= kept < rule.limits
        return rule.apply_(kept, thresholds, resets)

    def apply_to_empty_units_(
        self, kept: Tensor, weights: Sequence[Tensor], thresholds: Sequence[Tensor], resets: Tensor
    ) -> Tensor:
        """In layers below their limit, reset the thresholds of the units that keep no weight.

        weights: each [c_out, ...], thresholds: each [c_out]. Adds to `resets` the number of layers
        with such a unit. Returns what is kept now: int64 [layers].
        """
        below = kept < self.limits
        for weight, threshold, is_below in zip(weights, thresholds, below.unbind(), strict=True):
            empty = is_below & ~keep_mask(weight, threshold).reshape(len(weight), -1).any(dim=1)
            threshold.masked_fill_(empty, self.reset_to)
            resets += empty.any()
        return torch.stack([keep_count(w, t) for w, t in zip(weights, thresholds, strict=True)])
