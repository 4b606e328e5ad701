"""The mask of one weight, carried by the module that holds the weight.

A mask in the forward pass multiplies the weight there (`ForwardMask`). Masks in place hold wherever
the weight is used. A weight may be written from outside: by a checkpoint, an initialisation, an
average of weights, or an optimizer that evaluates inside its step. Each write raises the tensor's version
or, as `parameter.data = values` does, gives the tensor another memory. So a hook before the
module's forward pass sees it and zeroes the pruned weights again, in the memory that the parameter
has then. Writes in place through `.data`, such as `parameter.data.mul_(0.9)`, do neither;
`Attachment.step`, `density` and `finalize` zero them. A forward pass compiled by torch.compile has
no such hook: there a loaded checkpoint is masked when it is loaded.

A module carries its masks in its `__dict__`: they are no part of its `state_dict`, and copies and
pickles take them along. A copy that is written to, such as an average of weights, follows the masks
of its original, the last ones where the original was finalized or dropped; a copy that is not
written to keeps those that it was copied with.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from methods import kernels
from methods.kernels.places import Places
from methods.layers import MaskableWeight
from methods.weights.last_seen import LastSeen
from methods.weights.reparametrization import EffectiveWeight, extra_name

KEY = "weight_masks"  # of a module's __dict__: its WeightMasks by parameter name
StandIn = tuple[nn.Module, str, Tensor]  # a module, the name of its parameter, the tensor in the parameter's place
AVERAGES = "torch.optim.swa_utils"
LOST = (
    "load_state_dict gave values to weights that the present masks prune, and they are 0 now: to return to an earlier "
    "state, load attached.state_dict() of the same step first"
)
HOLDERS = "masked_modules"  # of a module's __dict__: the modules that its hook looks at


class WeightMask:
    """The mask of one weight. Without entries to prune the weight is dense.

    name: the weight's qualified name. pruned: bool, shape of the weight, true where it is 0; None
    where the weight is dense. zeroes_gradients: whether gradients of pruned weights become 0 as
    they arrive; keeps_gradients suspends this while it is True. forward: the mask leaves the
    parameter as it is. before: the weight's values from before it was masked, until training goes
    on. begun: whether it did. final: what was kept when the model was finalized. last: `pruned`
    before that, for copies. at_finish: a weak reference to what is called before finalizing.
    places: where the kept weights are, while the layer holds only these; None otherwise. `pruned`
    is computed from them then. changes: how often the mask was replaced. changes_form: whether the
    layer may hold only its kept weights.
    """

    def __init__(self, name: str, *, zeroes_gradients: bool = False, forward: bool = False) -> None:
        self.name = name
        self.zeroes_gradients = zeroes_gradients
        self.keeps_gradients = False
        self.forward = forward
        self.places: Places | None = None
        self._pruned: Tensor | None = None
        self.before: Tensor | None = None
        self.begun = False
        self.final: Tensor | None = None
        self.last: Tensor | None = None
        self.at_finish: weakref.WeakMethod[Callable[[], None]] | None = None  # copies have none
        self.changes = 0
        self.changes_form = False
        self._masked = LastSeen()  # the weight when it was masked last
        self._hooked: weakref.ref[Tensor] | None = None  # whose gradient is zeroed, and what ends that
        self._hook: RemovableHandle | None = None
        self._original: WeightMask | None = None  # of a copy
        self._copied: tuple[torch.dtype, Tensor] | None = None  # of a copy: type and bits of the copied weight

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
        self.before, self.begun = None, True

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
        if self.pruned is None:
            if not changed and self._lags():
                self._masked.note_memory(weight)  # a snapshot of a dense model was moved: look at its values once
            return None
        if self.forward:
            self.note(weight)
            return None
        if stands_in:
            module._parameters[parameter_name] = weight.masked_fill(self.pruned, 0)  # type: ignore[assignment]
            return weight
        self.apply_(weight)
        if self._original is not None and (self._copied is None or self._copied[0] != weight.dtype):
            self.note_copy(weight)
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
        """This mask and its weight, which is masked, were copied from others."""
        self.note(weight)
        self._copied = weight.dtype, _sum_of_bits(weight)

    def _differs(self, weight: Tensor) -> bool:
        """Whether a copy's weight has other values than it was copied with, such as after a write to `.data`."""
        if self._copied is None or weight.is_meta or weight.dtype != self._copied[0]:
            return False
        return bool(_sum_of_bits(weight).cpu() != self._copied[1].cpu())

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
        copy.changes, copy.begun = self.changes, self.begun
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


def masks_of(module: nn.Module) -> dict[str, WeightMask]:
    """The masks that a module carries, by parameter name; {} where no method is attached."""
    masks: dict[str, WeightMask] = module.__dict__.get(KEY, {})
    return masks


def carriers(model: nn.Module) -> Iterator[nn.Module]:
    """The modules in a model to whose weights a method is attached."""
    return (module for module in model.modules() if KEY in module.__dict__)


