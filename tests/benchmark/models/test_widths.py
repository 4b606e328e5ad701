"""Narrower twins of the models: `Model.widths`, and the identity that it leaves alone."""

from __future__ import annotations

import pytest
import torch

from benchmark import models
from benchmark.models.vgg import WIDTHS
from benchmark.spec import Model, Optimizer, SpecError, from_dict
from benchmark.suites import cell, digits

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
OWN = {"lenet-300-100": (300, 100), "lenet-5-caffe": (20, 50, 500), "vgg16": WIDTHS}


def made(name: str, widths: tuple[int, ...] | None) -> torch.nn.Module:
    shape = CIFAR if name == "vgg16" else MNIST
    return models.create(Model(name=name, widths=widths), in_shape=shape, classes=10, seed=0)


@pytest.mark.parametrize(
    ("name", "widths", "shapes"),
    [
        ("lenet-300-100", (18, 24), [(18, 784), (24, 18), (10, 24)]),
        ("lenet-5-caffe", (3, 4, 5), [(3, 1, 5, 5), (4, 3, 5, 5), (5, 64), (10, 5)]),
        ("vgg16", tuple(range(1, 15)), [(1, 3, 3, 3), *((i + 1, i, 3, 3) for i in range(1, 13)), (14, 13), (10, 14)]),
    ],
)
def test_widths_are_those_of_the_hidden_layers(
    name: str, widths: tuple[int, ...], shapes: list[tuple[int, ...]]
) -> None:
    model = made(name, widths)
    weights = [tuple(p.shape) for key, p in model.named_parameters() if key.endswith("weight") and "norm" not in key]
    assert weights == shapes
    pixels = torch.zeros(2, *(CIFAR if name == "vgg16" else MNIST))
    assert model(pixels).shape == (2, 10)


@pytest.mark.parametrize("name", OWN)
def test_the_architectures_own_widths_are_the_same_network(name: str) -> None:
    plain, given = made(name, None).state_dict(), made(name, OWN[name]).state_dict()
    assert all(torch.equal(plain[key], given[key]) for key in plain)


def test_widths_make_another_cell_and_none_leaves_the_identity_as_it_was() -> None:
    def run(model: Model) -> str:
        return cell("dense", data=digits.DIGITS, model=model, optimizer=Optimizer()).canonical_json

    narrow = cell("dense", data=digits.DIGITS, model=Model(name="lenet-300-100", widths=(6, 5)), optimizer=Optimizer())
    assert "widths" not in run(Model(name="lenet-300-100"))
    assert '"model":{"name":"lenet-300-100","widths":[6,5]}' in narrow.canonical_json
    assert from_dict(narrow.to_dict()) == narrow
    assert narrow.label == "lenet-300-100 dense widths=6-5 seed=0"


def test_widths_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"model\.widths has 3 numbers: 'lenet-300-100' has 2 hidden layers"):
        made("lenet-300-100", (3, 4, 5))
    with pytest.raises(SpecError, match="unknown option of model 'lstm-a' 'widths'"):
        made("lstm-a", (3,))
    with pytest.raises(
        SpecError, match=r"model.widths is \[3, 0\]: it must hold units of each hidden layer, 1 or more"
    ):
        cell("dense", data=digits.DIGITS, model=Model(name="lenet-300-100", widths=(3, 0)), optimizer=Optimizer())
