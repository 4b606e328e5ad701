"""torch.compile, torch.export and ONNX, of attached and of finalized models."""

from __future__ import annotations

import copy
import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sparse_training import attach, library, sgd
from torch import Tensor, nn

import methods

pytestmark = pytest.mark.slow
METHODS = ["static", "set", "dst"]


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(12, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(x.flatten(2)).mean(1))
        return logits


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.lstm(x.flatten(2))[0][:, -1])
        return logits


SHAPES: dict[type[nn.Module], tuple[int, ...]] = {
    Convolutions: (5, 3, 8, 8),
    Attending: (5, 3, 12),
    Recurrent: (5, 3, 12),
}
NETWORKS = list(SHAPES)


def inputs(kind: type[nn.Module]) -> Tensor:
    return torch.randn(SHAPES[kind], generator=torch.Generator().manual_seed(0))


def trained(kind: type[nn.Module], method: str) -> nn.Module:
    torch.manual_seed(0)
    model = kind()
    losses(model, attach(model, method, steps=6), model)
    return model.eval()


def losses(network: Callable[[Tensor], Tensor], attached: methods.Attachment, model: nn.Module) -> list[float]:
    optimizer, found = sgd(attached), []
    for _ in range(4):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(inputs(type(model))), torch.arange(5) % 4) + attached.penalty()
        loss.backward()
        attached.step()
        found.append(float(loss.detach()))
    return found


@pytest.mark.parametrize("kind", [Convolutions, Attending])
@pytest.mark.parametrize("method", METHODS)
def test_a_compiled_model_trains_as_an_eager_one(method: str, kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = kind()
    other = copy.deepcopy(model)
    attached, eager = attach(model, method, steps=6), attach(other, method, steps=6)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert losses(compiled, attached, model) == pytest.approx(losses(other, eager, other), rel=1e-5)
    assert all(torch.equal(mask, eager.masks()[name]) for name, mask in attached.masks().items())
    for parameter, expected in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("state", ["attached", "finalized"])
def test_an_exported_program_computes_the_same(state: str, method: str, kind: type[nn.Module]) -> None:
    model = trained(kind, method)
    x = inputs(kind)
    expected = model(x)
    if state == "finalized":
        methods.finalize(model)
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), expected, rtol=1e-5, atol=1e-5)
    assert set(program.state_dict) == set(model.state_dict())


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="onnx, onnxscript or onnxruntime is not installed: make test-all",
)
@pytest.mark.parametrize("method", ["set", "dst"])
@pytest.mark.parametrize(
    ("state", "kind"), [*itertools.product(["attached", "finalized"], NETWORKS), ("compact", Convolutions)]
)
def test_onnx_computes_the_same(state: str, kind: type[nn.Module], method: str, tmp_path: Path) -> None:
    model = trained(kind, method)
    x = inputs(kind)
    expected = model(x)
    if state != "attached":
        methods.finalize(model, compact=state == "compact")
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = library("onnxruntime").InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected.detach(), rtol=1e-5, atol=1e-5)