def carry(weight: MaskableWeight, mask: WeightMask) -> None:
    """Make the module that holds a weight carry its mask."""
    weight.module.__dict__.setdefault(KEY, {})[weight.parameter_name] = mask
    mask.note(weight.parameter)
    weight.module.__dict__["__prepare_scriptable__"] = _refuse_script


def watch(model: nn.Module) -> None:
    """Mask weights again before the model, or one of the modules that carry masks, computes.

    A module may read the weights of others, as attention does: so the model's own hook serves all
    its modules, and the hook of a module in it those that lie directly in the module.
    """
    holders = list(carriers(model))
    for module in model.modules():
        carried = holders if module is model else [m for m in (module, *module.children()) if KEY in m.__dict__]
        if not carried:
            continue
        if HOLDERS not in module.__dict__:
            module.register_forward_pre_hook(_settle, prepend=True)
        before = module.__dict__.get(HOLDERS, [])  # of another method at work on a part of the model
        module.__dict__[HOLDERS] = list(dict.fromkeys([*before, *carried]))
    for module in holders:
        module.register_load_state_dict_post_hook(_mask_loaded)  # type: ignore[no-untyped-call]


def release(module: nn.Module) -> None:
    """Take the masks, and the hooks of `watch`, from a module."""
    for key in (KEY, HOLDERS, "__prepare_scriptable__"):
        module.__dict__.pop(key, None)
    all_hooks: tuple[dict[int, Any], ...] = (module._forward_pre_hooks, module._load_state_dict_post_hooks)
    for hooks in all_hooks:
        for number in [number for number, hook in hooks.items() if any(hook is own for own in OWN_HOOKS)]:
            del hooks[number]


def settle_(module: nn.Module, *, written: bool = False) -> list[StandIn]:
    """Mask the weights of one module that were written since the last time; written: all of them.

    Returns the tensors that stood in for parameters and were replaced by masked copies.
    """
    replaced: list[StandIn] = []
    for name, mask in module.__dict__.get(KEY, {}).items():
        if (weight := mask.settle_(module, name, written=written)) is not None:
            replaced.append((module, name, weight))
    return replaced


def _settle(module: nn.Module, _: Any) -> None:
    if not torch.compiler.is_compiling():
        if HOLDERS not in module.__dict__:
            raise RuntimeError(
                f"a {type(module).__name__} was made from a layer with a mask, and carries none (quantization and "
                "fusion do so): call methods.finalize(model) first, and convert the finalized model"
            )
        replaced: list[StandIn] = []
        for holder in module.__dict__[HOLDERS]:
            replaced += settle_(holder)
        _put_back_after(module, replaced)


def _put_back_after(caller: nn.Module, replaced: list[StandIn]) -> None:
    """After the forward pass of `caller`, give its modules the tensors back that stood in."""
    if not replaced:
        return

    def put_back(*_: Any) -> None:
        handle.remove()
        for module, name, weight in replaced:
            module._parameters[name] = weight  # type: ignore[assignment]

    handle = caller.register_forward_hook(put_back, always_call=True)


def _mask_loaded(module: nn.Module, _: Any) -> None:
    """Mask weights that were loaded, and keep their values in case other masks are loaded next.

    Warns where training has begun and the masks zero some values: those of an earlier step had other masks.
    """
    loses = False
    for name, mask in masks_of(module).items():
        weight = module._parameters.get(name)
        if weight is None or mask.forward or mask.pruned is None or not mask.written(weight):
            continue
        mask.before = weight.detach().clone()
        mask.settle_(module, name, written=True)
        loses |= mask.loses(mask.before)
    if loses:
        warnings.warn(LOST, stacklevel=2)


OWN_HOOKS = (_settle, _mask_loaded)


def _refuse_script() -> NoReturn:
    raise RuntimeError("torch.jit.script cannot compile a model with an attached method: methods.finalize(model) first")


def mask_others_(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Zero the pruned weights of a copy or an average of a model, which may be wrapped.

    masks: bool, true where a weight is kept, by the weights' names. Weights with thresholds of
    their own stay as they are. Raises ValueError for a model that lacks one of the weights.
    """
    while (lacking := masks.keys() - _names(model)) and isinstance(getattr(model, "module", None), nn.Module):
        model = cast(nn.Module, model.module)
    if lacking:
        raise ValueError(f"the model has no {', '.join(sorted(lacking))}: it is no copy of the attached one")
    for name, mask in masks.items():
        module_name, _, parameter_name = name.rpartition(".")
        module = model.get_submodule(module_name)
        weight = cast(Tensor, module._parameters[parameter_name])
        if extra_name(parameter_name) in module._parameters:
            continue
        if (held := masks_of(module).get(parameter_name)) is not None:
            held.replace(~mask.to(weight.device))
            if held.forward:
                continue
        weight.masked_fill_(~mask.to(weight.device), 0)


def _names(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters(remove_duplicate=False)}
