"""The masks of a model's weights; nothing else writes masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from methods import kernels
from methods.checks.bound_optimizer import chain
from methods.layers import MaskableWeight
from methods.weights.masked_modules import carry, watch
from methods.weights.reparametrization import reparametrize
from methods.weights.weight_mask import ForwardMask, WeightMask


class Masks:
    """Boolean masks of maskable weights; a weight without a mask is dense.

    Each module carries the masks of its own weights (`methods.weights.masked_modules`). zeroes_gradients:
    whether gradients of pruned weights become 0 as they arrive. forward: layers compute with W * M
    and the parameters stay dense; otherwise pruned weights are zeroed in place.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, MaskableWeight],
        *,
        zeroes_gradients: bool = False,
        forward: bool = False,
    ) -> None:
        self._model = model
        self._weights = weights
        self._trained = {name for name, weight in weights.items() if weight.parameter.requires_grad}
        self._masks = {n: WeightMask(n, zeroes_gradients=zeroes_gradients, forward=forward) for n in weights}
        for name, weight in weights.items():
            carry(weight, self._masks[name])
            if forward:
                reparametrize(weight, ForwardMask(self._masks[name]))
        self._watched = False
        self._count()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy sets the masks of its model: these follow no original."""
        self.__dict__.update(state)
        for held in self._masks.values():
            held.lead()

    def __contains__(self, name: str) -> bool:
        return name in self._masks and self._masks[name].prunes

    def __len__(self) -> int:
        return sum(mask.prunes for mask in self._masks.values())

    def __getitem__(self, name: str) -> Tensor:
        """The mask of one weight (a copy): all true where it is dense."""
        return self._masks[name].keep(self._weights[name].held)

    def carried(self) -> Mapping[str, WeightMask]:
        """What the modules carry, by the weights' names."""
        return self._masks

    def set(self, masks: Mapping[str, Tensor], *, frozen_too: bool = False) -> None:
        """Replace the masks of some weights and zero the weights that they prune, where masks act in place.

        Weights that trained at `attach` and are frozen now keep their masks, unless frozen_too is
        True; those that were frozen before do not. Raises ValueError for a name without a maskable
        weight, and for a mask of another shape or type than bool; no mask is changed then.
        """
        for name, mask in masks.items():
            if name not in self._weights:
                raise ValueError(f"no maskable weight '{name}'; valid: {', '.join(self._weights)}{_prefix_hint(name)}")
            parameter = self._weights[name].parameter
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != parameter.shape:
                found = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
                raise ValueError(f"mask of {name} is {found}, not torch.bool {list(parameter.shape)}")
        frozen = frozenset() if frozen_too else self.frozen()
        masks = {name: mask for name, mask in masks.items() if name not in frozen}
        for name, mask in masks.items():
            held, parameter = self._masks[name], self._weights[name].parameter
            if not held.begun and held.before is None and not held.forward:
                held.before = parameter.detach().clone()
            held.replace(~mask.to(parameter.device))
        self.watch()
        self._count()
        self.apply_()

    def frozen(self) -> frozenset[str]:
        """The names of weights that trained at `attach` and are frozen now: they keep their masks."""
        return frozenset(name for name in self._trained if not self._weights[name].held.requires_grad)

    @torch.no_grad()
    def restore_before_(self) -> None:
        """Give kept weights that are 0 the values that they had before they were masked."""
        for name, held in self._masks.items():
            parameter = self._weights[name].parameter
            if held.before is not None:
                parameter.copy_(torch.where(self[name] & (parameter == 0), held.before, parameter))

    @torch.no_grad()
    def undo_(self) -> None:
        """Give all weights back the values from before they were masked: attaching has failed."""
        for name, held in self._masks.items():
            if held.before is not None:
                self._weights[name].parameter.copy_(held.before)
            held.pruned = None

    def begin(self) -> None:
        """Training goes on: free the weights' values from before they were masked."""
        for held in self._masks.values():
            held.begin()

    def apply_(self) -> None:
        """Zero every pruned weight that is masked in place, of all layers at once."""
        by_device: dict[torch.device, tuple[list[Tensor], list[Tensor]]] = {}
        for name, held in self._masks.items():
            if held.places is not None or held.pruned is None or held.forward:
                continue
            weight = self._weights[name].parameter
            if held.pruned.device != weight.device:
                held.pruned = held.pruned.to(weight.device)
            weights, pruned = by_device.setdefault(weight.device, ([], []))
            weights.append(weight.data)
            pruned.append(held.pruned)
            held.note(weight)
        for weights, pruned in by_device.values():
            kernels.backend_for(*weights).zero_(weights, pruned)

    def keep_gradients(self, keep: bool) -> None:
        """Whether gradients of pruned weights stay as they arrive, even where they usually become 0."""
        for held in self._masks.values():
            held.keeps_gradients = keep

    def kept_counts(self) -> Tensor:
        """Kept weights of each maskable weight, in the model's order: int64 [weights]."""
        return self._kept

    def sizes(self) -> Tensor:
        """All weights of each maskable weight, in the model's order: int64 [weights]."""
        return self._sizes

    @torch.no_grad()
    def zero_optimizer_state_(self, optimizer: torch.optim.Optimizer, where: Mapping[str, Tensor]) -> None:
        """Zero the optimizer's momentum or moments of single weights where `where` is true."""
        for name, entries in where.items():
            parameter = self._weights[name].parameter
            states = [getattr(one, "state", {}).get(parameter, {}) for one in chain(optimizer)]
            for value in (value for state in states for value in state.values()):
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.masked_fill_(entries, 0)

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the masks by name."""
        return {name: self[name] for name in self._masks if name in self}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the masks: the values that they keep come with the model's own state.

        The model's state may be loaded before or after this one. Raises ValueError for the mask of
        a weight that is not maskable here.
        """
        if unknown := [name for name in state if name not in self._weights]:
            hint = _prefix_hint(unknown[0])
            raise ValueError(f"saved masks of {', '.join(unknown)}, which are no maskable weights here{hint}")
        for name, held in self._masks.items():
            held.fresh = False
            if name not in state and held.pruned is not None:  # dense when the state was saved
                held.replace(torch.zeros_like(held.pruned))
        for name, mask in state.items():
            self._masks[name].replace(~mask.to(self._weights[name].parameter.device))
        self.watch()
        self._count()
        self.restore_before_()

    def watch(self) -> None:
        """From now on the model, and copies of it, mask weights that were written before they compute."""
        if not self._watched:
            self._watched = True
            watch(self._model)

    def _count(self) -> None:
        device = next(iter(self._weights.values())).parameter.device
        sizes = [weight.parameter.numel() for weight in self._weights.values()]
        self.total = sum(sizes)
        self._sizes = torch.tensor(sizes, dtype=torch.int64, device=device)
        self._kept = torch.stack([torch.count_nonzero(self[name]).to(device) for name in self._weights])


def _prefix_hint(name: str) -> str:
    wrapped = name.startswith(("module.", "_orig_mod."))
    return f" (names of a wrapped model: remove '{name.partition('.')[0]}.')" if wrapped else ""
