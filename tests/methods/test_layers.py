"""Which layers are covered, and what masked layers keep of the plain ones."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import methods
from methods.masked_layers import MaskedWeight


def attach(model: nn.Module, method: str = "dst", **options: Any) -> methods.Attachment:
    return methods.attach(model, method, total_steps=5, steps_per_epoch=5, **options)


def prune_half(model: nn.Module, attached: methods.Attachment) -> None:
    """Set every threshold to the median magnitude of what it prunes."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name in attached.masks():
            parameters[f"{name}_threshold"].fill_(parameters[name].abs().median())


def masked_twin(model: nn.Module) -> tuple[nn.Module, methods.Attachment]:
    """The model with half its weights zeroed, and next to it an attached copy pruned to the same."""
    masked = copy.deepcopy(model)
    attached = attach(masked)
    prune_half(masked, attached)
    for name, mask in attached.masks().items():
        assert 0 < int(mask.sum()) < mask.numel()
        model.get_parameter(name).data.mul_(mask)
    return masked, attached


class Scaled(nn.Linear):
    """A Linear of someone's own, with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * nn.functional.linear(x, self.weight) + (0 if self.bias is None else self.bias)


class InputByOutput(nn.Module):
    """A layer with its output on axis 1, as the Conv1D of GPT-2: [c_in, c_out]."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(c_in, c_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


