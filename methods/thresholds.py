"""Trainable pruning thresholds: the effective weight is W times a step of |W| minus a threshold.

Source of every equation: Liu et al., "Dynamic Sparse Training", ICLR 2020, arXiv:2005.06870.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from methods.layers import MaskableWeight, reparametrize


def long_tailed(x: Tensor) -> Tensor:
    """H(x), eq. 3: 2 - 4|x| up to |x| = 0.4, then 0.4 up to |x| = 1, then 0. Shape of x."""
    distance = x.abs()
    return (2 - 4 * distance).clamp_(min=0.4).mul_(distance <= 1)


def straight_through(x: Tensor) -> Tensor:
    """Figure 2c: 1 for |x| <= 1, else 0. Shape of x."""
    return (x.abs() <= 1).to(x.dtype)


ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "long_tailed": long_tailed,
    "straight_through": straight_through,
}
SHAPES = ("vector", "scalar", "matrix")


def threshold_shape(shape: str, weight: Tensor) -> tuple[int, ...]:
    """Shape of the thresholds of one weight: [c_out], [] or the weight's own (section 3.2, A.2)."""
    return {"vector": tuple(weight.shape[:1]), "scalar": (), "matrix": tuple(weight.shape)}[shape]


def aligned(threshold: Tensor, weight: Tensor) -> Tensor:
    """The thresholds, viewed so that they broadcast against the weight."""
    if threshold.dim() == 1 and weight.dim() > 1:
        return threshold.view(-1, *[1] * (weight.dim() - 1))
    return threshold


def keep_mask(weight: Tensor, threshold: Tensor) -> Tensor:
    """M = S(|W| - t), eq. 1 and 2: true where |W| > t. Bool, shape of the weight."""
    return weight.abs() > aligned(threshold, weight)


class MaskedWeight(torch.autograd.Function):
    """P = W * M forward, the gradients of appendix A.3 backward.

    With Q = |W| - t and the estimator H: dW = dP * M + dP * W * H(Q) * sgn(W), and
    dt = -sum of dP * W * H(Q) over the entries that share the threshold.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, threshold: Tensor, estimator: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(weight, threshold)
        ctx.estimator = estimator
        return weight * keep_mask(weight, threshold)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (d_product,) = gradients
        weight, threshold = ctx.saved_tensors
        distance = weight.abs() - aligned(threshold, weight)
        structure = (d_product * weight).mul_(ctx.estimator(distance))
        d_threshold = -structure.sum_to_size(aligned(threshold, weight).shape).view_as(threshold)
        d_weight = (d_product * (distance > 0)).add_(structure.mul_(weight.sign()))
        return d_weight, d_threshold, None


class Effective:
    """The masked weight for one estimator, as a picklable function of weight and threshold."""

    def __init__(self, estimator: str) -> None:
        self.estimator = estimator

    def __call__(self, weight: Tensor, threshold: Tensor) -> Tensor:
        masked: Tensor = MaskedWeight.apply(weight, threshold, ESTIMATORS[self.estimator])  # type: ignore[no-untyped-call]
        return masked


class Thresholds:
    """The trainable thresholds of a model's weights, and what they prune."""

    def __init__(self, weights: Mapping[str, MaskableWeight]) -> None:
        self._weights = weights
        self._parameters: dict[str, torch.nn.Parameter] = {}
        self._structure: dict[str, str] = {}
        self._kept: dict[str, Tensor] = {}
        self.resets = torch.zeros((), dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._parameters)

    def __contains__(self, name: str) -> bool:
        return name in self._parameters

    def attach(self, *, shape: str, estimator: str) -> None:
        """Give every maskable weight thresholds at 0: the network starts dense (A.1)."""
        self._structure = {"shape": shape, "estimator": estimator}
        for name, weight in self._weights.items():
            zeros = torch.zeros(
                threshold_shape(shape, weight.parameter), dtype=weight.parameter.dtype, device=weight.parameter.device
            )
            self._parameters[name] = reparametrize(weight, Effective(estimator), zeros)
            self._kept[name] = self.mask(name).sum()
            self.resets = self.resets.to(zeros.device)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The thresholds by the name of the weight that they prune."""
        return dict(self._parameters)

    def mask(self, name: str) -> Tensor:
        with torch.no_grad():
            return keep_mask(self._weights[name].parameter, self._parameters[name])

    def regularization(self) -> Tensor:
        """L_s, eq. 4: the sum of exp(-t) over all thresholds. 0-dim."""
        return torch.cat([threshold.flatten() for threshold in self._parameters.values()]).neg().exp().sum()

    @torch.no_grad()
    def update_(self, *, reset_below: float | None) -> None:
        """Count what is kept; return to 0 the thresholds of a layer that keeps less (A.1).

        Recurrent layers are counted and never reset. Decided on the device: no synchronisation.
        """
        for name, threshold in self._parameters.items():
            weight = self._weights[name]
            kept = self.mask(name).sum()
            if reset_below is not None and not weight.recurrent:
                size = weight.parameter.numel()
                emptied = kept < reset_below * size
                threshold.masked_fill_(emptied, 0)
                kept = torch.where(emptied, size, kept)
                self.resets += emptied
            self._kept[name] = kept

    def kept_count(self, name: str) -> Tensor:
        """Kept weights as `update_` last counted them: 0-dim int64 on the device."""
        return self._kept[name]

    def state_dict(self) -> dict[str, Any]:
        return {"structure": dict(self._structure), "kept": dict(self._kept), "resets": self.resets.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the structure; the thresholds' values come with the model's own state."""
        if state["structure"] and not self._parameters:
            self.attach(**state["structure"])
        if state["structure"] != self._structure:
            raise ValueError(f"the saved thresholds are {state['structure']}, the attached ones {self._structure}")
        device = self.resets.device
        self._kept = {name: kept.to(device) for name, kept in state["kept"].items()}
        self.resets = state["resets"].to(device, copy=True)
