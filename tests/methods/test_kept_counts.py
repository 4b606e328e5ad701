"""`kept_counts`: the number of weights that each layer keeps as of the last step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from kernel_paths import use_kernels
from torch import nn

import methods
from methods.thresholds import SHAPES

MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(30, 20),
    "convolution": lambda: nn.Conv2d(3, 8, 3),
    "convolution, channels last": lambda: nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last),
    "lstm": lambda: nn.LSTM(6, 5),
    "cell": lambda: nn.GRUCell(6, 5),
    "two layers": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)),
}


@pytest.fixture(autouse=True, params=["eager", "cpp"])
def _path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels(request.param, monkeypatch)


def after_a_step(model: nn.Module, shape: str = "vector") -> methods.Attachment:
    """DST with thresholds that prune some weights of every layer, after one step."""
    attached = methods.attach(model, "dst", total_steps=10, steps_per_epoch=10, threshold=shape)
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.0))
    for name, parameter in model.named_parameters():
        if name.endswith("_threshold"):
            nn.init.constant_(parameter, 0.05)
    attached.step()
    return attached


def true_counts(attached: methods.Attachment) -> list[int]:
    return [int(mask.sum()) for mask in attached.masks().values()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODELS)
def test_a_step_counts_what_every_layer_keeps(name: str, shape: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    attached = after_a_step(MODELS[name]().to(dtype), shape)
    counts, masks = attached.kept_counts(), attached.masks().values()
    assert counts.dtype == torch.int64
    assert counts.tolist() == true_counts(attached)
    assert 0 < int(counts.sum()) < sum(mask.numel() for mask in masks)


def test_weights_of_another_type_are_counted_too() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    attached = after_a_step(model)
    model.bfloat16()
    attached.step()
    assert attached.kept_counts().tolist() == true_counts(attached)


def test_values_that_are_written_after_a_step_do_not_change_its_counts() -> None:
    model = nn.Linear(30, 20)
    attached = after_a_step(model)
    want = true_counts(attached)
    with torch.no_grad():
        dict(model.named_parameters())["weight"].mul_(0.1)  # an average of the weights, say
    model(torch.ones(1, 30))
    assert attached.kept_counts().tolist() == want != true_counts(attached)


def test_counts_that_were_handed_out_stay_as_they_are() -> None:
    model = nn.Linear(30, 20)
    attached = after_a_step(model)
    counts = attached.kept_counts()
    want = counts.tolist()
    with torch.no_grad():
        dict(model.named_parameters())["weight"].mul_(0.1)
    attached.step()
    assert counts.tolist() == want != attached.kept_counts().tolist()


def test_a_layer_that_is_reset_keeps_all_its_weights() -> None:
    model = nn.Linear(30, 20)
    attached = after_a_step(model)
    parameters = dict(model.named_parameters())
    nn.init.constant_(parameters["weight_threshold"], 9.0)
    with torch.no_grad():
        parameters["weight"][0] = 0
    attached.step()
    assert attached.threshold_resets().item() == 1
    assert attached.kept_counts().tolist() == [600]


@pytest.mark.parametrize("threads", [1, 2])
def test_every_thread_counts(threads: int) -> None:
    torch.manual_seed(0)
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(threads)
        attached = after_a_step(nn.Linear(784, 300))
        assert attached.kept_counts().tolist() == true_counts(attached)


def test_a_resumed_training_has_the_counts_that_were_saved() -> None:
    attached = after_a_step(nn.Linear(30, 20))
    other = methods.attach(nn.Linear(30, 20), "dst", total_steps=10, steps_per_epoch=10)
    other.load_state_dict(attached.state_dict())
    assert other.kept_counts().tolist() == true_counts(attached)