class CrossAttention(nn.MultiheadAttention):
    """Attention to other features than its own, so that q, k and v have a weight each."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, x[..., :3], x[..., :2])[0]


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, x, x, need_weights=False)[0]


class Product(nn.Bilinear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, x[..., :4])


methods.register_layer(InputByOutput, "w", output_axis=1)


@pytest.mark.parametrize(
    ("model", "want"),
    [
        (nn.Linear(2, 2), ["weight"]),
        (nn.Bilinear(2, 2, 2), ["weight"]),
        (nn.Embedding(3, 2), None),
        (nn.ConvTranspose2d(2, 2, 3), ["weight"]),
        (nn.BatchNorm2d(3), None),
        (nn.LayerNorm(3), None),
        (Scaled(2, 2), ["weight"]),
        (nn.Conv1d(2, 2, 3), ["weight"]),
        (nn.Conv3d(2, 2, 3), ["weight"]),
        (nn.RNN(2, 3), ["weight_ih_l0", "weight_hh_l0"]),
        (nn.LSTM(2, 3, proj_size=2), ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"]),
        (nn.GRU(2, 3, bidirectional=True, bias=False), ["weight_ih_l0", "weight_hh_l0"] * 2),
        (nn.GRUCell(2, 3), ["weight_ih", "weight_hh"]),
        (nn.MultiheadAttention(4, 2), ["in_proj_weight", "out_proj.weight"]),
        (
            nn.MultiheadAttention(4, 2, kdim=3, add_bias_kv=True),
            ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"],
        ),
        (
            nn.TransformerEncoderLayer(4, 2, 8),
            ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"],
        ),
        (InputByOutput(2, 3), ["w"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_weights_of_known_layers_are_covered(model: nn.Module, want: list[str] | None) -> None:
    if want is None:
        with pytest.raises(ValueError, match="nothing to prune"):
            attach(model)
        return
    if isinstance(model, nn.GRU):
        want = want[:2] + [f"{name}_reverse" for name in want[2:]]
    assert list(attach(model).masks()) == want


def tensor_of(output: Any) -> Tensor:
    while isinstance(output, tuple):
        output = output[0]
    assert isinstance(output, Tensor)
    return output


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 4), (3, 6)),
    "linear subclass": (lambda: Scaled(6, 4), (3, 6)),
    "linear without bias": (lambda: nn.Linear(6, 4, bias=False), (3, 6)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding="same"), (2, 4, 5, 5)),
    "rnn": (lambda: nn.RNN(6, 4, nonlinearity="relu"), (5, 2, 6)),
    "lstm": (lambda: nn.LSTM(6, 4), (5, 2, 6)),
    "lstm, deep, bidirectional, projected": (
        lambda: nn.LSTM(6, 4, num_layers=2, bidirectional=True, proj_size=3, batch_first=True),
        (2, 5, 6),
    ),
    "gru without bias": (lambda: nn.GRU(6, 4, bias=False), (5, 2, 6)),
    "lstm cell": (lambda: nn.LSTMCell(6, 4), (2, 6)),
    "transposed conv": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 5)),
    "grouped transposed conv": (lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), (2, 4, 5)),
    "bilinear": (lambda: Product(6, 4, 3), (3, 6)),
    "attention": (lambda: SelfAttention(6, 2, batch_first=True), (2, 5, 6)),
    "attention with q, k and v": (lambda: CrossAttention(6, 2, kdim=3, vdim=2), (5, 2, 6)),
    "output on axis 1": (lambda: InputByOutput(6, 4), (3, 6)),
    "transformer layer": (lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True), (2, 5, 6)),
}


@pytest.fixture(params=MODELS)
def example(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    make, shape = MODELS[request.param]
    torch.manual_seed(0)
    return make(), torch.randn(shape)


def test_a_masked_layer_computes_exactly_what_the_plain_layer_with_zeros_does(
    example: tuple[nn.Module, Tensor],
) -> None:
    plain, x = example
    dense = tensor_of(plain(x))
    masked, _ = masked_twin(plain)
    for mode in (True, False):
        assert torch.equal(tensor_of(masked.train(mode)(x)), tensor_of(plain.train(mode)(x)))
        with torch.no_grad():
            torch.testing.assert_close(tensor_of(masked(x)), tensor_of(plain(x)))
    assert not torch.allclose(tensor_of(masked(x)), dense)


@pytest.mark.parametrize("method", ["static", "dst"])
@pytest.mark.parametrize("training", [True, False])  # evaluation without gradients: torch's fused path
def test_a_transformer_computes_with_its_masks_after_its_weights_were_written(method: str, training: bool) -> None:
    torch.manual_seed(0)
    make, shape = MODELS["transformer layer"]
    model, plain, x = make().train(training), make().train(training), torch.randn(shape)
    attached = attach(model, method, **({"density": 0.3} if method == "static" else {}))
    if method == "dst":
        prune_half(model, attached)
    with torch.no_grad():
        for weight in attached.weights().values():
            weight.copy_(torch.randn_like(weight))
    masks = attached.masks()
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if key in plain.state_dict()})
    for name, mask in masks.items():
        assert not mask.all()
        plain.get_parameter(name).data.mul_(mask)
    with torch.set_grad_enabled(training):
        torch.testing.assert_close(tensor_of(model(x)), tensor_of(plain(x)))


def test_finalize_gives_back_the_plain_layer_with_equal_outputs(example: tuple[nn.Module, Tensor]) -> None:
    plain, x = example
    masked, _ = masked_twin(plain)
    before = tensor_of(masked(x))
    assert methods.finalize(masked) is masked
    assert [type(module) for module in masked.modules()] == [type(module) for module in plain.modules()]
    state, want = masked.state_dict(), plain.state_dict()
    assert list(state) == list(want)
    assert all(torch.equal(state[key], want[key]) for key in want)
    assert torch.equal(tensor_of(masked(x)), before)
    assert [name for name, _ in masked.named_parameters()] == [name for name, _ in plain.named_parameters()]
    tensor_of(masked(x)).sum().backward()
    for name in want:
        if "weight" in name and name in dict(masked.named_parameters()):
            assert masked.get_parameter(name).grad is not None


def test_finalize_twice_is_finalize_once(example: tuple[nn.Module, Tensor]) -> None:
    masked, _ = masked_twin(example[0])
    state = copy.deepcopy(methods.finalize(masked).state_dict())
    again = methods.finalize(masked).state_dict()
    assert all(torch.equal(again[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
def test_copies_compute_the_same_and_are_independent(
    example: tuple[nn.Module, Tensor], duplicate: Callable[[nn.Module], nn.Module]
) -> None:
    model, x = example
    masked, attached = masked_twin(model)
    want = tensor_of(masked(x)).detach()
    copied = duplicate(masked)
    assert torch.equal(tensor_of(copied(x)), want)
    parameters = dict(copied.named_parameters())
    with torch.no_grad():
        for name in attached.masks():
            parameters[f"{name}_threshold"].fill_(1e9)
    assert torch.equal(tensor_of(masked(x)), want)
    assert not torch.equal(tensor_of(copied(x)), want)
    assert torch.equal(tensor_of(methods.finalize(copied)(x)), tensor_of(copied(x)))


def test_keys_of_the_dense_weights_are_unchanged(example: tuple[nn.Module, Tensor]) -> None:
    plain, _ = example
    want = {key: value.clone() for key, value in plain.state_dict().items()}
    attached = attach(plain)
    state = plain.state_dict()
    assert set(state) == set(want) | {f"{name}_threshold" for name in attached.masks()}
    assert all(torch.equal(state[key], value) for key, value in want.items())
    assert all(name in state for name in attached.masks())


def test_a_state_dict_round_trip_restores_weights_and_thresholds(example: tuple[nn.Module, Tensor]) -> None:
    model, x = example
    fresh = copy.deepcopy(model)
    for parameter in fresh.parameters():
        nn.init.normal_(parameter)
    masked, attached = masked_twin(model)
    resumed = attach(fresh)
    fresh.load_state_dict(masked.state_dict())
    assert torch.equal(tensor_of(fresh(x)), tensor_of(masked(x)))
    assert all(torch.equal(mask, attached.masks()[name]) for name, mask in resumed.masks().items())


def test_a_plain_checkpoint_loads_into_an_attached_model(example: tuple[nn.Module, Tensor]) -> None:
    plain, x = example
    masked, _ = masked_twin(plain)
    for parameter in plain.parameters():
        nn.init.uniform_(parameter, 1, 2)
    with torch.no_grad():
        for name, parameter in masked.named_parameters():
            if name.endswith("_threshold"):
                parameter.zero_()
    result = masked.load_state_dict(plain.state_dict(), strict=False)
    assert all(key.endswith("_threshold") for key in result.missing_keys)
    assert torch.equal(tensor_of(masked(x)), tensor_of(plain(x)))


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("time_steps", [1, 9])
def test_recurrent_masks_are_computed_once_a_forward(
    layer: type[nn.RNNBase], time_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = layer(3, 4, num_layers=2, bidirectional=True)
    attach(model)
    calls = []
    compute = MaskedWeight.__call__
    monkeypatch.setattr(MaskedWeight, "__call__", lambda *given: calls.append(1) or compute(*given))
    model(torch.randn(time_steps, 2, 3))
    assert len(calls) == 8  # 2 layers, 2 directions, input and recurrent weights


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
def test_a_recurrent_layer_whose_parameters_were_replaced_is_still_masked(layer: type[nn.RNNBase]) -> None:
    """torch gathers its flat weights anew when it sees that a parameter is another object."""
    model, x = layer(3, 4), torch.randn(5, 2, 3)
    attached = attach(model)
    prune_half(model, attached)
    want = tensor_of(model(x))
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    for _ in range(2):
        assert torch.equal(tensor_of(model(x)), want)


def test_a_recurrent_layer_that_failed_in_forward_keeps_its_dense_weights() -> None:
    model = nn.LSTM(3, 4)
    attached = attach(model)
    prune_half(model, attached)
    with pytest.raises(RuntimeError):
        model(torch.randn(5, 2, 7))
    assert all(isinstance(weight, nn.Parameter) for weight in model._flat_weights)


def test_two_threads_compute_with_one_masked_recurrent_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second thread enters the layer while the first computes, and leaves it after the first."""
    model, x = nn.LSTM(3, 4), torch.randn(5, 2, 3)
    attached = attach(model)
    prune_half(model, attached)
    want, lstm = tensor_of(model(x)).detach(), torch._VF.lstm
    second_entered, first_left, found = threading.Event(), threading.Event(), {}

    def in_order(*given: Any) -> Any:
        if threading.current_thread().name == "first":
            assert second_entered.wait(60)
        else:
            second_entered.set()
            assert first_left.wait(60)
        return lstm(*given)

    def compute() -> None:
        found[threading.current_thread().name] = tensor_of(model(x)).detach()

    first, second = (threading.Thread(target=compute, name=name) for name in ("first", "second"))
    monkeypatch.setattr(torch._VF, "lstm", in_order)
    first.start()
    time.sleep(0.2)
    second.start()
    first.join()
    first_left.set()
    second.join()
    monkeypatch.undo()
    assert torch.equal(found["first"], want)
    assert torch.equal(found["second"], want)
    assert all(isinstance(weight, nn.Parameter) for weight in model._flat_weights)
    assert torch.equal(tensor_of(methods.finalize(model)(x)), want)
    assert tensor_of(model(x)).requires_grad


