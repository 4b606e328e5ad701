"""`load` of a state: a saved compact network comes back in a freshly built model."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import methods
from benchmark import models
from benchmark.spec import Model

NETWORKS = {"lenet-300-100": (1, 28, 28), "lenet-5-caffe": (1, 28, 28), "vgg16": (3, 32, 32), "wrn-16-8": (3, 32, 32)}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        yield


@torch.no_grad()
def with_dead_units(model: nn.Module) -> nn.Module:
    """In evaluation mode; statistics and biases drawn, and many rows of weights 0."""
    for module in model.eval().modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.weight[torch.rand(len(module.weight)) < 0.4] = 0
    return model


def saved(model: nn.Module) -> dict[str, Tensor]:
    """The state after a way through a file."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    state: dict[str, Tensor] = torch.load(file, weights_only=True)
    return state


@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_the_compact_network_computes_bit_for_bit(name: str) -> None:
    def build(seed: int) -> nn.Module:
        return models.create(Model(name=name), in_shape=NETWORKS[name], classes=10, seed=seed)

    compact = methods.finalize(with_dead_units(build(0)), compact=True)
    fresh = build(1)
    whole = {key: value.shape for key, value in fresh.state_dict().items()}
    loaded = methods.load(saved(compact), model=fresh)
    assert loaded is fresh
    assert any(value.shape != whole[key] for key, value in loaded.state_dict().items() if key in whole)
    inputs = torch.randn(3, *NETWORKS[name])
    assert torch.equal(loaded.eval()(inputs), compact(inputs))
    assert repr(loaded) == repr(compact)
    assert torch.isfinite(loaded.train()(inputs)).all()
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_a_bias_that_compaction_added_is_loaded() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 3, bias=False))

    compact = methods.finalize(with_dead_units(build()), compact=True)
    assert compact[2].bias is not None
    assert torch.equal(methods.load(saved(compact), model=build)(torch.ones(1, 4)), compact(torch.ones(1, 4)))


def test_the_state_of_a_whole_network_loads_as_always() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 3))
    loaded = methods.load(saved(model), model=copy.deepcopy(model))
    assert repr(loaded) == repr(model)
    assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("0.weight", None, "the state lacks '0.weight'"),
        ("1.weight", torch.ones(5), r"'1.weight' is \[5\], which cannot be cut out of \[6\]"),
        ("5.weight", torch.ones(5), "the state has '5.weight', which this model lacks"),
        ("0.weight", torch.ones(6, 5), r"'0.weight' is \[6, 5\], which cannot be cut out of \[6, 4\]"),
        ("0.weight", torch.ones(6), r"'0.weight' is \[6\], which cannot be cut out of \[6, 4\]"),
        ("0.bias", torch.ones(5), "'0.bias' has 5 units, and the weight beside it 6"),
        (
            "3.weight",
            torch.ones(2, 1, 1, 1),
            r"'3.weight' is \[2, 1, 1, 1\], which cannot be cut out of",
        ),
    ],
)
def test_a_state_of_another_model_is_refused_by_its_key_and_changes_nothing(
    key: str, value: Tensor | None, message: str
) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 2, (2, 1)))
    before = copy.deepcopy(model.state_dict())
    state = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    state = {name: tensor for name, tensor in state.items() if name != key} | ({} if value is None else {key: value})
    with pytest.raises(ValueError, match=message):
        methods.load(state, model=model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        logits: Tensor = self.head(x + self.second(x))
        return logits


class Branching(Residual):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else x


def convolutions() -> nn.Module:
    features = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(54, 5), nn.Linear(5, 3))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("build", "shapes", "key"),
    [
        (convolutions, {"5.weight": (4, 54), "5.bias": (4,)}, "6.weight"),
        (convolutions, {"6.weight": (3, 4)}, "6.weight"),
        (convolutions, {"5.weight": (5, 45)}, "5.weight"),
        (convolutions, {"0.weight": (5, 1, 3, 3), "0.bias": (5,), "5.weight": (5, 45)}, "1.weight"),
        (convolutions, {"6.weight": (2, 5), "6.bias": (2,)}, "6.weight"),  # the outputs of the network
        (Residual, {"first.weight": (5, 4), "first.bias": (5,), "second.weight": (6, 5)}, "first.weight"),
        (Branching, {"first.weight": (5, 4), "first.bias": (5,), "second.weight": (6, 5)}, "cannot be traced"),
    ],
)
def test_layers_that_do_not_fit_one_another_are_refused(
    build: type[nn.Module], shapes: dict[str, tuple[int, ...]], key: str, device: str
) -> None:
    """Each layer has a shape that cutting can give, but the next layer does not take its outputs."""
    with torch.device(device):
        model = build()
    whole = repr(model)
    state = {name: torch.ones(shapes.get(name, tuple(tensor.shape))) for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=key) as raised:
        methods.load(state, model=model)
    assert "\n" not in str(raised.value)
    assert repr(model) == whole
