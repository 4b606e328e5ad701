"""torchvision can be imported beside a CPU build of torch, and torch is left as it was."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.library

from benchmark.data.torchvision_import import import_torchvision, missing_operators_skipped


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operators that reach torch's own register_fake."""
    names: list[str] = []

    def register_fake(op: str) -> Callable[[Any], Any]:
        names.append(op)
        return lambda function: function

    monkeypatch.setattr(torch.library, "register_fake", register_fake)
    return names


@pytest.fixture
def existing_operator() -> Iterator[str]:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("bench_exists(Tensor x) -> Tensor")
    yield "torchvision::bench_exists"
    library._destroy()


@pytest.mark.parametrize(
    "before",
    ["", "try:\n    import torchvision\nexcept RuntimeError:\n    pass\n"],
    ids=["at once", "after a failed import"],
)
def test_torchvision_imports_in_a_fresh_process(before: str) -> None:
    code = before + (
        "import torch.library\n"
        "from benchmark.data.torchvision_import import import_torchvision\n"
        "original = torch.library.register_fake\n"
        "vision = import_torchvision()\n"
        "assert torch.library.register_fake is original\n"
        "print(vision.transforms.RandomCrop(4).size, vision.datasets.MNIST.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "(4, 4) MNIST\n"), done.stderr


def test_a_second_import_is_the_same_module() -> None:
    assert import_torchvision() is import_torchvision() is sys.modules["torchvision"]


def test_missing_torchvision_operators_are_skipped(registered: list[str]) -> None:
    def shape() -> None: ...

    with missing_operators_skipped():
        assert torch.library.register_fake("torchvision::bench_missing")(shape) is shape
        assert torch.library.register_fake("torchvision::bench_missing.out")(shape) is shape
    assert registered == []


def test_existing_operators_are_registered_as_ever(registered: list[str], existing_operator: str) -> None:
    with missing_operators_skipped():
        torch.library.register_fake(existing_operator)
    assert registered == [existing_operator]


def test_missing_operators_of_others_are_not_hidden(registered: list[str]) -> None:
    with missing_operators_skipped():
        torch.library.register_fake("elsewhere::bench_missing")
    assert registered == ["elsewhere::bench_missing"]


def test_a_failing_import_leaves_torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(name)

    original = torch.library.register_fake
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ImportError, match="torchvision"):
        import_torchvision()
    assert torch.library.register_fake is original
