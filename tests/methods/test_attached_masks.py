"""Masks and saved states of an attached method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attached_model import Block, attach, backward, ones, sgd
from torch import Tensor

import methods
from methods.registry import method_class


def test_masks_are_bool_copies_by_the_parameters_original_names() -> None:
    model = Block()
    attached = attach(model, density=0.5)
    masks = attached.masks()
    assert all(mask.dtype == torch.bool and mask.shape == model.get_parameter(n).shape for n, mask in masks.items())
    masks["head.weight"].fill_(True)
    assert not attached.masks()["head.weight"].all()


def test_dense_masks_are_all_true() -> None:
    attached = attach(Block(), "dense")
    assert all(mask.all() for mask in attached.masks().values())
    assert attached.density() == 1
    assert attached.kept_counts().tolist() == [48, 64, 24]


def test_set_masks_starts_from_known_masks_and_the_models_own_values() -> None:
    torch.manual_seed(0)
    model = Block()
    first = {name: p.detach().clone() for name, p in model.named_parameters()}
    attached = attach(model, density=0.1)
    known = {name: torch.rand_like(p) < 0.6 for name, p in first.items() if name in attached.masks()}
    attached.set_masks(known)
    assert all(torch.equal(mask, known[name]) for name, mask in attached.masks().items())
    assert attached.kept_counts().tolist() == [int(mask.sum()) for mask in known.values()]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, first[name] * known[name] if name in known else first[name])
    sgd(attached)
    backward(model, attached)
    attached.step()
    assert all(torch.equal(model.get_parameter(name) != 0, mask) for name, mask in known.items())


def test_set_masks_keeps_values_that_were_loaded_after_attach() -> None:
    model = Block()
    attached = attach(model, density=0.1)
    loaded = {name: torch.full_like(value, 7) for name, value in model.state_dict().items()}
    model.load_state_dict(loaded)
    attached.set_masks({"head.weight": ones(3, 8)})
    assert (model.head.weight == 7).all()


def test_set_masks_after_a_step_grows_from_zero() -> None:
    model = Block()
    attached = attach(model, density=0.1)
    sgd(attached)
    backward(model, attached)
    attached.step()
    before = attached.masks()["head.weight"]
    attached.set_masks({"head.weight": ones(3, 8)})
    assert not model.head.weight[~before].any()


def test_set_masks_leaves_weights_that_are_not_named() -> None:
    attached = attach(Block(), density=0.5)
    before = attached.masks()
    attached.set_masks({"head.weight": torch.zeros(3, 8, dtype=torch.bool)})
    after = attached.masks()
    assert not after.pop("head.weight").any()
    assert all(torch.equal(mask, before[name]) for name, mask in after.items())


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"head.bias": ones(3)}, r"no maskable weight 'head\.bias'; valid: features\.0\.weight"),
        ({"head.weight": ones(8, 3)}, r"mask of head\.weight is torch\.bool \[8, 3\], not torch\.bool \[3, 8\]"),
        ({"head.weight": torch.ones(3, 8)}, r"mask of head\.weight is torch\.float32 \[3, 8\], not torch\.bool"),
    ],
)
def test_bad_masks_are_refused_and_change_nothing(mask: dict[str, Tensor], message: str) -> None:
    attached = attach(Block(), density=0.5)
    before = attached.masks()
    with pytest.raises(ValueError, match=message):
        attached.set_masks({"features.0.weight": torch.zeros(8, 6, dtype=torch.bool)} | mask)
    assert all(torch.equal(now, before[name]) for name, now in attached.masks().items())


@pytest.mark.parametrize("method", ["dense", "dst"])
def test_methods_without_masks_of_their_own_refuse_them(method: str) -> None:
    with pytest.raises(ValueError, match=f"{method} has no masks of its own to set"):
        attach(Block(), method).set_masks({"head.weight": ones(3, 8)})


def test_thresholds_are_empty_where_a_method_has_none() -> None:
    assert attach(Block(), "set").thresholds() == {}


# ---- states


def test_a_state_of_another_method_or_version_is_refused() -> None:
    state = attach(Block(), "static").state_dict()
    with pytest.raises(ValueError, match="the state is of static 1, not set 1"):
        attach(Block(), "set").load_state_dict(state)
    with pytest.raises(ValueError, match="the state is of static 7, not static 1"):
        attach(Block(), "static").load_state_dict(state | {"version": 7})


def test_a_dictionary_that_is_no_state_is_refused_and_changes_nothing() -> None:
    model = Block()
    attached = attach(model, density=0.5)
    before = attached.masks()
    with pytest.raises(ValueError, match=r"no state of an attachment, which has method, version, .*own too"):
        attached.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match=r"no state of an attachment, which has own too"):
        attached.load_state_dict({key: value for key, value in attached.state_dict().items() if key != "own"})
    assert all(torch.equal(mask, before[name]) for name, mask in attached.masks().items())


def test_a_state_saved_with_other_hyperparameters_is_refused_by_name() -> None:
    state = attach(Block(), "dst").state_dict()
    with pytest.raises(ValueError, match=r"other hyperparameters: threshold 'vector' -> 'scalar'"):
        attach(Block(), "dst", threshold="scalar").load_state_dict(state)


@pytest.mark.parametrize("method", ["static", "dst"])
@pytest.mark.parametrize(
    ("saved", "resumed", "message"),
    [
        ({"exclude": ["head"]}, {}, r"head\.weight None -> 'maskable'$"),
        ({}, {"exclude": ["head"]}, r"head\.weight 'maskable' -> None$"),
        ({"total_steps": 6}, {"total_steps": 12}, r"total_steps 6 -> 12$"),
        ({"steps_per_epoch": 2}, {"steps_per_epoch": 3}, r"steps_per_epoch 2 -> 3$"),
    ],
)
def test_a_state_of_a_model_attached_otherwise_is_refused_by_name(
    method: str, saved: dict[str, Any], resumed: dict[str, Any], message: str
) -> None:
    state = attach(Block(), method, **saved).state_dict()
    attached = attach(Block(), method, **resumed)
    before = attached.state_dict()["masks"]
    with pytest.raises(ValueError, match=rf"attach as before: the state was saved with other .*: {message}"):
        attached.load_state_dict(state)
    assert all(torch.equal(mask, before[name]) for name, mask in attached.state_dict()["masks"].items())


def test_the_steps_of_all_phases_count() -> None:
    state = attach(Block(), "dns", total_steps=4).state_dict()
    with pytest.raises(ValueError, match=r"total_steps 8 -> 16$"):
        attach(Block(), "dns", total_steps=8).load_state_dict(state)


def test_a_state_from_before_these_were_saved_still_loads() -> None:
    state = attach(Block(), density=0.5).state_dict()
    del state["attach"]
    resumed = attach(Block(), density=0.5, total_steps=12, seed=1)
    resumed.load_state_dict(state)
    assert all(torch.equal(mask, state["masks"][name]) for name, mask in resumed.masks().items())
    with pytest.raises(ValueError, match=r"saved masks of head\.weight, which are no maskable weights here"):
        attach(Block(), density=0.5, exclude=["head"]).load_state_dict(state)


@pytest.mark.parametrize("name", methods.available())
def test_a_layer_that_is_frozen_after_attach_keeps_its_mask_and_weights(name: str) -> None:
    torch.manual_seed(0)
    kind = method_class(name)
    values = {"update_every": 1} | ({"density": 0.4} if kind.granularity == "weight" else {})
    options = {key: value for key, value in values.items() if key in kind.hyperparameter_names()}
    model = Block()
    attached = attach(model, name, total_steps=20, **options)
    sgd(attached)
    backward(model, attached)
    attached.step()
    model.features[0].requires_grad_(False)
    masks, weight = attached.masks(), attached.weights()["features.0.weight"].detach().clone()
    for _ in range(attached.total_steps - 1):
        backward(model, attached)
        if attached.step() and attached.phase.new_optimizer:
            sgd(attached)
    assert torch.equal(attached.masks()["features.0.weight"], masks["features.0.weight"])
    assert torch.equal(attached.weights()["features.0.weight"], weight)


def test_set_masks_reaches_a_frozen_layer() -> None:
    model = Block()
    attached = attach(model, density=0.5)
    model.requires_grad_(False)
    attached.set_masks({"head.weight": ones(3, 8)})
    assert attached.masks()["head.weight"].all()
