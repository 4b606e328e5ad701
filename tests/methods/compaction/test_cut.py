"""`finalize(model, compact=True)`: dead neurons and filters are gone, and the function is the same."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods
from benchmark import models
from benchmark.spec import Model

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
ZOO = {"lenet-300-100": MNIST, "lenet-5-caffe": MNIST, "vgg16": CIFAR, "wrn-16-8": CIFAR}
SHRINKS = {"lenet-300-100": "fc2", "lenet-5-caffe": "conv2", "vgg16": "conv5", "wrn-16-8": "group2.1.conv1"}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        yield


def disturbed(model: nn.Module) -> nn.Module:
    """float64, in evaluation mode; every bias, scale and running statistic drawn."""
    model = model.double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                if module.running_mean is not None and module.running_var is not None:
                    nn.init.normal_(module.running_mean)
                    nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
            elif isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
                nn.init.normal_(module.bias)
    return model


@torch.no_grad()
def kill(model: nn.Module, share: float = 0.4) -> nn.Module:
    """Zero a random share of single weights, and of each layer's rows and columns."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            weight = module.weight
            weight.mul_(torch.rand_like(weight) > share)
            weight[torch.rand(len(weight)) < share] = 0
            weight[:, torch.rand(weight.shape[1]) < share] = 0
    return model


def sizes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@torch.no_grad()
def compacted(model: nn.Module, *in_shape: int) -> nn.Module:
    """A compact copy, of which equal outputs and consistent plain modules are checked."""
    compact = methods.finalize(copy.deepcopy(model), compact=True)
    inputs = torch.randn(5, *in_shape, dtype=torch.float64)
    torch.testing.assert_close(compact(inputs), model(inputs), rtol=1e-10, atol=1e-10)
    for (name, before), (other, after) in zip(model.named_modules(), compact.named_modules(), strict=True):
        assert (name, type(before), before.training) == (other, type(after), after.training)
        if isinstance(after, nn.Linear):
            assert after.weight.shape == (after.out_features, after.in_features)
        if isinstance(after, nn.Conv2d):
            assert after.weight.shape[:2] == (after.out_channels, after.in_channels // after.groups)
    return compact


def zoo(name: str) -> nn.Module:
    return disturbed(models.create(Model(name=name), in_shape=ZOO[name], classes=10, seed=0))


@pytest.mark.parametrize("name", ZOO)
def test_a_network_with_dead_units_gets_smaller_and_computes_the_same(name: str) -> None:
    model = kill(zoo(name))
    compact = compacted(model, *ZOO[name])
    weight = f"{SHRINKS[name]}.weight"
    assert len(compact.get_parameter(weight)) < 0.7 * len(model.get_parameter(weight))
    assert sizes(methods.finalize(copy.deepcopy(compact), compact=True)) == sizes(compact)


def test_resnet50_loses_filters_inside_its_blocks_alone() -> None:
    model = kill(disturbed(models.create(Model(name="resnet50"), in_shape=(3, 64, 64), classes=10, seed=0)), share=0.2)
    compact = compacted(model, 3, 64, 64)
    before, after = sizes(model), sizes(compact)
    assert after["layer1.0.conv1.weight"][0] < before["layer1.0.conv1.weight"][0]
    assert after["layer3.2.conv3.weight"][0] == before["layer3.2.conv3.weight"][0]
    assert after["conv1.weight"][0] < before["conv1.weight"][0], "the stem ends in two convolutions, not in a sum"


@pytest.mark.parametrize("name", ZOO)
def test_a_network_that_is_all_alive_stays_as_it_is(name: str) -> None:
    model = zoo(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assert methods.finalize(model, compact=True) is model
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_state_of_one_compact_network_loads_into_its_like() -> None:
    compact = compacted(kill(zoo("vgg16")), *CIFAR)
    other = copy.deepcopy(compact)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    other.load_state_dict(compact.state_dict())
    inputs = torch.randn(2, *CIFAR, dtype=torch.float64)
    assert torch.equal(other(inputs), compact(inputs))


def test_what_dst_pruned_is_cut_out() -> None:
    model = disturbed(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)))
    attached = methods.attach(model, "dst", total_steps=10, steps_per_epoch=5)
    thresholds = attached.thresholds()["0.weight"]
    thresholds[:4] = 10.0
    masked = copy.deepcopy(model)
    methods.finalize(model, compact=True)
    assert sizes(model)["0.weight"] == (2, 8)
    inputs = torch.randn(5, 8, dtype=torch.float64)
    torch.testing.assert_close(model(inputs), masked(inputs), rtol=1e-12, atol=1e-12)


