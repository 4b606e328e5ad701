"""my_name makes logits, repeats its weights by seed, and can be pruned. Run it with pytest."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import methods
from benchmark import models, suites
from benchmark.spec import Model

FILE = Path(__file__).with_name("my_name.py")


def make(seed: int = 0) -> nn.Module:
    suites.load_file(FILE)
    return models.create(Model(name="my_name"), in_shape=(1, 28, 28), classes=10, seed=seed)


def test_the_logits_have_a_row_for_each_image_and_a_column_for_each_class() -> None:
    assert make()(torch.rand(3, 1, 28, 28)).shape == (3, 10)


def test_one_seed_gives_the_same_weights() -> None:
    assert all(torch.equal(a, b) for a, b in zip(make().parameters(), make().parameters(), strict=True))


def test_most_of_its_weights_can_be_masked() -> None:
    attached = methods.attach(make(), "static", total_steps=1, steps_per_epoch=1, density=0.5)
    assert attached.coverage().share > 0.9


def test_the_suite_expands_to_cells_of_my_name() -> None:
    found = suites.load(str(FILE))
    assert {spec.model.name for spec in found.specs} == {"my_name"}
