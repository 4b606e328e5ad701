"""Trainable pruning thresholds: the effective weight is W times a step of |W| minus a threshold.

Source of every equation: Liu et al., "Dynamic Sparse Training", ICLR 2020, arXiv:2005.06870.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from methods import kernels
from methods.layers import EffectiveWeight, MaskableWeight, reparametrize


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
NUMBERS = {name: number for number, name in enumerate(ESTIMATORS)}  # what the C++ operators call them
UNCOUNTED = -1  # what the C++ operators read in place of a number of kept weights
SHAPES = ("vector", "scalar", "matrix")


def threshold_shape(shape: str, weight: Tensor) -> tuple[int, ...]:
    """Shape of the thresholds of one weight: [c_out], [] or the weight's own (section 3.2, A.2)."""
    return {"vector": tuple(weight.shape[:1]), "scalar": (), "matrix": tuple(weight.shape)}[shape]


def aligned(threshold: Tensor, weight: Tensor) -> Tensor:
    """The thresholds, viewed so that they broadcast against the weight."""
    if threshold.dim() == 1 and weight.dim() > 1:
        return threshold.view(-1, *[1] * (weight.dim() - 1))
    return threshold


def as_rows(weight: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Both in two dimensions, [c_out, -1] and what broadcasts against it: layers of every kind share compilations."""
    rows = len(weight)
    shape = (rows, -1) if threshold.shape == weight.shape else (-1, 1)
    return weight.reshape(rows, -1), threshold.reshape(shape)


def keep_mask(weight: Tensor, threshold: Tensor) -> Tensor:
    """M = S(|W| - t), eq. 1 and 2: true where |W| > t. Bool, shape of the weight."""
    return weight.abs() > aligned(threshold, weight)


def keep_count(weight: Tensor, threshold: Tensor) -> Tensor:
    """Kept weights: 0-dim int64."""
    return keep_mask(weight, threshold).sum()


def product(weight: Tensor, threshold: Tensor) -> Tensor:
    """P = W * M, the weight that the layer computes with. Shape of the weight."""
    return weight * keep_mask(weight, threshold)


def gradients(
    d_product: Tensor, weight: Tensor, threshold: Tensor, estimator: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """dW and dt from dP, appendix A.3; shapes of the weight and of the threshold.

    With Q = |W| - t and the estimator H: dW = dP * M + dP * W * H(Q) * sgn(W), and
    dt = -sum of dP * W * H(Q) over the entries that share the threshold.
    """
    distance = weight.abs() - aligned(threshold, weight)
    structure = d_product * weight * estimator(distance)
    d_threshold = -structure.sum_to_size(aligned(threshold, weight).shape).view_as(threshold)
    return d_product * (distance > 0) + structure * weight.sign(), d_threshold


def _count(weight: Tensor, threshold: Tensor) -> Tensor:
    count = kernels.compiled(keep_count) if kernels.is_compiled(weight) else keep_count
    kept: Tensor = count(weight, threshold)
    return kept


@torch.no_grad()
def _counts_now(weights: Sequence[Tensor], thresholds: Sequence[Tensor]) -> Tensor:
    """Kept weights of each: int64 [weights]."""
    return torch.stack([_count(*as_rows(w, t)) for w, t in zip(weights, thresholds, strict=True)])


class MaskedWeight(torch.autograd.Function):
    """`product` forward, `gradients` backward, by plain torch operations or these compiled."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, threshold: Tensor, estimator: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(weight, threshold)
        ctx.estimator = estimator
        if not kernels.is_compiled(weight):
            return product(weight, threshold)
        masked: Tensor = kernels.compiled(product)(*as_rows(weight, threshold))
        return masked.view(weight.shape)

    @staticmethod
    def backward(ctx: Any, *d_products: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, threshold = ctx.saved_tensors
        if not kernels.is_compiled(weight):
            return (*gradients(d_products[0], weight, threshold, ctx.estimator), None)
        rows = as_rows(weight, threshold)
        found = kernels.compiled(gradients)(d_products[0].reshape(rows[0].shape), *rows, ctx.estimator)
        return found[0].view(weight.shape), found[1].view(threshold.shape), None


class Effective(EffectiveWeight):
    """The masked weight for one estimator, and the linear layer that computes with it.

    kept: where the C++ operators write how many weights are kept: the layer's column of `Counts` in masked_weight.h,
    int64 [3].
    """

    kept: Tensor | None = None  # of models that were pickled without it

    def __init__(self, estimator: str, kept: Tensor | None = None) -> None:
        self.estimator, self.kept = estimator, kept

    def __call__(self, weight: Tensor, threshold: Tensor) -> Tensor:
        masked: Tensor
        if kernels.is_fused(weight):
            number = NUMBERS[self.estimator]
            masked = torch.ops.sparse_training.masked_weight.default(weight, threshold, number, self.kept)
        else:
            masked = MaskedWeight.apply(weight, threshold, ESTIMATORS[self.estimator])  # type: ignore[no-untyped-call]
        return masked

    def linear(self, inputs: Tensor, weight: Tensor, threshold: Tensor, bias: Tensor | None) -> Tensor:
        """What a linear layer computes with it, [..., c_out]; fused, by blocks where that serves (decision 14)."""
        if type(inputs) is not Tensor or inputs.is_nested or not kernels.is_fused(weight):
            return super().linear(inputs, weight, threshold, bias)
        number = NUMBERS[self.estimator]
        linear = torch.ops.sparse_training.masked_linear.default
        outputs: Tensor = linear(inputs, weight, threshold, bias, number, self.kept)
        return outputs


class Thresholds:
    """The trainable thresholds of a model's weights, and what they prune."""

    def __init__(self, weights: Mapping[str, MaskableWeight]) -> None:
        self._weights = weights
        self._parameters: dict[str, torch.nn.Parameter] = {}
        self._structure: dict[str, str] = {}
        self._resettable: list[bool] = []
        self._limits: dict[float, tuple[Tensor, Tensor]] = {}
        self._kept: Tensor | None = torch.zeros(0, dtype=torch.int64)
        self._counts = torch.zeros(3, 0, dtype=torch.int64)  # `Counts` of masked_weight.h
        self.resets = torch.zeros((), dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._parameters)

    def __contains__(self, name: str) -> bool:
        return name in self._parameters

    def attach(self, *, shape: str, estimator: str) -> None:
        """Give every maskable weight thresholds at 0: the network starts dense (A.1)."""
        self._structure = {"shape": shape, "estimator": estimator}
        counts = torch.full((3, len(self._weights)), UNCOUNTED, device="cpu")
        for (name, weight), kept in zip(self._weights.items(), counts.unbind(1), strict=True):
            zeros = torch.zeros(
                threshold_shape(shape, weight.parameter), dtype=weight.parameter.dtype, device=weight.parameter.device
            )
            self._parameters[name] = reparametrize(weight, Effective(estimator, kept), zeros)
            self.resets = self.resets.to(zeros.device)
        self._counts = counts
        self._resettable = [not self._weights[name].recurrent for name in self._parameters]
        self._kept = torch.stack([self.mask(name).sum() for name in self._parameters])

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The thresholds by the name of the weight that they prune."""
        return dict(self._parameters)

    def mask(self, name: str) -> Tensor:
        with torch.no_grad():
            return keep_mask(self._weights[name].parameter, self._parameters[name])

    def regularization(self, scale: float = 1.0) -> Tensor:
        """scale times L_s, eq. 4: the sum of exp(-t) over all thresholds. 0-dim."""
        thresholds = list(self._parameters.values())
        if not kernels.are_fused(thresholds):
            return scale * torch.cat([threshold.flatten() for threshold in thresholds]).neg().exp().sum()
        total: Tensor = torch.ops.sparse_training.regularization.default(thresholds, scale)
        return total

    def update_(self, *, reset_below: float | None) -> None:
        """Return to 0 the thresholds of a layer that keeps less (A.1), and count what is kept.

        Recurrent layers are counted and never reset. Decided on the device: no synchronisation. The C++ operators
        leave the counting to the next forward pass, which reads the weights anyway, or to `kept_counts`.
        """
        weights, thresholds = self._pairs()
        if kernels.are_fused(weights):
            resettable = self._resettable if reset_below is not None else [False] * len(weights)
            update = torch.ops.sparse_training.update_thresholds.default
            update(weights, thresholds, resettable, reset_below or 0, self.resets, self._counts)
            self._kept = None
            return
        with torch.no_grad():  # as the operator is
            kept = _counts_now(weights, thresholds)
            self._kept = kept if reset_below is None else self._reset_(kept, [w.numel() for w in weights], reset_below)

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and their thresholds, in the model's order."""
        return [self._weights[name].parameter for name in self._parameters], list(self._parameters.values())

    def _reset_(self, kept: Tensor, sizes: Sequence[int], reset_below: float) -> Tensor:
        """Zero the thresholds of layers that keep less; what is kept after it. kept: int64 [weights]."""
        if reset_below not in self._limits:  # made once: to send it to the device is to wait for it
            limits = [
                reset_below * size if may_reset else -1 for size, may_reset in zip(sizes, self._resettable, strict=True)
            ]
            self._limits[reset_below] = (
                torch.tensor(limits, dtype=torch.float32, device=kept.device),
                torch.tensor(sizes, device=kept.device),
            )
        limit, whole = self._limits[reset_below]
        emptied = kept < limit
        for threshold, one in zip(self._parameters.values(), emptied.unbind(), strict=True):
            threshold.masked_fill_(one, 0)
        self.resets += emptied.sum()
        return torch.where(emptied, whole, kept)

    def kept_counts(self) -> Tensor:
        """Kept weights of each since the last `update_`, in the model's order: int64 on the device.

        What the C++ operators have not counted by then is counted now: ask before other values are put into the
        parameters, such as an average of the weights.
        """
        if self._kept is None:
            self._kept = self._count_rest()
        return self._kept

    def _count_rest(self) -> Tensor:
        kept = self._counts[0]
        if UNCOUNTED in kept.tolist():
            weights, thresholds = self._pairs()
            if not kernels.are_fused(weights):  # any more
                return _counts_now(weights, thresholds)
            torch.ops.sparse_training.count_kept.default(weights, thresholds, self._counts)
        return kept.clone()

    def state_dict(self) -> dict[str, Any]:
        return {
            "structure": dict(self._structure),
            "kept": dict(zip(self._parameters, self.kept_counts(), strict=True)),
            "resets": self.resets.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the structure; the thresholds' values come with the model's own state."""
        if state["structure"] and not self._parameters:
            self.attach(**state["structure"])
        if state["structure"] != self._structure:
            raise ValueError(f"the saved thresholds are {state['structure']}, the attached ones {self._structure}")
        device = self.resets.device
        if state["kept"]:
            self._kept = torch.stack([state["kept"][name] for name in self._parameters]).to(device)
        self.resets = state["resets"].to(device, copy=True)
