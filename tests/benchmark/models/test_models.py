"""The paper's MNIST models: sizes, initial weights, and the authors' carried hidden state."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark import models
from benchmark.models.lstm import RowLSTM
from benchmark.spec import Model, SpecError

MNIST = (1, 28, 28)
SHORT = (1, 2, 28)  # over 28 rows the state that a batch starts from fades to 1e-8 of its effect


def create(name: str, in_shape: tuple[int, ...] = MNIST, seed: int = 0, **options: str) -> nn.Module:
    return models.create(Model(name=name, **options), in_shape=in_shape, classes=10, seed=seed, batch_size=4)


def shape_of(name: str) -> tuple[int, ...]:
    return (3, 32, 32) if name in ("resnet50", "vgg16") or name.startswith("wrn") else MNIST


def carried(**options: str) -> RowLSTM:
    model = create("lstm-a", SHORT, hidden_state="carried", **options)
    assert isinstance(model, RowLSTM)
    return model


def batch(size: int = 4, seed: int = 0, shape: tuple[int, ...] = SHORT) -> Tensor:
    return torch.rand((size, *shape), generator=torch.Generator().manual_seed(seed))


def lstm_layer(model: RowLSTM, layer: int, rows: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One layer written out gate by gate: outputs [b, time, hidden], last h and c [b, hidden]."""
    w_ih, w_hh, b_ih, b_hh = (
        getattr(model.lstm, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    outputs = []
    for row in rows.unbind(1):
        i, f, g, o = (row @ w_ih.T + b_ih + h @ w_hh.T + b_hh).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs, 1), h, c


def test_names_are_listed_without_importing_torch() -> None:
    code = "import sys, benchmark.models as m; print(m.available() == sorted(m.describe()), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_unknown_names_options_and_values_are_answered_with_the_valid_ones() -> None:
    with pytest.raises(SpecError, match=r"did you mean 'lenet-300-100'.*valid: lenet-300-100, lenet-5-caffe, lstm-a"):
        create("lenet-300")
    with pytest.raises(SpecError, match="'hidden_state': valid: initialization, widths"):
        create("lenet-5-caffe", hidden_state="carried")
    with pytest.raises(SpecError, match=r"initialization 'official': .*valid: official-dense, official-masked"):
        create("lstm-a", initialization="official")


@pytest.mark.parametrize(
    ("name", "parameters", "counted"),
    [
        ("lenet-300-100", 266_610, 266_200),
        ("lenet-5-caffe", 431_080, 430_500),
        ("lstm-a", 4 * 128 * (28 + 3 * 128 + 4) + 1290, 4 * 128 * (28 + 3 * 128)),
        ("lstm-b", 4 * 256 * (28 + 3 * 256 + 4) + 2570, 4 * 256 * (28 + 3 * 256)),
    ],
)
def test_parameters_and_counted_weights_are_the_papers(name: str, parameters: int, counted: int) -> None:
    model = create(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    weights = {n: p for n, p in model.named_parameters() if "weight" in n and n.split(".")[0] not in model.uncounted}
    assert sum(p.numel() for p in weights.values()) == counted
    assert model(batch(shape=MNIST)).shape == (4, 10)


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5-caffe"])
def test_a_lenet_starts_from_the_initial_weights_asked_for_and_the_biases_of_any_other(name: str) -> None:
    """Glorot's uniform bound is sqrt(6 / (fan_in + fan_out)), He's standard deviation sqrt(2 / fan_in)."""
    default, xavier, kaiming = (
        dict(create(name, **options).named_parameters())
        for options in ({}, {"initialization": "xavier-uniform"}, {"initialization": "kaiming-normal"})
    )
    for key, weight in default.items():
        if key.endswith("bias"):
            assert torch.equal(weight, xavier[key])
            assert torch.equal(weight, kaiming[key])
            continue
        area = weight[0, 0].numel()
        fan_in, fan_out = area * weight.shape[1], area * weight.shape[0]
        bound = (6 / (fan_in + fan_out)) ** 0.5
        assert 0.95 * bound < xavier[key].abs().max() <= bound
        assert kaiming[key].std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)


def test_layers_have_the_names_of_the_paper() -> None:
    assert [name for name, _ in create("lenet-300-100").named_children()] == ["fc1", "fc2", "fc3"]
    assert [name for name, _ in create("lenet-5-caffe").named_children()] == ["conv1", "conv2", "fc3", "fc4"]
    assert [name for name, _ in create("lstm-a").named_children()] == ["lstm", "classifier"]
    assert RowLSTM.uncounted == ("classifier",)
    assert create("lenet-5-caffe").uncounted == ()


@pytest.mark.parametrize("name", ["lenet-300-100", "lstm-a"])
def test_models_take_images_of_other_shapes(name: str) -> None:
    assert create(name, in_shape=(3, 8, 6))(torch.rand(2, 3, 8, 6)).shape == (2, 10)


def test_lenet_5_takes_images_from_16_pixels_on() -> None:
    assert create("lenet-5-caffe", in_shape=(3, 16, 20))(torch.rand(2, 3, 16, 20)).shape == (2, 10)
    with pytest.raises(SpecError, match="15x28: 16x16 are the smallest"):
        create("lenet-5-caffe", in_shape=(1, 15, 28))


def test_the_lstm_reads_rows_from_the_top() -> None:
    model = create("lstm-a")
    assert isinstance(model, RowLSTM)
    images, zero = batch(shape=MNIST), torch.zeros(4, 128)
    outputs, _, _ = lstm_layer(model, 0, images[:, 0], zero, zero)
    outputs, _, _ = lstm_layer(model, 1, outputs, zero, zero)
    torch.testing.assert_close(model(images), model.classifier(outputs[:, -1]))


@pytest.mark.parametrize("name", models.available())
def test_weights_follow_from_the_seed_and_the_global_generator_is_left_alone(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    shape = shape_of(name)
    first = create(name, shape).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = create(name, shape).state_dict(), create(name, shape, seed=1).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not any(torch.equal(value, other[key]) for key, value in first.items() if value.dim() > 1)


@pytest.mark.parametrize(("initialization", "bias_bound"), [("official-dense", 128**-0.5), ("official-masked", 0.0)])
def test_official_initialization_is_the_authors(initialization: str, bias_bound: float) -> None:
    model = create("lstm-a", initialization=initialization)
    bounds = {"weight_ih": 128**-0.5, "weight_hh": 128**-0.5, "bias_ih": bias_bound, "bias_hh": 0.0}
    for layer in (0, 1):
        for name, bound in bounds.items():
            value = model.get_parameter(f"lstm.{name}_l{layer}")
            assert 0.95 * bound <= value.abs().max() <= bound
            assert value.requires_grad == (name != "bias_hh")
    assert 0.095 < model.get_parameter("classifier.weight").abs().max() <= 0.1
    assert model.get_parameter("classifier.bias").abs().max() == 0


def test_the_frozen_bias_stays_zero_in_training() -> None:
    model = create("lstm-a", initialization="official-dense")
    optimizer = torch.optim.Adam(model.parameters())
    before = model.get_parameter("lstm.bias_ih_l1").clone()
    F.cross_entropy(model(batch()), torch.arange(4)).backward()
    optimizer.step()
    assert model.get_parameter("lstm.bias_hh_l1").abs().max() == 0
    assert not torch.equal(model.get_parameter("lstm.bias_ih_l1"), before)


@pytest.mark.parametrize("training", [True, False])
def test_the_carried_state_is_scrambled_as_the_authors_code_does(training: bool) -> None:
    model = carried().train(training)
    model.start_epoch()
    h1 = c1 = h2 = c2 = torch.zeros(4, 128)
    for seed in range(3):
        outputs, h1, c1 = lstm_layer(model, 0, batch(seed=seed)[:, 0], h1, c1)
        outputs, h2, c2 = lstm_layer(model, 1, outputs, h2, c2)
        torch.testing.assert_close(model(batch(seed=seed)), model.classifier(outputs[:, -1]))
        h1, c1, h2, c2 = h1, h2, c1, c2  # layer 1 takes both h, layer 2 both c


@pytest.mark.parametrize("onednn", [True, False])
def test_no_gradient_flows_between_batches_and_the_backward_pass_works(onednn: bool) -> None:
    with torch.backends.mkldnn.flags(enabled=onednn):
        check_gradients_of_two_batches(carried())


def check_gradients_of_two_batches(model: RowLSTM) -> None:
    first = batch().requires_grad_()
    outputs = model(first)
    model(batch(seed=1)).sum().backward()
    assert first.grad is None
    outputs.sum().backward()  # the state written since has not touched what the gradient needs
    assert first.grad is not None
    assert first.grad.abs().max() > 0


def test_an_epoch_starts_from_zero() -> None:
    for model in (carried(), carried().eval()):
        fresh, later = model(batch()), model(batch())
        assert not torch.equal(fresh, later)
        model.start_epoch()
        assert torch.equal(model(batch()), fresh)


def test_an_evaluation_between_does_not_disturb_training() -> None:
    model, undisturbed = carried(), carried()
    model(batch()), undisturbed(batch())
    model.eval().start_epoch()
    first = model(batch(size=9))
    model(batch(size=5))
    assert torch.equal(model.eval()(batch(size=9)), first)
    model.train()
    assert torch.equal(model(batch(seed=1)), undisturbed(batch(seed=1)))


def test_a_saved_state_resumes_mid_epoch_bit_by_bit() -> None:
    model = carried()
    model(batch())
    saved = copy.deepcopy(model.state_dict())
    expected = model(batch(seed=1))
    resumed = carried()
    assert not torch.equal(copy.deepcopy(resumed)(batch(seed=1)), expected)
    resumed.load_state_dict(saved, strict=True)
    assert torch.equal(resumed(batch(seed=1)), expected)


def test_the_state_dict_is_the_same_after_an_evaluation() -> None:
    model = carried()
    before = set(model.state_dict())
    model.eval()(batch())
    assert set(model.state_dict()) == before
    assert "training_state" in before
    assert "training_state" not in create("lstm-a").state_dict()


def test_a_smaller_batch_starts_from_the_first_rows() -> None:
    whole, part = carried(), carried()
    whole(batch()), part(batch())
    torch.testing.assert_close(part(batch(seed=1)[:3]), whole(batch(seed=1))[:3])


def test_a_larger_batch_than_the_state_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 5 is larger than the carried hidden state, which has 4"):
        carried()(batch(size=5))
    with pytest.raises(ValueError, match="needs batch_size"):
        models.create(Model(name="lstm-a", hidden_state="carried"), in_shape=MNIST, classes=10, seed=0)


def test_the_normalised_mlp_has_no_biases_and_normalises_its_output() -> None:
    model = create("mlp-300-100-bn").train()
    assert sum(p.numel() for p in model.parameters() if p.dim() > 1) == 266_200
    assert sum(p.numel() for p in model.parameters()) == 266_200 + 2 * (300 + 100 + 10)
    logits = model(batch(32, shape=MNIST))
    assert logits.mean(0).abs().max() < 1e-5
    assert torch.allclose(logits.std(0, unbiased=False), torch.ones(10), atol=1e-2)
    assert [name for name, _ in model.named_children()] == ["fc1", "norm1", "fc2", "norm2", "fc3", "norm3"]
