"""Models from outside the package: registered, made with the options they have, refused by name."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark import models
from benchmark.spec import Model, SpecError


class Small(nn.Sequential):
    """One hidden layer.

    More.
    """

    def __init__(self, in_shape: tuple[int, ...], classes: int, widths: tuple[int, ...] = (4,)) -> None:
        super().__init__(nn.Flatten(), nn.Linear(in_shape[1] * in_shape[2], widths[0]), nn.Linear(widths[0], classes))


class Carrying(Small):
    """Evaluated in the training's batches only."""

    carries = True

    def __init__(self, in_shape: tuple[int, ...], classes: int, batch_size: int | None = None) -> None:
        super().__init__(in_shape, classes)
        self.batch_size, self.starts = batch_size, 0

    def start_epoch(self) -> None:
        self.starts += 1

    def forward(self, images: Tensor) -> Tensor:
        assert len(images) == self.batch_size
        return super().forward(images)


def wide(in_shape: tuple[int, ...], classes: int) -> nn.Module:
    return Small(in_shape, classes + 1)


def double(in_shape: tuple[int, ...], classes: int) -> nn.Module:
    return Small(in_shape, classes).double()


@pytest.fixture(autouse=True)
def theirs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = types.ModuleType("their_models")
    members: dict[str, Any] = {"Small": Small, "Carrying": Carrying, "wide": wide, "double": double, "five": 5}
    vars(module).update(members, nothing=lambda in_shape, classes: None)
    monkeypatch.setitem(sys.modules, "their_models", module)
    with models.plug_ins.temporary():
        for name in ("Small", "Carrying", "wide", "double", "nothing", "five", "missing"):
            models.register(name.lower(), f"their_models:{name}")
        yield


def create(name: str, **options: Any) -> nn.Module:
    batch_size = options.pop("batch_size", None)
    return models.create(Model(name=name, **options), in_shape=(1, 2, 3), classes=3, seed=1, batch_size=batch_size)


def test_a_registered_model_is_listed_and_made_with_the_weights_of_its_seed() -> None:
    assert {"small", "lenet-300-100"} <= set(models.available())
    assert models.describe()["small"] == "One hidden layer."
    torch.manual_seed(3)
    first, before = create("small"), torch.random.get_rng_state()
    torch.rand(5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), create("small").parameters(), strict=True))
    torch.random.set_rng_state(before)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.training


def test_an_option_reaches_a_model_that_has_it_and_is_refused_by_one_without() -> None:
    assert create("small", widths=(7,))[1].out_features == 7  # type: ignore[index]
    with pytest.raises(SpecError, match=r"model\.initialization is 'mine': 'small' has no such option"):
        create("small", initialization="mine")


def test_a_model_that_carries_state_is_tried_with_the_batch_of_the_training() -> None:
    made = create("carrying", batch_size=5)
    assert (made.batch_size, made.starts) == (5, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "wide",
            r"model 'wide': its output for inputs \[2, 1, 2, 3\] is torch.float32 \[2, 4\], not torch.float32 \[2, 3",
        ),
        ("double", "dtype"),
        ("nothing", r"model 'nothing' made NoneType, no torch.nn.Module"),
        ("five", r"model 'five' is int, no class or function that makes a model"),
        ("missing", r"model 'missing' cannot be loaded from their_models:missing: .*no attribute 'missing'"),
    ],
)
def test_what_is_no_such_model_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message) as caught:
        create(name)
    assert not isinstance(caught.value, SpecError)  # it fails the cell


def test_a_name_of_the_package_cannot_be_registered() -> None:
    with pytest.raises(ValueError, match=r"model 'vgg16' is benchmark\.models\.vgg:VGG16 already"):
        models.register("vgg16", "their_models:Small")
    with pytest.raises(SpecError, match="unknown model 'smal': did you mean 'small'"):
        create("smal")
