"""Sparse training: attach a method to a model, in any training loop.

    attached = methods.attach(model, "dst", total_steps=…, steps_per_epoch=…, alpha=5e-4)
    optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9)
    attached.bind(optimizer)
    …
    loss = F.cross_entropy(model(x), y) + attached.penalty()
    loss.backward()
    attached.step()

The names, arguments and meanings in this file are fixed: other people's loops call them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from methods.density_search import DensityKnob, DensityMatch, match_density
from methods.registry import available, create, describe, register

if TYPE_CHECKING:
    from methods import conformance
    from methods.attachment import Attachment, attach
    from methods.base import Context, Method, Phase
    from methods.compaction.load import load_compact
    from methods.layers import register_layer
    from methods.weights.coverage import Coverage
    from methods.weights.finalization import finalize

__all__ = [
    "Attachment",
    "Context",
    "Coverage",
    "DensityKnob",
    "DensityMatch",
    "Method",
    "Phase",
    "attach",
    "available",
    "conformance",
    "create",
    "describe",
    "finalize",
    "load_compact",
    "match_density",
    "register",
    "register_layer",
]
_HOMES = {
    **dict.fromkeys(("Attachment", "attach"), "methods.attachment"),
    **dict.fromkeys(("Context", "Method", "Phase"), "methods.base"),
    "Coverage": "methods.weights.coverage",
    "finalize": "methods.weights.finalization",
    "load_compact": "methods.compaction.load",
    "register_layer": "methods.layers",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used: listing names does not need it."""
    if name == "conformance":
        return importlib.import_module("methods.conformance")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'methods' has no attribute '{name}'")


def __dir__() -> list[str]:
    """What is imported when it is first used is listed too."""
    return sorted({*globals(), *__all__})
