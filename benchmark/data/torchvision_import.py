"""torchvision, importable also beside a CPU build of torch.

Its compiled operators want CUDA's libraries. Where those are missing the error is swallowed,
and the import fails later, registering shapes for operators that do not exist: "operator
torchvision::nms does not exist". Data sets and transforms need none of them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
import torch.library

NAMESPACE = "torchvision"


def import_torchvision() -> ModuleType:
    """The torchvision module. Call it in each spawned process, in place of `import torchvision`."""
    if NAMESPACE in sys.modules:
        return sys.modules[NAMESPACE]
    with missing_operators_skipped():
        return importlib.import_module(NAMESPACE)


@contextlib.contextmanager
def missing_operators_skipped() -> Iterator[None]:
    """Inside it `torch.library.register_fake` ignores only torchvision's missing operators."""
    original = torch.library.register_fake

    def register_fake(op: Any, *arguments: Any, **named: Any) -> Any:
        return _unchanged if _is_missing(op) else original(op, *arguments, **named)

    setattr(torch.library, "register_fake", register_fake)  # noqa: B010
    try:
        yield
    finally:
        setattr(torch.library, "register_fake", original)  # noqa: B010


def _is_missing(op: Any) -> bool:
    if not isinstance(op, str) or not op.startswith(f"{NAMESPACE}::"):
        return False
    name = op.removeprefix(f"{NAMESPACE}::").partition(".")[0]
    return not hasattr(getattr(torch.ops, NAMESPACE), name)


def _unchanged(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
