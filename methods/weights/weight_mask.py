"""The mask of one weight: in place, or in the forward pass, where it multiplies the weight (`ForwardMask`).

The module that holds the weight carries it (`masked_modules`). A copy that is written to, such as an
average of weights, follows the masks of its original, the last ones where the original was
finalized or dropped; a copy that is not written to again keeps those that it has.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from methods import kernels
from methods.kernels.places import Places
from methods.weights.last_seen import LastSeen
from methods.weights.reparametrization import EffectiveWeight

AVERAGES = "torch.optim.swa_utils"


class WeightMask:
    """The mask of one weight. Without entries to prune the weight is dense.

    name: the weight's qualified name. pruned: bool, shape of the weight, true where it is 0; None
    where the weight is dense. zeroes_gradients: whether gradients of pruned weights become 0 as
    they arrive; keeps_gradients suspends this while it is True. forward: the mask leaves the
    parameter as it is. before: the weight's values from before it was masked, until training goes
    on. begun: whether it did. fresh: whether no step was trained and no saved masks were loaded. final:
    what was kept when the model was finalized. last: `pruned` before that, for copies. at_finish: a
    weak reference to what is called before finalizing. places: where the kept weights are, while the
    layer holds only these; None otherwise. `pruned` is computed from them then. changes: how often the
    mask was replaced. changes_form: whether the layer may hold only its kept weights.
    """

    def __init__(self, name: str, *, zeroes_gradients: bool = False, forward: bool = False) -> None:
        self.name = name
        self.zeroes_gradients = zeroes_gradients
        self.keeps_gradients = False
        self.forward = forward
        self.places: Places | None = None
        self._pruned: Tensor | None = None
        self.before: Tensor | None = None
        self.begun, self.fresh = False, True
        self.final: Tensor | None = None
        self.last: Tensor | None = None
        self.at_finish: weakref.WeakMethod[Callable[[], None]] | None = None  # copies have none
        self.changes = 0
        self.changes_form = False
        self._masked = LastSeen()  # the weight when it was masked last
        self._hooked: weakref.ref[Tensor] | None = None  # whose gradient is zeroed, and what ends that
        self._hook: RemovableHandle | None = None
        self._original: WeightMask | None = None  # of a copy
        self._copied: tuple[torch.dtype, Tensor] | None = None  # of a copy: type and bits when it was looked at last

    @property
    def pruned(self) -> Tensor | None:
        return self._pruned if self.places is None else ~self.places.mask()

    @pruned.setter
    def pruned(self, pruned: Tensor | None) -> None:
        self._pruned = pruned

    @property
    def prunes(self) -> bool:
        """Whether there is a mask: cheaper than `pruned`, which may be computed."""
        return self._pruned is not None or self.places is not None

    @property
    def is_copy(self) -> bool:
        """Whether this mask was copied with its weight, and follows that of the original."""
        return self._original is not None

    def hold(self, places: Places | None) -> None:
        """Note that the layer holds only the weights at these places, or with None its dense weight."""
        self._pruned, self.places = (self.pruned, None) if places is None else (None, places)

    def keep(self, like: Tensor) -> Tensor:
        """True where the weight is kept: bool, a new tensor in the shape of the weight."""
        return torch.ones_like(like, dtype=torch.bool) if self.pruned is None else ~self.pruned

    def replace(self, pruned: Tensor) -> None:
        """Prune these entries from now on. The mask's memory stays where its shape does."""
        self.changes += 1
        if not self.forward:
            self._masked.forget()  # the weight is to be masked again
        if self.pruned is not None and (self.pruned.shape, self.pruned.device) == (pruned.shape, pruned.device):
            self.pruned.copy_(pruned)
        else:
            self.pruned = pruned.clone()

    def apply_(self, weight: Tensor) -> None:
        """Zero the pruned entries of the weight, unless it is masked in the forward pass."""
        if not self.forward:
            self.zero_(weight)
        self.note(weight)

    def zero_(self, tensor: Tensor) -> None:
        """Zero the pruned entries of a tensor of the weight's shape, such as its gradient."""
        if self._pruned is None:
            return
        if self._pruned.device != tensor.device:
            self._pruned = self._pruned.to(tensor.device)
        data = tensor.data
        kernels.backend_for(data).zero_((data,), (self._pruned,))

    def note(self, weight: Tensor) -> None:
        """The weight is masked now; it is masked again once something writes to it."""
        self._masked.note(weight)
        hooked = self._hooked is not None and self._hooked() is weight
        if self.zeroes_gradients and self.pruned is not None and weight.requires_grad and not hooked:
            self._unhook()
            self._hook = weight.register_post_accumulate_grad_hook(self._zero_gradient)  # type: ignore[no-untyped-call]
            self._hooked = weakref.ref(weight)

    def written(self, weight: Tensor) -> bool:
        """Whether something wrote to the weight, or replaced it or its memory, since it was masked last."""
        return self._masked.changed(weight) or self._masked.moved(weight)

    def begin(self) -> None:
        """Training goes on: free the weight's values from before it was masked."""
        self.before, self.begun, self.fresh = None, True, False

    def lead(self) -> None:
        """An attachment sets this mask: a copy of it follows no original."""
        self._original = None

    def settle_(self, module: nn.Module, parameter_name: str, *, written: bool = False) -> Tensor | None:
        """Zero the pruned entries if the module's weight was written since the last time.

        A tensor that stands in for the parameter, as in torch.func.functional_call, is not
        written: the module holds a masked copy of it, and the tensor is returned. written: mask the
        weight whatever is known of it, and even where it is another parameter than before.
        """
        if self.places is not None:
            return None  # the layer has no pruned entries to zero
        weight = module._parameters.get(parameter_name)
        changed = weight is not None and self._masked.changed(weight)
        if weight is None or not (changed or written or self._masked.moved(weight)):
            return None
        is_other = bool(self._masked) and weight is not self._masked.tensor
        stands_in = not isinstance(weight, nn.Parameter) or (is_other and not written)
        if self._lags() and (self.forward or not stands_in) and (changed or self._differs(weight)):
            self._follow()
        if self.pruned is not None and stands_in and not self.forward:
            module._parameters[parameter_name] = weight.masked_fill(self.pruned, 0)  # type: ignore[assignment]
            return weight
        if self.pruned is not None:
            self.apply_(weight)
        if self.is_copy and not stands_in and not weight.is_meta:
            self.note_copy(weight)  # masks that come later are not its own, unless it is written again
        return None

    def finish(self, weight: Tensor | None, kept: Tensor | None) -> None:
        """The model is being finalized: remember what the mask and, where there are any, thresholds keep."""
        keep = torch.zeros(0, dtype=torch.bool) if weight is None else self.keep(weight)
        self.final = keep if kept is None else keep & kept
        self.last, self.pruned = self.pruned, None
        self._unhook()

    def _unhook(self) -> None:
        """Leave the gradient of the weight as it arrives: its hook would hold this mask as long as the weight."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._hooked = None

    def loses(self, loaded: Tensor) -> bool:
        """Whether training has begun and the mask zeroes some of these loaded values."""
        if self._pruned is None or not (self._original or self).begun:
            return False
        return bool(loaded[self._pruned].any())

    def note_copy(self, weight: Tensor) -> None:
        """This is a copy's mask, and its weight is masked now."""
        self.note(weight)
        self._copied = weight.dtype, _sum_of_bits(weight)

    def _differs(self, weight: Tensor) -> bool:
        """Whether a copy's weight has other values than when it was looked at last, as after a write to `.data`."""
        if self._copied is None or weight.is_meta or weight.dtype != self._copied[0]:
            return False
        return bool(_sum_of_bits(weight).cpu() != self._copied[1].cpu())

    @property
    def waits(self) -> bool:
        """Whether this is a copy's mask, and that of its original is still fresh."""
        return self._original is not None and self._original.fresh

    def follow_in_forward(self) -> None:
        """Take the original's mask where no values are lost by it: a compiled forward pass does not look at it."""
        if self.forward and self._lags():
            self._follow()

    def _lags(self) -> bool:
        """Whether this is the mask of a copy, and that of its original was replaced since."""
        return self._original is not None and self._original.changes != self.changes

    def _follow(self) -> None:
        """Take over the present or last mask of the weight that this one's was copied from."""
        original = cast(WeightMask, self._original)
        pruned = original.pruned if original.final is None else original.last
        if pruned is not None:
            self.replace(pruned)
            self.changes = original.changes

    def _zero_gradient(self, weight: Tensor) -> None:
        if weight.grad is not None and not self.keeps_gradients:
            self.zero_(weight.grad)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: a mask in another process has no original, and its weight is looked at anew."""
        forgotten = dict.fromkeys(("at_finish", "places", "_hooked", "_hook", "_original", "_copied"))
        return vars(self) | forgotten | {"_masked": LastSeen(), "_pruned": self.pruned, "changes_form": False}

    def __deepcopy__(self, memo: dict[int, Any]) -> WeightMask:
        if self.changes_form and _is_called_by(AVERAGES):
            raise ValueError(
                f"AveragedModel averages parameters, and the parameter {self.name} may hold only its kept weights: "
                "average the model's state_dict(), or use execution='dense'"
            )
        copy = WeightMask(self.name, zeroes_gradients=self.zeroes_gradients, forward=self.forward)
        memo[id(self)] = copy
        copy.pruned = None if (pruned := self.pruned) is None else pruned.clone()
        copy.changes, copy.begun, copy.fresh = self.changes, self.begun, self.fresh
        copy._original = self._original or self
        weight = self._masked.tensor
        if weight is not None and (self.forward or not self.prunes or not self._masked.changed(weight)):
            copied = memo.get(id(weight))
            if copied is not None:
                copy.note_copy(copied)
                if self._masked.moved(weight) and not self.forward:
                    copy._masked.forget_memory()  # the copied values were not masked: they are before the copy computes
        return copy


class ForwardMask(EffectiveWeight):
    """W * M, whose gradient passes to all entries of W."""

    def __init__(self, mask: WeightMask) -> None:
        self.mask = mask

    def __call__(self, weight: Tensor, _: None) -> Tensor:
        pruned = self.mask.pruned
        if pruned is None:
            return weight
        return torch.where(pruned.to(weight.device), weight - weight.detach(), weight)

    def kept(self, weight: Tensor, _: None) -> Tensor:
        return self.mask.keep(weight)


def _is_called_by(module: str) -> bool:
    """Whether a function of this module is on the call stack."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") != module:
        frame = frame.f_back
    return frame is not None


def _sum_of_bits(weight: Tensor) -> Tensor:
    """The sum of the values' bits as whole numbers, the same on every device and in any order: 0-dim int64."""
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[weight.element_size()]
    return weight.detach().view(whole).sum(dtype=torch.int64)
