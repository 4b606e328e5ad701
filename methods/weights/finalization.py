"""The end of a training: plain modules again, with the zeros written into the weights."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from methods import kernels
from methods.compaction.cut import compact_
from methods.kernels.places import Places
from methods.weights import kept_linear, masked_modules, reparametrization


def finalize(model: nn.Module, *, compact: bool = False, execution: Literal["dense", "sparse"] = "dense") -> nn.Module:
    """Write the zeros into the weights, in place, take the method off and return the model.

    The model may be a wrapper, a copy or an average of the attached one. It has plain modules and
    its original keys again, and computes the same function as before. Further training does not
    keep weights pruned. Warns where the training ended before the method reached its density, or never
    called `attached.step()`. compact: also cut out the neurons and filters that cannot affect the
    output, which makes layers smaller (`methods.compaction`); in evaluation mode the function stays
    the same up to the order of summation. execution: with `sparse`, Linear layers on a CPU of which
    at least half of the weights are 0 hold only the others (`methods.weights.kept_linear`). Their
    state_dict stays dense, and loading one makes them dense. Raises ValueError for another
    execution, and where compaction cannot trace the model's forward; the zeros are written by then.
    """
    if execution not in ("dense", "sparse"):
        raise ValueError(f"execution is {execution!r}; valid: dense, sparse")
    for module in model.modules():
        for mask in masked_modules.masks_of(module).values():
            if mask.at_finish is not None and (call := mask.at_finish()) is not None:
                call()
    for module in list(model.modules()):
        kept_linear.expand_(module)
        masked_modules.settle_(module, written=True)
        masks = masked_modules.masks_of(module)
        kept = {name: reparametrization.kept(module, name) for name in masks}
        reparametrization.restore(module)
        for name, mask in masks.items():
            mask.finish(module._parameters.get(name), kept[name])
        masked_modules.release(module)
    if compact:
        compact_(model)
    if execution == "sparse":
        _compress_(model)
    return model


def _compress_(model: nn.Module) -> None:
    """Let Linear layers of which at least half of the weights are 0 hold only the others."""
    for name, module in model.named_modules():
        if not kept_linear.can_hold(module) or kernels.path("cpu") != "cpp":
            continue
        weight = cast(Tensor, module._parameters["weight"])
        keep = weight != 0
        kept = int(torch.count_nonzero(keep))
        if kept <= keep.numel() / 2 and kept_linear.fits(weight) and kept_linear.distinguishable(weight, kept):
            kept_linear.compress_(module, Places.of(keep), name=f"{name}.weight".lstrip("."))
