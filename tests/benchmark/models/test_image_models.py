"""VGG-16, the wide residual networks and ResNet-50: sizes, layers, initial weights, first steps."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from benchmark import data, models
from benchmark.spec import Data, Model, Optimizer, SpecError
from benchmark.suites import cell
from benchmark.training import measure
from benchmark.training.loop import Training, train_epoch
from methods.layers import maskable_weights

CIFAR = (3, 32, 32)
WIDE_RESNETS = [(16, 8), (16, 10), (28, 8), (22, 2), (28, 2)]
LARGER = ("wrn-16-10", "wrn-28-8")  # of the same code as wrn-16-8


def create(
    name: str, in_shape: tuple[int, ...] = CIFAR, classes: int = 10, initialization: str | None = None
) -> nn.Module:
    return models.create(Model(name=name, initialization=initialization), in_shape=in_shape, classes=classes, seed=0)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def wide_resnet_parameters(depth: int, width: int, classes: int = 10) -> int:
    """Zagoruyko & Komodakis's table 1 summed up: a stem of 16, three groups of (depth - 4) / 6 blocks."""
    total, before = 3 * 16 * 9, 16
    for after in (16 * width, 32 * width, 64 * width):
        convolutions = before * after * 9 + before * after + after * after * 9
        norms = 2 * before + 2 * after
        total += convolutions + norms + ((depth - 4) // 6 - 1) * (2 * after * after * 9 + 4 * after)
        before = after
    return total + 2 * before + (before + 1) * classes


def test_vgg16_has_the_papers_parameters() -> None:
    # 3x3 convolutions without bias, two values per batch-normalised channel, 512-512 and 512-10 with biases
    widths = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    kernels = sum(9 * c_in * c_out for c_in, c_out in itertools.pairwise(widths))
    expected = kernels + 2 * sum(widths[1:]) + (513 * 512 + 2 * 512) + 513 * 10
    assert parameters(create("vgg16")) == expected == 14_987_722


@pytest.mark.parametrize(("depth", "width"), WIDE_RESNETS)
def test_wide_resnets_have_the_published_parameters(depth: int, width: int) -> None:
    published = {(16, 8): "11.0", (16, 10): "17.1", (28, 8): "23.4", (22, 2): "1.1", (28, 2): "1.5"}
    found = parameters(create(f"wrn-{depth}-{width}"))
    assert found == wide_resnet_parameters(depth, width)
    assert f"{found / 1e6:.1f}" == published[depth, width]
    assert f"{published[depth, width]} M" in models.describe()[f"wrn-{depth}-{width}"]


def test_the_formula_gives_the_best_known_count() -> None:
    assert wide_resnet_parameters(28, 10) == 36_479_194  # the "36.5M" of the paper's WRN-28-10


def test_resnet50_has_the_published_parameters() -> None:
    assert parameters(create("resnet50", classes=1000)) == 25_557_032


def test_vgg16_layers_are_numbered_as_in_the_papers_figures() -> None:
    expected = [*(f"conv{number}.weight" for number in range(1, 14)), "fc1.weight", "fc2.weight"]
    assert list(maskable_weights(create("vgg16"))) == expected


def test_wide_resnet_layers_come_in_the_authors_order() -> None:
    names = list(maskable_weights(create("wrn-16-8")))
    blocks = [
        f"group{group}.{block}.{layer}.weight"
        for group in (1, 2, 3)
        for block in (0, 1)
        for layer in ("conv1", "conv2", *(["shortcut"] if block == 0 else []))
    ]
    assert names == ["conv1.weight", *blocks, "fc.weight"]


@pytest.mark.parametrize("name", ["vgg16", "wrn-22-2", "resnet50"])
@pytest.mark.parametrize("size", [(32, 32), (64, 40)])
def test_models_take_images_of_these_sizes(name: str, size: tuple[int, ...]) -> None:
    model = create(name, (3, *size)).eval()
    assert model(torch.rand(2, 3, *size)).shape == (2, 10)


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SpecError, match="28x32: 32x32 are the smallest"):
        create("vgg16", (3, 28, 32))
    with pytest.raises(SpecError, match="3 channels, not 1"):
        create("resnet50", (1, 32, 32))
    assert create("wrn-22-2", (1, 5, 7)).eval()(torch.rand(2, 1, 5, 7)).shape == (2, 10)


def test_vgg16_pools_by_maximum_four_times_and_then_averages() -> None:
    model = create("vgg16").eval()
    images = torch.rand(2, *CIFAR)
    hidden = images
    for number in range(1, 14):
        convolution, norm = model.get_submodule(f"conv{number}"), model.get_submodule(f"norm{number}")
        hidden = F.relu(norm(F.conv2d(hidden, convolution.weight, padding=1)))
        if number in (2, 4, 7, 10):
            hidden = F.max_pool2d(hidden, 2)
    hidden = hidden.mean((2, 3))
    hidden = F.relu(model.get_submodule("fc1_norm")(model.get_submodule("fc1")(hidden)))
    torch.testing.assert_close(model(images), model.get_submodule("fc2")(hidden))


def wide_resnet_by_hand(state: dict[str, Tensor], images: Tensor, blocks: int) -> Tensor:
    """Figure 1 and table 1 of the paper on wide residual networks, with fresh batch normalisation in evaluation."""

    def activated(values: Tensor) -> Tensor:
        return F.relu(values / math.sqrt(1 + 1e-5))

    hidden = F.conv2d(images, state["conv1.weight"], padding=1)
    for group in (1, 2, 3):
        for block in range(blocks):
            name, stride = f"group{group}.{block}", 2 if block == 0 and group > 1 else 1
            start = activated(hidden)
            branch = activated(F.conv2d(start, state[f"{name}.conv1.weight"], stride=stride, padding=1))
            branch = F.conv2d(branch, state[f"{name}.conv2.weight"], padding=1)
            if block == 0:
                hidden = F.conv2d(start, state[f"{name}.shortcut.weight"], stride=stride)
            hidden = hidden + branch
    return F.linear(activated(hidden).mean((2, 3)), state["fc.weight"], state["fc.bias"])


