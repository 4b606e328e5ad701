"""A training that ends early, or never calls the method, does not end in silence."""

from __future__ import annotations

import copy
import warnings

import pytest
from attached_model import Block, attach, backward, sgd

import methods


def _train(method: str, *, steps: int, **options: object) -> Block:
    model = Block()
    attached = attach(model, method, total_steps=12, **options)
    sgd(attached)
    for _ in range(steps):
        backward(model, attached)
        attached.step()
    methods.finalize(copy.deepcopy(model))  # a look on the way is no end
    methods.finalize(model)
    return model


@pytest.mark.parametrize("method", ["gradual", "lottery", "prune_finetune"])
def test_a_training_that_ends_before_its_density_warns(method: str) -> None:
    with pytest.warns(UserWarning, match=rf"ended after 2 of [\d]+ steps: {method} keeps \d+\.\d% .*, and 30\.0%"):
        _train(method, steps=2, density=0.3)


@pytest.mark.parametrize(("method", "steps"), [("gradual", 12), ("set", 2), ("dst", 2), ("dense", 2)])
def test_a_density_that_is_reached_or_not_promised_does_not(method: str, steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _train(method, steps=steps, **({} if method in ("dst", "dense") else {"density": 0.3}))


@pytest.mark.parametrize("method", ["set", "dst", "gradual"])
def test_a_loop_that_steps_the_optimizer_itself_warns(method: str) -> None:
    model = Block()
    attached = attach(model, method)
    optimizer = sgd(attached)
    for _ in range(3):
        backward(model, attached)
        optimizer.step()
    with pytest.warns(UserWarning, match=rf"attached.step\(\) was never called, so {method} did nothing"):
        methods.finalize(model)


def test_a_model_of_which_a_layer_is_gone_can_be_finalized() -> None:
    model = Block()
    attached = attach(model, "set", density=0.5)
    sgd(attached)
    backward(model, attached)
    attached.step()
    model.head = None  # type: ignore[assignment]
    methods.finalize(model)


def test_a_density_that_frozen_layers_keep_from_being_reached_warns() -> None:
    model = Block()
    attached = attach(model, "gradual", total_steps=12, density=0.1)
    sgd(attached)
    model.features.requires_grad_(False)
    for _ in range(12):
        backward(model, attached)
        attached.step()
    with pytest.warns(UserWarning, match=r"gradual keeps \d+\.\d% .* at the end, and not 10\.0%: layers .* frozen"):
        methods.finalize(model)
