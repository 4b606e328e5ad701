"""Sparse training: a method attached to a model, in any training loop.

    attached = methods.attach(model, "dst", total_steps=…, steps_per_epoch=…, alpha=5e-4)
    optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9)
    attached.bind(optimizer)
    …
    loss = F.cross_entropy(model(x), y) + attached.penalty()
    loss.backward()
    attached.step()

Names, arguments and meanings here are fixed: other people's loops call them.
"""

from methods import conformance
from methods.attachment import Attachment, attach, finalize
from methods.base import Context, Method, Phase
from methods.registry import available, create, describe, register

__all__ = [
    "Attachment",
    "Context",
    "Method",
    "Phase",
    "attach",
    "available",
    "conformance",
    "create",
    "describe",
    "finalize",
    "register",
]
