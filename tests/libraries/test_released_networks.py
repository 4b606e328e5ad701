"""model.onnx of released networks: checked by onnxruntime, for any batch size, without local paths."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sparse_training import attach, library, sgd, train
from torch import nn
from torch.nn.functional import cross_entropy

import methods
from benchmark import models
from benchmark.spec import Model
from methods.release import onnx_program

onnxruntime, onnx = library("onnxruntime"), library("onnx")
library("onnxscript")
pytestmark = pytest.mark.slow
SHAPE = (1, 28, 28)


def finalized(name: str, method: str) -> tuple[nn.Module, methods.Attachment]:
    model = models.create(Model(name=name), in_shape=SHAPE, classes=10, seed=0)
    attached = attach(model, method, density=0.05) if method == "set" else attach(model, method)
    x, y = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.arange(8)
    train(attached, sgd(attached), lambda: cross_entropy(model(x), y))
    return methods.finalize(model).eval(), attached


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5-caffe", "lstm-a", "mlp-300-100-bn"])
@pytest.mark.parametrize("method", ["set", "dst"])
def test_onnxruntime_computes_what_the_network_computes(name: str, method: str, tmp_path: Path) -> None:
    model, attached = finalized(name, method)
    example = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    left_out = methods.save(model, tmp_path / "network", masks=attached.masks(), example=example)
    assert "model.onnx" not in left_out
    session = onnxruntime.InferenceSession(str(tmp_path / "network/model.onnx"))
    for inputs in (example, torch.rand(11, *SHAPE, generator=torch.Generator().manual_seed(2))):
        (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), model(inputs).detach(), rtol=1e-5, atol=1e-5)
    weights = sum(len(tensor.raw_data) for tensor in onnx.load(tmp_path / "network/model.onnx").graph.initializer)
    compact = (tmp_path / "network/model-compact.safetensors").is_file()
    assert (weights < 0.9 * (tmp_path / "network/model.safetensors").stat().st_size) == compact
    content = (tmp_path / "network/model.onnx").read_bytes()
    assert str(Path(__file__).resolve().parents[2]).encode() not in content
    assert b"site-packages" not in content


class Doubled(nn.Module):
    """onnxruntime would compute another function if the program were of another network."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.inner(x) if torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting() else self.inner(x)


def test_a_program_that_computes_something_else_is_not_written() -> None:
    model, _ = finalized("lenet-300-100", "set")
    with pytest.raises(ValueError, match="onnxruntime's outputs differ from the network's by"):
        onnx_program.onnx_program(Doubled(model).eval(), torch.rand(4, *SHAPE))
