"""Masks of parameters, kept in place: the only writer of masks and of pruned weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from methods import kernels
from methods.layers import MaskableWeight


class Masks:
    """Boolean masks of maskable weights; a weight without one is dense.

    Iteration follows the order of the model's weights. `set` zeroes what it prunes.
    """

    def __init__(self, weights: Mapping[str, MaskableWeight]) -> None:
        self._weights = weights
        self._masks: dict[str, Tensor] = {}
        self._factors: list[Tensor] = []  # the masks as numbers, where plain operations apply them
        self._initial: dict[str, Tensor] | None = {}
        self._refresh()

    def __contains__(self, name: str) -> bool:
        return name in self._masks

    def __len__(self) -> int:
        return len(self._masks)

    def __getitem__(self, name: str) -> Tensor:
        """The mask of one weight (a copy): all true where it is dense."""
        if name in self._masks:
            return self._masks[name].clone()
        return torch.ones_like(self._weights[name].parameter, dtype=torch.bool)

    def set(self, masks: Mapping[str, Tensor]) -> None:
        """Replace the masks of some weights, and zero what they prune. Raises ValueError for bad ones."""
        for name, mask in masks.items():
            if name not in self._weights:
                raise ValueError(f"no maskable weight '{name}'; valid: {', '.join(self._weights)}")
            parameter = self._weights[name].parameter
            if mask.dtype != torch.bool or mask.shape != parameter.shape:
                raise ValueError(
                    f"mask of {name} is {mask.dtype} {list(mask.shape)}, not torch.bool {list(parameter.shape)}"
                )
        for name, mask in masks.items():
            parameter = self._weights[name].parameter
            if self._initial is not None and name not in self._initial:
                self._initial[name] = parameter.detach().clone()
            self._masks[name] = mask.to(parameter.device, copy=True)
        self._refresh()
        self.apply_()

    @torch.no_grad()
    def revive_(self) -> None:
        """Give kept weights that are 0 the value from before the first masks, where no step was made yet."""
        for name, initial in (self._initial or {}).items():
            parameter = self._weights[name].parameter
            parameter.copy_(torch.where(self._masks[name] & (parameter == 0), initial, parameter))

    def forget_initial(self) -> None:
        """Training has begun: free the weights' first values."""
        self._initial = None

    def _refresh(self) -> None:
        self._masks = {name: self._masks[name] for name in self._weights if name in self._masks}
        self._factors = []
        self._kept = torch.stack([self[name].sum() for name in self._weights])

    def apply_(self) -> None:
        """Zero every pruned weight: one multiplication of all."""
        weights = [self._weights[name].parameter.data for name in self._masks]
        if not weights:
            return
        if kernels.are_fused(weights):
            torch.ops.sparse_training.apply_masks.default(weights, list(self._masks.values()))
            return
        if not self._factors or any(f.dtype != w.dtype for f, w in zip(self._factors, weights, strict=True)):
            self._factors = [mask.to(weight.dtype) for mask, weight in zip(self._masks.values(), weights, strict=True)]
        torch._foreach_mul_(weights, self._factors)

    def kept_counts(self) -> Tensor:
        """Kept weights of each maskable weight in order, int64 [weights] on the device; counted once a change."""
        return self._kept

    @torch.no_grad()
    def zero_optimizer_state_(self, optimizer: torch.optim.Optimizer, where: Mapping[str, Tensor]) -> None:
        """Zero the optimizer's per-weight state (momentum, Adam's moments) at the true entries."""
        for name, entries in where.items():
            parameter = self._weights[name].parameter
            for value in optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.masked_fill_(entries, 0)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: mask.clone() for name, mask in self._masks.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the masks alone: the weights that they prune come with the model's own state.

        Raises ValueError where a mask is of no maskable weight.
        """
        if unknown := [name for name in state if name not in self._weights]:
            raise ValueError(f"saved masks of {', '.join(unknown)}, which are no maskable weights here")
        self._masks = {name: mask.to(self._weights[name].parameter.device, copy=True) for name, mask in state.items()}
        self._refresh()
