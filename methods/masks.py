"""Masks that are applied in place; nothing else writes masks or zeroes pruned weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from methods import kernels
from methods.layers import MaskableWeight


class Masks:
    """Boolean masks of maskable weights; a weight without a mask is dense."""

    def __init__(self, weights: Mapping[str, MaskableWeight]) -> None:
        self._weights = weights
        self._masks: dict[str, Tensor] = {}
        self._factors: list[Tensor] = []  # the masks in the type that the backend multiplies by
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
        """Replace the masks of some weights and zero the weights that they prune.

        Raises ValueError for a name without a maskable weight, and for a mask of another shape or
        type than bool; no mask is changed then.
        """
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
    def restore_initial_(self) -> None:
        """Before the first step: give kept weights that are 0 the values that the model had."""
        for name, initial in (self._initial or {}).items():
            parameter = self._weights[name].parameter
            parameter.copy_(torch.where(self._masks[name] & (parameter == 0), initial, parameter))

    def forget_initial(self) -> None:
        """Free the weights' values from before the first masks: training has begun."""
        self._initial = None

    def _refresh(self) -> None:
        self._masks = {name: self._masks[name] for name in self._weights if name in self._masks}
        self._factors = []
        self._kept = torch.stack([torch.count_nonzero(self[name]) for name in self._weights])

    def apply_(self) -> None:
        """Zero every pruned weight: one multiplication of all weights by their masks."""
        weights = [self._weights[name].parameter.data for name in self._masks]
        if not weights:
            return
        backend = kernels.backend_for(*weights)
        types = [backend.mask_dtype(weight) for weight in weights]
        if [factor.dtype for factor in self._factors] != types:
            self._factors = [mask.to(dtype) for mask, dtype in zip(self._masks.values(), types, strict=True)]
        backend.multiply_(weights, self._factors)

    def kept_counts(self) -> Tensor:
        """Kept weights of each maskable weight, in the model's order: int64 [weights]."""
        return self._kept

    @torch.no_grad()
    def zero_optimizer_state_(self, optimizer: torch.optim.Optimizer, where: Mapping[str, Tensor]) -> None:
        """Zero the optimizer's momentum or moments of single weights where `where` is true."""
        for name, entries in where.items():
            parameter = self._weights[name].parameter
            for value in optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.masked_fill_(entries, 0)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the masks by name."""
        return {name: mask.clone() for name, mask in self._masks.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the masks only: the weights that they prune come with the model's own state.

        Raises ValueError for the mask of a weight that is not maskable here.
        """
        if unknown := [name for name in state if name not in self._weights]:
            raise ValueError(f"saved masks of {', '.join(unknown)}, which are no maskable weights here")
        self._masks = {name: mask.to(self._weights[name].parameter.device, copy=True) for name, mask in state.items()}
        self._refresh()
