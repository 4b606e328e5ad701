"""The end of a training: plain modules again, with the zeros written into the weights."""

from __future__ import annotations

from torch import nn

from methods.compaction.cut import compact_
from methods.weights import kept_linear, reparametrization, weight_mask


def finalize(model: nn.Module, *, compact: bool = False) -> nn.Module:
    """Write the zeros into the weights, in place, take the method off and return the model.

    The model may be a wrapper, a copy or an average of the attached one. It has plain modules and
    its original keys again, and computes the same function as before. Further training does not
    keep weights pruned. Warns where the training ended before the method reached its density, or never
    called `attached.step()`. compact: also cut out the neurons and filters that cannot affect the
    output, which makes layers smaller (`methods.compaction`); in evaluation mode the function stays
    the same up to the order of summation. Raises ValueError where compaction cannot trace the
    model's forward; the zeros are written by then.
    """
    for module in model.modules():
        for mask in weight_mask.masks_of(module).values():
            if mask.at_finish is not None and (call := mask.at_finish()) is not None:
                call()
    for module in list(model.modules()):
        kept_linear.expand_(module)
        weight_mask.settle_(module, written=True)
        masks = weight_mask.masks_of(module)
        kept = {name: reparametrization.kept(module, name) for name in masks}
        reparametrization.restore(module)
        for name, mask in masks.items():
            mask.finish(module._parameters.get(name), kept[name])
        weight_mask.release(module)
    return compact_(model) if compact else model