def drawn(draw: random.Random) -> nn.Module:
    """A network of up to three convolutions and three Linears with anything known between them."""
    layers: list[nn.Module] = []
    features = 3
    for _ in range(draw.randint(1, 3)):
        kernel, padding = draw.choice([1, 3]), draw.choice([0, 1])
        layers += [nn.Conv2d(features, features := draw.randint(1, 6), kernel, padding=padding)]
        layers += [nn.BatchNorm2d(features)] if draw.random() < 0.5 else []
        layers += [draw.choice([nn.ReLU(inplace=True), nn.Tanh(), nn.Dropout2d(), nn.Hardtanh(0, 1), nn.GELU()])]
        layers += [
            draw.choice([nn.Identity(), nn.MaxPool2d(2, padding=1), nn.AvgPool2d(2, padding=1), nn.AvgPool2d(2)])
        ]
    side = draw.randint(1, 3)
    layers += [draw.choice([nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])(side), nn.Flatten()]
    features *= side**2
    for _ in range(draw.randint(0, 3)):
        layers += [nn.BatchNorm1d(features)] if draw.random() < 0.4 else []
        layers += [nn.Linear(features, features := draw.randint(1, 8), bias=draw.random() < 0.7), nn.ELU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(features, 3))


def test_drawn_networks_compute_the_same() -> None:
    shrunk = 0
    for seed in range(40):
        model = kill(disturbed(drawn(random.Random(seed))))
        shrunk += sizes(compacted(model, 3, 24, 24)) != sizes(model)
    assert shrunk > 30


def test_without_the_word_nothing_is_cut() -> None:
    model = kill(zoo("lenet-300-100"))
    assert sizes(methods.finalize(copy.deepcopy(model))) == sizes(model)


