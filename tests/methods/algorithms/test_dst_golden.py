"""60 steps of the authors' code on a 20-16-12-4 network, step by step (shared: golden/dst_mlp.npz)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kernel_paths import use_kernels
from torch import Tensor, nn

import methods

GOLDEN = Path(__file__).parents[2] / "golden" / "dst_mlp.npz"
LAYERS = ("0", "2", "4")
Trained = tuple[nn.Module, methods.Attachment, list[float], list[list[int]]]


@pytest.fixture(scope="module")
def golden() -> Mapping[str, np.ndarray]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module", params=["eager", "cpp", pytest.param("inductor", marks=pytest.mark.slow)])
def trained(golden: Mapping[str, np.ndarray], request: pytest.FixtureRequest) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        use_kernels(request.param, patch)
        return train(golden)


def train(golden: Mapping[str, np.ndarray]) -> Trained:
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))
    model.load_state_dict(
        {f"{n}.{kind}": torch.tensor(golden[f"init/{n}.{kind}"]) for n in LAYERS for kind in ("weight", "bias")}
    )
    attached = methods.attach(model, "dst", total_steps=60, steps_per_epoch=60, alpha=float(golden["alpha"]))
    groups = attached.parameter_groups()
    attached.bind(torch.optim.SGD(groups, lr=float(golden["lr"]), momentum=float(golden["momentum"])))
    losses, keeps = [], []
    for x, y in zip(torch.tensor(golden["X"]), torch.tensor(golden["Y"]), strict=True):
        task_loss = F.cross_entropy(model(x), y)
        model.zero_grad()
        (task_loss + attached.penalty()).backward()
        attached.step()
        losses.append(task_loss.item())
        keeps.append([int(mask.sum()) for mask in attached.masks().values()])
    return model, attached, losses, keeps


def test_every_loss_is_that_of_the_authors_code(golden: Mapping[str, np.ndarray], trained: Trained) -> None:
    np.testing.assert_allclose(trained[2], golden["losses"], rtol=0, atol=1e-4)


def test_every_kept_count_is_that_of_the_authors_code(golden: Mapping[str, np.ndarray], trained: Trained) -> None:
    np.testing.assert_allclose(trained[3], golden["keeps"], rtol=0, atol=2)


def _final(golden: Mapping[str, np.ndarray], kind: str) -> list[Tensor]:
    return [torch.tensor(golden[f"final/{name}.{kind}"]) for name in LAYERS]


def test_final_thresholds_weights_and_biases_are_those_of_the_authors_code(
    golden: Mapping[str, np.ndarray], trained: Trained
) -> None:
    model, attached, _, _ = trained
    parameters = dict(model.named_parameters())
    for kind in ("weight", "bias"):
        for name, want in zip(LAYERS, _final(golden, kind), strict=True):
            torch.testing.assert_close(parameters[f"{name}.{kind}"].detach(), want, rtol=0, atol=1e-4)
    for name, want in zip(LAYERS, _final(golden, "threshold"), strict=True):
        torch.testing.assert_close(attached.thresholds()[f"{name}.weight"], want, rtol=0, atol=1e-4)