def test_wide_resnets_activate_before_each_convolution() -> None:
    model, images = create("wrn-22-2").eval(), torch.rand(2, *CIFAR)
    torch.testing.assert_close(model(images), wide_resnet_by_hand(dict(model.state_dict()), images, blocks=3))


@pytest.mark.parametrize("name", ["vgg16", "wrn-22-2"])
@pytest.mark.parametrize("initialization", [None, "official-masked"])
def test_torchs_own_weights_are_kaiming_uniform(name: str, initialization: str | None) -> None:
    model = create(name, initialization=initialization)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for module in [*convolutions(model), *linear]:
        bound = module.weight[0].numel() ** -0.5  # sqrt(6 / ((1 + 5) fan_in))
        assert 0.98 * bound < module.weight.abs().max() <= bound
    assert all(module.bias.abs().max() > 0 for module in linear)
    assert all(module.bias is None for module in convolutions(model))


@pytest.mark.parametrize("name", ["vgg16", "wrn-22-2"])
def test_the_authors_dense_twin_draws_convolutions_normally(name: str) -> None:
    model = create(name, initialization="official-dense")
    for module in convolutions(model):
        expected = math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels))
        share = 4 / math.sqrt(module.weight.numel())  # four standard errors and more
        assert module.weight.std().item() == pytest.approx(expected, rel=share)
        assert module.weight.abs().max() > 2 * expected


def test_the_authors_dense_vgg16_starts_with_small_fully_connected_weights() -> None:
    model = create("vgg16", initialization="official-dense")
    for name in ("fc1", "fc2"):
        assert model.get_parameter(f"{name}.weight").std().item() == pytest.approx(0.01, rel=0.05)
        assert model.get_parameter(f"{name}.bias").abs().max() == 0


def test_the_authors_dense_wide_resnet_keeps_torchs_classifier_but_for_its_bias() -> None:
    official, own = create("wrn-22-2", initialization="official-dense"), create("wrn-22-2")
    bound = 128**-0.5
    assert 0.98 * bound < official.get_parameter("fc.weight").abs().max() <= bound
    assert official.get_parameter("fc.bias").abs().max() == 0
    assert own.get_parameter("fc.bias").abs().max() > 0


@pytest.mark.parametrize(
    ("name", "initialization", "expected"),
    [
        ("vgg16", None, 1.0),
        ("vgg16", "official-dense", 0.5),
        ("vgg16", "official-masked", 0.5),
        ("wrn-22-2", "official-dense", 1.0),
        ("wrn-22-2", "official-masked", 1.0),
    ],
)
def test_batch_normalisation_starts_at(name: str, initialization: str | None, expected: float) -> None:
    norms = [m for m in create(name, initialization=initialization).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == (13 if name == "vgg16" else 19)
    assert torch.cat([norm.weight for norm in norms]).unique().tolist() == [expected]


def test_the_authors_masked_wide_resnet_starts_as_torch_does() -> None:
    masked, own = create("wrn-22-2", initialization="official-masked"), create("wrn-22-2")
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in masked.state_dict().items())


def test_resnet50_has_no_options() -> None:
    with pytest.raises(SpecError, match="'resnet50' has no options"):
        create("resnet50", initialization="official-dense")


@pytest.mark.parametrize("name", ["vgg16", "wrn-22-2", "resnet50"])
def test_a_sparse_network_is_counted_and_made_plain(name: str) -> None:
    model = create(name)
    attached = methods.attach(model, "dst", total_steps=1, steps_per_epoch=1)
    assert list(attached.masks()) == list(maskable_weights(create(name)))
    flops = measure.forward_flops(measure.plain_copy(model), CIFAR)
    assert list(flops) == list(attached.masks())
    assert min(flops.values()) > 0
    model.eval()
    images = torch.rand(2, *CIFAR)
    torch.testing.assert_close(measure.plain_copy(model)(images), model(images))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dense", "dst"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.rare if name in LARGER else ()) for name in models.available()]
)
def test_five_steps_of_every_model(name: str, method: str, record_property: Callable[[str, object], None]) -> None:
    shape = (1, 28, 28) if name.startswith(("lenet", "lstm")) else CIFAR if name == "vgg16" else (3, 16, 16)
    pixels = Data(name="synthetic", train_limit=20, test_limit=8, shape=shape)
    optimizer = Optimizer(lr=0.01, momentum=0.9, weight_decay=1e-4, batch_size=4)
    spec = cell(method, data=pixels, model=Model(name=name), optimizer=optimizer)
    live = Training(spec, data.load(pixels, data_dir=Path(), device=torch.device("cpu")))
    before = {key: value.clone() for key, value in live.model.state_dict().items()}
    started = time.perf_counter()
    train_epoch(live, lambda: None)
    record_property("seconds", round(time.perf_counter() - started, 1))
    assert live.steps_done == 5
    assert math.isfinite(float(live.loss_sum))
    after = live.model.state_dict()
    assert not any(torch.equal(after[key], value) for key, value in before.items() if value.dim() > 1)
    assert math.isfinite(measure.accuracy(measure.plain_copy(live.model), live.data).loss)
    assert (0 < measure.kept(live.attached.masks(), measure.plain_copy(live.model)).density < 1) == (method == "dst")
