"""What the C++ operators count: the forward pass of a training step does it, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from kernel_paths import use_kernels
from torch import Tensor, nn

import methods
from methods.thresholds import SHAPES, UNCOUNTED

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(30, 20), (4, 30)),
    "linear in blocks": (lambda: nn.Linear(2000, 300), (4, 2000)),
    "linear, more examples than rows of a block": (lambda: nn.Linear(2000, 300), (80, 2000)),
    "convolution": (lambda: nn.Conv2d(3, 8, 3), (2, 3, 6, 6)),
    "convolution, channels last": (lambda: nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last), (2, 3, 6, 6)),
    "lstm": (lambda: nn.LSTM(6, 5), (3, 2, 6)),
    "cell": (lambda: nn.GRUCell(6, 5), (2, 6)),
    "two layers": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), (2, 6)),
}


@pytest.fixture(autouse=True)
def _fused(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernels("cpp", monkeypatch)


def after_a_step(model: nn.Module, shape: str = "vector") -> methods.Attachment:
    """DST with thresholds that prune, and no pass over the weights since its last step."""
    attached = methods.attach(model, "dst", total_steps=10, steps_per_epoch=10, threshold=shape)
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.0))
    for name, parameter in model.named_parameters():
        if name.endswith("_threshold"):
            nn.init.constant_(parameter, 0.01)
    attached.step()
    return attached


def written(attached: methods.Attachment) -> list[int]:
    """The numbers that the operators left, UNCOUNTED where there is none."""
    return attached._context.thresholds._counts[0].tolist()


def true_counts(attached: methods.Attachment) -> list[int]:
    return [int(mask.sum()) for mask in attached.masks().values()]


@pytest.mark.parametrize("precision", ["float32", "float64", "autocast"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODELS)
def test_a_forward_pass_of_training_counts_what_it_keeps(name: str, shape: str, precision: str) -> None:
    make, size = MODELS[name]
    torch.manual_seed(0)
    dtype = torch.float64 if precision == "float64" else torch.float32
    model = make().to(dtype)
    attached = after_a_step(model, shape)
    assert set(written(attached)) == {UNCOUNTED}
    autocast = torch.autocast("cpu", torch.bfloat16) if precision == "autocast" else contextlib.nullcontext()
    with autocast:
        model(torch.randn(size, dtype=dtype))
    want = true_counts(attached)
    assert 0 < sum(want) < sum(mask.numel() for mask in attached.masks().values())
    assert written(attached) == want
    assert attached.kept_counts().tolist() == want


def test_an_evaluation_is_not_counted() -> None:
    model, x = nn.Linear(30, 20), torch.ones(2, 30)
    attached = after_a_step(model)
    parameter = dict(model.named_parameters())["weight"]
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.zero_()  # an average of the weights, say
        model(x)
        parameter.copy_(kept)
    assert written(attached) == [UNCOUNTED]
    assert attached.kept_counts().tolist() == true_counts(attached)


def test_a_part_of_a_layer_is_not_counted() -> None:
    model = nn.Linear(30, 20)
    attached = after_a_step(model)
    first_rows = {name: parameter[:10] for name, parameter in model.named_parameters()}
    assert torch.func.functional_call(model, first_rows, (torch.ones(2, 30),)).shape == (2, 10)
    assert written(attached) == [UNCOUNTED]
    assert attached.kept_counts().tolist() == true_counts(attached)


@pytest.mark.parametrize("layer", [nn.Linear(30, 20), nn.Conv1d(30, 20, 1)], ids=["linear", "convolution"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight", lambda weight: weight * 0),
        ("weight", lambda weight: torch.zeros_like(weight)),
        ("weight", lambda weight: torch.zeros_like(weight, requires_grad=True)),
        ("weight_threshold", lambda threshold: torch.full_like(threshold, 9.0, requires_grad=True)),
    ],
    ids=["computed weights", "other weights", "other weights to be trained", "other thresholds"],
)
def test_what_stands_in_for_a_parameter_is_not_counted(
    layer: nn.Module, name: str, value: Callable[[Tensor], Tensor]
) -> None:
    model, x = copy.deepcopy(layer), torch.ones(2, 30, 1) if isinstance(layer, nn.Conv1d) else torch.ones(2, 30)
    attached = after_a_step(model)
    parameter = dict(model.named_parameters())[name]
    y = torch.func.functional_call(model, {name: value(parameter)}, (x,))
    assert torch.equal(y.squeeze(-1), model.bias.expand(2, 20))
    assert written(attached) == [UNCOUNTED]
    assert attached.kept_counts().tolist() == true_counts(attached)


def test_a_layer_that_took_no_part_is_counted_when_asked_for() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(6, 4))
    attached = after_a_step(model)
    model[1](torch.ones(1, 6))
    want = true_counts(attached)
    assert written(attached) == [UNCOUNTED, want[1]]
    with torch.no_grad():
        dict(model.named_parameters())["1.weight"].zero_()
    assert attached.kept_counts().tolist() == want


def test_weights_of_another_type_are_counted_too() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    for change in (nn.Module.double, nn.Module.bfloat16):
        attached = after_a_step(changed := copy.deepcopy(model))
        change(changed)
        changed(torch.ones(1, 6, dtype=changed[0].bias.dtype))
        assert attached.kept_counts().tolist() == true_counts(attached)


def test_the_first_pass_of_a_step_counts_and_no_later_one() -> None:
    model = nn.Linear(30, 20)
    attached = after_a_step(model)
    model(torch.ones(1, 30))
    want = true_counts(attached)
    with torch.no_grad():
        dict(model.named_parameters())["weight"].mul_(0.1)  # as an optimizer does that looks ahead
    model(torch.ones(1, 30))
    assert attached.kept_counts().tolist() == want != true_counts(attached)


def test_a_copy_counts_for_itself() -> None:
    model = nn.Linear(30, 20)
    attached = after_a_step(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        dict(twin.named_parameters())["weight"].zero_()
    twin(torch.ones(1, 30))
    assert written(attached) == [UNCOUNTED]
    other_model, other = copy.deepcopy((model, attached))
    other_model(torch.ones(1, 30))
    assert other.kept_counts().tolist() == true_counts(attached)
    assert written(attached) == [UNCOUNTED]


def test_a_copy_of_model_and_method_goes_on_counting() -> None:
    model = nn.Linear(30, 20)
    attached = after_a_step(model)
    copied_model, copied = copy.deepcopy((model, attached))
    copied.step()
    copied_model(torch.ones(1, 30))
    assert written(copied) == true_counts(attached)
    other_model, other = pickle.loads(pickle.dumps((model, attached)))
    other.step()
    other_model(torch.ones(1, 30))
    assert written(other) == [UNCOUNTED], "plain pickle separates views: counted when asked for"
    assert other.kept_counts().tolist() == true_counts(attached)


def test_a_resumed_training_goes_on_counting() -> None:
    model = nn.Linear(30, 20)
    attached = after_a_step(model)
    resumed_model = nn.Linear(30, 20)
    resumed = methods.attach(resumed_model, "dst", total_steps=10, steps_per_epoch=10)
    resumed.load_state_dict(attached.state_dict())
    resumed_model.load_state_dict(model.state_dict())
    resumed.bind(torch.optim.SGD(resumed.parameter_groups(), lr=0.0))
    resumed.step()
    resumed_model(torch.ones(1, 30))
    assert written(resumed) == true_counts(attached)


def test_a_method_that_was_attached_before_the_weights_had_data_does_not_break_the_forward_pass() -> None:
    with torch.device("meta"):
        model = nn.Linear(30, 20)
        methods.attach(model, "dst", total_steps=10, steps_per_epoch=10)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    assert torch.equal(model(torch.ones(1, 30)), torch.full((1, 20), 0.5))  # thresholds of 0.5 keep nothing


def test_counts_that_were_handed_out_stay_as_they_are() -> None:
    model = nn.Linear(30, 20)
    attached = after_a_step(model)
    counts = attached.kept_counts()
    want = counts.tolist()
    with torch.no_grad():
        dict(model.named_parameters())["weight"].mul_(0.1)
    attached.step()
    model(torch.ones(1, 30))
    assert counts.tolist() == want != attached.kept_counts().tolist()


def test_a_layer_that_is_reset_keeps_all_its_weights() -> None:
    model = nn.Linear(30, 20)
    attached = after_a_step(model)
    parameters = dict(model.named_parameters())
    nn.init.constant_(parameters["weight_threshold"], 9.0)
    with torch.no_grad():
        parameters["weight"][0] = 0
    attached.step()
    model(torch.ones(1, 30))
    assert attached.threshold_resets().item() == 1
    assert attached.kept_counts().tolist() == [600]


@pytest.mark.parametrize("threads", [1, 2])
def test_every_thread_is_counted(threads: int) -> None:
    before = torch.get_num_threads()
    torch.manual_seed(0)
    try:
        torch.set_num_threads(threads)
        model = nn.Linear(784, 300)
        attached = after_a_step(model)
        asked = attached.kept_counts().tolist()
        attached.step()
        model(torch.ones(1, 784))
        assert written(attached) == asked == true_counts(attached)
    finally:
        torch.set_num_threads(before)


def test_a_resumed_training_has_the_counts_that_were_saved() -> None:
    model = nn.Linear(30, 20)
    attached = after_a_step(model)
    state, want = attached.state_dict(), true_counts(attached)
    other = methods.attach(nn.Linear(30, 20), "dst", total_steps=10, steps_per_epoch=10)
    other.load_state_dict(state)
    assert other.kept_counts().tolist() == want