class Chain(nn.Module):
    """What users write: a view with the batch size, functional layers, one relu for all."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(8, 6, 3, bias=False)
        self.norm = nn.BatchNorm1d(24)
        self.last = nn.Linear(24, 4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.avg_pool2d(F.dropout(self.relu(self.first(images)), 0.3, self.training), 2)
        hidden = F.max_pool2d(torch.tanh(self.second(hidden)), 2)
        hidden = self.norm(hidden.view(hidden.shape[0], -1))
        result: Tensor = self.last(self.relu(hidden))
        return result


def test_a_users_own_network_is_followed_and_a_bias_made_for_a_constant() -> None:
    model = kill(disturbed(Chain()), share=0.3)
    with torch.no_grad():
        model.get_parameter("first.weight")[2] = 0
        model.get_parameter("first.bias")[2] = 1.0
        model.get_parameter("second.weight")[:, 2] = 1.0
        model.get_parameter("second.weight")[4] = 0
    compact = compacted(model, 3, 14, 14)
    assert sizes(compact)["first.weight"][0] < 8
    assert sizes(compact)["second.weight"][0] < 6
    assert sizes(compact)["norm.running_mean"] == (4 * sizes(compact)["second.weight"][0],)
    assert "second.bias" in sizes(compact)
    assert "second.bias" not in sizes(model)


def test_a_layer_whose_neurons_are_all_dead_keeps_one_and_so_do_those_before_it() -> None:
    model = disturbed(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3)))
    nn.init.zeros_(model.get_parameter("2.weight"))
    shapes = sizes(compacted(model, 8))
    assert [shapes[f"{at}.weight"] for at in (0, 2, 4)] == [(1, 8), (1, 1), (3, 1)]


def convolutions(between: nn.Module, **options: object) -> nn.Module:
    """Filter 1 of three is dead, with a bias of 0.7 before what lies between."""
    model = disturbed(nn.Sequential(nn.Conv2d(1, 3, 3), between, nn.Conv2d(3, 2, 3, **options)))  # type: ignore[arg-type]
    with torch.no_grad():
        model.get_parameter("0.weight")[1] = 0
        model.get_parameter("0.bias")[1] = 0.7
    return model


@pytest.mark.parametrize(
    ("between", "options", "left"),
    [
        (nn.Identity(), {"padding": 1}, 3),
        (nn.Identity(), {"padding": "same"}, 3),
        (nn.Identity(), {"padding": 1, "padding_mode": "reflect"}, 2),
        (nn.Identity(), {"padding": "valid"}, 2),
        (nn.Identity(), {"stride": 2, "dilation": 2, "bias": False}, 2),
        (nn.Hardtanh(-1.0, 0.0), {"padding": 1}, 2),
        (nn.AvgPool2d(2, padding=1), {}, 3),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), {}, 2),
        (nn.AvgPool2d(2, divisor_override=3), {}, 3),
        (nn.AvgPool2d(3, stride=2, ceil_mode=True), {}, 2),
        (nn.MaxPool2d(2, padding=1), {}, 2),
        (nn.Softmax(1), {}, 3),
    ],
    ids=str,
)
def test_a_constant_is_folded_where_the_border_does_not_see_another(
    between: nn.Module, options: dict[str, object], left: int
) -> None:
    assert len(compacted(convolutions(between, **options), 1, 14, 14).get_parameter("0.weight")) == left


def test_a_filter_that_nothing_reads_goes_whatever_it_gives() -> None:
    model = disturbed(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1)))
    with torch.no_grad():
        model.get_parameter("2.weight")[:, 1] = 0
    assert sizes(compacted(model, 1, 9, 9))["0.weight"] == (2, 1, 3, 3)


class Odd(nn.Module):
    """Three layers of 6 units, all of the first dead, and a forward pass of the test's."""

    def __init__(self, forward: Callable[[Odd, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.relu = nn.ReLU(inplace=True)
        self.size = nn.Softmax(1)
        self.norm = nn.BatchNorm1d(6, track_running_stats=False)
        nn.init.zeros_(self.first.weight)
        self.way = forward

    def forward(self, inputs: Tensor) -> Tensor:
        return self.way(self, inputs)


def overwritten_before_it_is_read(model: Odd, inputs: Tensor) -> Tensor:
    hidden = model.first(inputs)
    other: Tensor = model.third(model.relu(hidden))
    return other + model.second(hidden)


UNKNOWN: dict[str, Callable[[Odd, Tensor], Tensor]] = {
    "a skip connection": lambda m, x: m.second(m.first(x) + x),
    "an output of its own": lambda m, x: m.second(h := m.first(x)) + h,
    "used twice": lambda m, x: m.second(m.first(m.first(x))),
    "a consumer used twice": lambda m, x: m.second(m.second(m.first(x))),
    "its weight read": lambda m, x: m.second(m.first(x)) + m.first.weight.sum(),
    "the consumer's weight read": lambda m, x: m.second(m.first(x)) + m.second.weight.sum(0),
    "a fixed shape": lambda m, x: m.second(m.first(x).view(-1, 6)),
    "a fixed width": lambda m, x: m.second(m.first(x).view(x.size(0), 6)),
    "another tensor's slope": lambda m, x: m.second(F.leaky_relu(m.first(x), x.size(1) / 60)),
    "the batch's own statistics": lambda m, x: m.second(m.norm(m.first(x))),
    "another shape": lambda m, x: m.second(h := m.first(x)) * h.size(1),
    "a module named as a method": lambda m, x: m.second(m.size(m.first(x))),
    "a dropout that stays on": lambda m, x: m.second(F.dropout(m.first(x), 0.0)),
    "overwritten in place": overwritten_before_it_is_read,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_units_that_reach_something_unknown_stay(name: str) -> None:
    model = disturbed(Odd(UNKNOWN[name]))
    assert sizes(compacted(model, 6)) == sizes(model)


def test_a_hook_a_shared_weight_and_groups_leave_units_alone() -> None:
    hooked, shared = (
        disturbed(Odd(lambda m, x: m.second(m.first(x)))),
        disturbed(Odd(lambda m, x: m.second(m.first(x)))),
    )
    hooked.get_submodule("first").register_forward_hook(lambda module, inputs, output: output + 1)
    shared.first.weight = nn.init.zeros_(shared.get_parameter("second.weight"))  # type: ignore[union-attr]
    assert sizes(compacted(hooked, 6)) == sizes(hooked)
    assert sizes(compacted(shared, 6)) == sizes(shared)
    grouped = disturbed(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 3)))
    nn.init.zeros_(grouped.get_parameter("0.weight"))
    nn.init.zeros_(grouped.get_parameter("2.weight"))
    assert sizes(compacted(grouped, 2, 12, 12)) == sizes(grouped)


def test_a_unit_is_not_taken_for_a_place() -> None:
    columns = disturbed(nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Linear(6, 6)))
    rows = disturbed(nn.Sequential(nn.Linear(6, 6), nn.Flatten(), nn.Linear(24, 6)))
    for model, shape in ((columns, (1, 8, 8)), (rows, (4, 6))):
        model.get_parameter("0.weight").data[1:3] = 0
        assert sizes(compacted(model, *shape)) == sizes(model)


def test_recurrent_layers_stay_whole() -> None:
    model = models.create(Model(name="lstm-a"), in_shape=MNIST, classes=10, seed=0).double().eval()
    nn.init.zeros_(model.get_parameter("lstm.weight_ih_l0"))
    assert sizes(compacted(model, *MNIST)) == sizes(model)


class Chooses(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs if inputs.sum() > 0 else -inputs


def test_a_model_that_cannot_be_followed_is_refused_by_the_name_of_the_module() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU(), Chooses()), nn.Linear(3, 2)).train()
    nn.init.zeros_(model.get_parameter("0.weight"))
    with pytest.raises(ValueError, match=r"cannot compact: module '1\.1' \(Chooses\) cannot be traced: ") as refused:
        methods.finalize(model, compact=True)
    assert "\n" not in str(refused.value)
    assert sizes(model)["0.weight"] == (3, 4)
    assert all(module.training for module in model.modules())


def test_the_mode_a_model_is_in_stays() -> None:
    model = kill(zoo("lenet-5-caffe")).train()
    model.get_submodule("fc3").eval()
    methods.finalize(model, compact=True)
    assert (model.training, model.get_submodule("fc3").training) == (True, False)
