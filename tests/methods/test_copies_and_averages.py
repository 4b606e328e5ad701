"""Copies and averages of an attached model have its masks, or those that they were copied with."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
import torch
from attached_model import Block, attach, backward, sgd, write_by_copy, write_by_data_assigned, zeros_where_pruned
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import methods


def test_an_average_follows_the_masks_and_a_snapshot_keeps_its_own() -> None:
    torch.manual_seed(0)
    model = Block()
    attached = attach(model, "set", density=0.3)
    sgd(attached)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    snapshot, first = copy.deepcopy(model), attached.masks()
    for _ in range(5):  # the masks change at steps 2 and 4
        backward(model, attached)
        attached.step()
        average.update_parameters(model)
    assert any(not torch.equal(mask, first[name]) for name, mask in attached.masks().items())
    x = torch.randn(4, 6)
    average.eval()(x)
    snapshot.eval()(x)
    for name, mask in attached.masks().items():
        assert not average.module.get_parameter(name)[~mask].any()
        assert torch.equal(snapshot.get_parameter(name) != 0, first[name])


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("acdc", {"warm_up": 0.5}),
        ("narang", {"update_every": 2}),
        ("prune_finetune", {}),
        ("dns", {"pretraining": 1.0}),
    ],
)
def test_an_average_that_began_dense_follows_masks_that_come_later(method: str, values: dict[str, float]) -> None:
    torch.manual_seed(0)
    model = Block()
    attached = attach(model, method, total_steps=4, **values)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    teacher, dense = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    assert attached.density() == 1
    for _ in range(attached.total_steps):
        sgd(attached)
        backward(model, attached)
        attached.step()
        average.update_parameters(model)
    assert attached.density() < 1
    x = torch.randn(4, 6)
    computed = average.eval()(x)
    teacher.eval()(x)
    methods.finalize(average)
    torch.testing.assert_close(average(x), computed)
    for name, mask in attached.masks().items():
        assert not average.module.get_parameter(name)[~mask].any()
        assert torch.equal(methods.finalize(teacher).get_parameter(name), dense[name])  # nobody wrote to it


def test_finalize_gives_a_snapshot_the_masks_that_it_was_copied_with() -> None:
    torch.manual_seed(0)
    model = Block()
    attached = attach(model, "set", density=0.3)
    sgd(attached)
    snapshot, first = copy.deepcopy(model), attached.masks()
    for _ in range(5):
        backward(model, attached)
        attached.step()
    assert any(not torch.equal(mask, first[name]) for name, mask in attached.masks().items())
    methods.finalize(snapshot)
    for name, mask in first.items():
        assert torch.equal(snapshot.get_parameter(name) != 0, mask)


@pytest.mark.parametrize("method", ["set", "top_kast", "acdc"])  # acdc: dense when the state is loaded
def test_a_copy_keeps_the_masks_of_the_state_that_it_loaded(method: str) -> None:
    torch.manual_seed(0)
    model = Block()
    values = {"warm_up": 0.5} if method == "acdc" else {"update_every": 1}
    attached = attach(model, method, density=0.3, total_steps=8, **values)
    sgd(attached)
    best = copy.deepcopy(model)
    for step in range(4):
        backward(model, attached)
        attached.step()
        if step == 2:
            best.load_state_dict(model.state_dict())
            kept, computed = attached.masks(), copy.deepcopy(best).eval()(torch.ones(4, 6))
    assert any(not torch.equal(mask, kept[name]) for name, mask in attached.masks().items())
    for parameter in best.parameters():
        parameter.data = parameter.data.clone()  # as `to` another device does
    assert torch.equal(methods.finalize(best).eval()(torch.ones(4, 6)), computed)


@pytest.mark.parametrize("method", ["set", "top_kast"])
def test_a_copy_whose_data_are_replaced_follows_the_masks_and_a_copy_that_moves_does_not(
    method: str,
) -> None:
    torch.manual_seed(0)
    model = Block()
    attached = attach(model, method, density=0.3, update_every=1)
    sgd(attached, lr=1.0)
    average, moved = copy.deepcopy(model), copy.deepcopy(model)
    moved_to_half, first = copy.deepcopy(model).to(torch.bfloat16), attached.masks()
    x = torch.randn(4, 6)
    average(x)
    for _ in range(3):
        backward(model, attached)
        attached.step()
        for mine, other in zip(average.parameters(), model.parameters(), strict=True):
            mine.data = 0.9 * mine.data + 0.1 * other.data
    for parameter in moved.parameters():
        parameter.data = parameter.data.clone()  # as `to` another device does
    for other, masks in ((average, attached.masks()), (moved, first), (moved_to_half, first)):
        dtype = next(other.parameters()).dtype
        got = other.eval()(x.to(dtype))
        assert torch.equal(got, methods.finalize(copy.deepcopy(other))(x.to(dtype)))
        methods.finalize(other)
        for name, mask in masks.items():
            assert not other.get_parameter(name)[~mask].any()
    assert any(not torch.equal(mask, first[name]) for name, mask in attached.masks().items())
    assert all(torch.equal(moved.get_parameter(name) != 0, mask) for name, mask in first.items())


def test_a_copy_of_a_model_whose_data_were_replaced_is_sparse() -> None:
    model = Block()
    attached = attach(model, density=0.3)
    write_by_data_assigned(model)
    copied = copy.deepcopy(model).eval()
    copied(torch.randn(4, 6))
    assert zeros_where_pruned(copied, attached)


def average_through_data(average: nn.Module, model: nn.Module) -> None:
    for mine, other in zip(average.parameters(), model.parameters(), strict=True):
        mine.data.mul_(0.9).add_(other.data, alpha=0.1)


@pytest.mark.parametrize("ending", ["model finalized first", "model dropped", "written through data"])
@pytest.mark.parametrize("method", ["gradual", "set", "rigl"])
def test_finalize_gives_an_average_the_last_masks_whichever_model_ends_first(method: str, ending: str) -> None:
    torch.manual_seed(0)
    model = Block()
    attached = attach(model, method, density=0.3, update_every=1, total_steps=6)
    sgd(attached)
    average, snapshot = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)), copy.deepcopy(model)
    first = attached.masks()
    for _ in range(6):
        backward(model, attached)
        attached.step()
        average_through_data(average, model) if "data" in ending else average.update_parameters(model)
    last = attached.masks()
    assert any(not torch.equal(mask, first[name]) for name, mask in last.items())
    if "first" in ending:
        methods.finalize(model)
    elif "dropped" in ending:
        del model, attached
        gc.collect()
    methods.finalize(average)
    methods.finalize(snapshot)
    for name, mask in last.items():
        assert not average.module.get_parameter(name)[~mask].any()
        assert torch.equal(snapshot.get_parameter(name) != 0, first[name])  # nobody wrote to it


def test_a_snapshot_that_moves_to_another_type_keeps_its_masks() -> None:
    torch.manual_seed(0)
    model = Block()
    attached = attach(model, "gradual", density=0.3, update_every=1)
    sgd(attached)
    snapshot = copy.deepcopy(model).to(torch.bfloat16)
    for _ in range(3):
        backward(model, attached)
        attached.step()
    methods.finalize(snapshot)
    assert attached.density() < 1
    assert all(parameter.all() for name, parameter in snapshot.named_parameters() if name in attached.masks())


def test_an_earlier_state_without_masks_makes_the_model_dense_again() -> None:
    torch.manual_seed(0)
    model = Block()
    attached = attach(model, "acdc", total_steps=4, warm_up=0.25, density=0.3)
    sgd(attached)
    states = attached.state_dict(), copy.deepcopy(model.state_dict())
    backward(model, attached)
    attached.step()
    assert attached.density() < 1
    attached.load_state_dict(states[0])
    model.load_state_dict(states[1])
    model(torch.randn(4, 6))
    assert attached.density() == 1
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, states[1][name])


@pytest.mark.parametrize("first", ["average", "attachment"])
@pytest.mark.parametrize("method", ["set", "top_kast"])
def test_a_resumed_average_has_all_its_weights_whichever_state_is_loaded_first(method: str, first: str) -> None:
    def build() -> tuple[Block, methods.Attachment, AveragedModel]:
        torch.manual_seed(0)
        model = Block()
        attached = attach(model, method, density=0.3, update_every=1, total_steps=8)
        return model, attached, AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))

    model, attached, average = build()
    sgd(attached)
    for _ in range(4):
        backward(model, attached)
        attached.step()
        average.update_parameters(model)
    computed, (resumed, again, other) = average.eval()(torch.ones(4, 6)), build()
    pairs = [(again, attached), (resumed, model)]
    for mine, saved in [(other, average), *pairs] if first == "average" else [*pairs, (other, average)]:
        mine.load_state_dict(saved.state_dict())
    assert torch.equal(other.eval()(torch.ones(4, 6)), computed)


def test_apply_masks_takes_wrapped_plain_and_attached_copies() -> None:
    model = Block()
    attached = attach(model, density=0.3)
    plain = Block()
    for other in (plain, copy.deepcopy(model), AveragedModel(plain), nn.DataParallel(Block())):
        write_by_copy(other)
        attached.apply_masks(other)
        inner = other if isinstance(other, Block) else other.module
        assert zeros_where_pruned(inner, attached)
    with pytest.raises(
        ValueError, match=r"the model has no features\.0\.weight, .*: it is no copy of the attached one"
    ):
        attached.apply_masks(nn.Linear(6, 8))


def test_thresholds_of_a_copy_prune_by_themselves() -> None:
    model = Block()
    attached = attach(model, "dst")
    copied = copy.deepcopy(model)
    write_by_copy(copied)
    attached.apply_masks(copied)
    assert all((p == 0.5).all() for p in copied.parameters())


@pytest.mark.parametrize("method", ["dense", "static", "dst"])
def test_copies_and_pickles_carry_the_method(method: str) -> None:
    model = Block()
    attach(model, method)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(ValueError, match="a method is attached"):
            attach(copied)
        methods.finalize(copied)
        attach(copied)
    with pytest.raises(ValueError, match="a method is attached"):
        attach(model)


def test_masks_are_no_part_of_the_state() -> None:
    model = Block()
    keys = list(model.state_dict())
    attach(model)
    assert list(model.state_dict()) == keys


def test_a_model_and_its_attachment_that_are_copied_together_go_their_own_way() -> None:
    torch.manual_seed(0)
    model = Block()
    attached = attach(model, "set", density=0.3, total_steps=20)
    sgd(attached)
    other, other_attached = copy.deepcopy((model, attached))
    sgd(other_attached)
    for one, its, steps in ((model, attached, 6), (other, other_attached, 3)):
        for _ in range(steps):
            backward(one, its)
            its.step()
    masks = other_attached.masks()
    write_by_copy(other)
    other(torch.randn(4, 6))
    assert all(torch.equal(mask, masks[name]) for name, mask in other_attached.masks().items())
    assert zeros_where_pruned(other, other_attached)


def test_a_state_loaded_into_a_copied_pair_is_its_own() -> None:
    torch.manual_seed(0)
    model = Block()
    attached = attach(model, "set", density=0.3, total_steps=20)
    sgd(attached)
    other, other_attached = copy.deepcopy((model, attached))
    states = copy.deepcopy((attached.state_dict(), model.state_dict()))
    for _ in range(5):
        backward(model, attached)
        attached.step()
    other_attached.load_state_dict(states[0])
    other.load_state_dict(states[1])
    assert all(torch.equal(mask, states[0]["masks"][name]) for name, mask in other_attached.masks().items())
    assert all(torch.equal(value, states[1][name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("call", ["forward", "finalize"])
def test_a_copy_made_in_inference_mode_is_masked(call: str) -> None:
    model = Block().eval()
    attached = attach(model, density=0.3)
    with torch.inference_mode():
        clone = copy.deepcopy(model)
        write_by_copy(clone)
        clone(torch.randn(4, 6)) if call == "forward" else methods.finalize(clone)
        assert zeros_where_pruned(clone, attached)