@pytest.mark.parametrize("mode", [True, False])
def test_attention_masks_are_computed_once_a_forward(mode: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = nn.MultiheadAttention(6, 2, batch_first=True).train(mode), torch.randn(2, 5, 6)
    attach(model, exclude=["out_proj"])
    calls = []
    compute = MaskedWeight.__call__
    monkeypatch.setattr(MaskedWeight, "__call__", lambda *given: calls.append(1) or compute(*given))
    model(x, x, x)
    assert len(calls) == 1


@pytest.mark.parametrize("layer", [nn.Linear(3, 4), nn.Conv1d(3, 4, 1), nn.LSTM(3, 4)], ids=lambda m: type(m).__name__)
def test_scripting_an_attached_model_says_to_finalize_first(layer: nn.Module) -> None:
    model = nn.Sequential(layer)
    attach(model)
    with pytest.raises(RuntimeError, match=r"methods\.finalize\(model\) first"):
        torch.jit.script(model)
    torch.jit.script(methods.finalize(model))


@pytest.mark.slow
@pytest.mark.parametrize("allow_rnn", [True, False])
def test_a_compiled_recurrent_layer_computes_with_its_masks(allow_rnn: bool) -> None:
    model, x = nn.LSTM(3, 4), torch.randn(5, 2, 3)
    prune_half(model, attach(model))
    torch.compiler.reset()
    with torch._dynamo.config.patch(allow_rnn=allow_rnn):
        found = tensor_of(torch.compile(model, backend="eager")(x))
    torch.testing.assert_close(found, tensor_of(model(x)))


def test_packed_sequences_pass_through_a_masked_layer() -> None:
    model = nn.LSTM(3, 4, batch_first=True)
    masked, _ = masked_twin(model)
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(2, 5, 3), torch.tensor([5, 2]), batch_first=True)
    assert torch.equal(masked(packed)[0].data, model(packed)[0].data)


def test_the_attribute_is_the_effective_weight_and_the_parameter_the_dense_one() -> None:
    model = nn.Linear(6, 4)
    dense = model.weight.detach().clone()
    attached = attach(model)
    prune_half(model, attached)
    assert torch.equal(model.weight, dense * attached.masks()["weight"])
    assert torch.equal(dict(model.named_parameters())["weight"], dense)


def test_a_subclass_stays_an_instance_of_its_class() -> None:
    model = nn.Sequential(Scaled(6, 4), nn.Linear(4, 2))
    attach(model)
    assert isinstance(model[0], Scaled)
    assert not isinstance(model[1], Scaled)


def test_double_precision_weights_get_double_precision_thresholds() -> None:
    attached = attach(nn.Linear(3, 2).double())
    assert attached.thresholds()["weight"].dtype == torch.float64
    assert attached.penalty().dtype == torch.float64


@pytest.mark.parametrize("method", ["static", "set"])
def test_masks_in_place_leave_module_classes_and_keys_alone(method: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    kinds, keys = [type(module) for module in model.modules()], list(model.state_dict())
    attach(model, method, density=0.4)
    assert [type(module) for module in model.modules()] == kinds
    assert list(model.state_dict()) == keys
