"""60 steps of the authors' code on a 20-16-12-4 network, step by step (shared: golden/dst_mlp.npz)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kernel_paths import use_kernels
from torch import Tensor, nn
from torch.func import functional_call, vmap

import methods
from methods.stacked import Stack

GOLDEN = Path(__file__).parents[1] / "golden" / "dst_mlp.npz"
LAYERS = ("0", "2", "4")
Trained = tuple[nn.Module, methods.Attachment, list[float], list[list[int]]]


@pytest.fixture(scope="module")
def golden() -> Mapping[str, np.ndarray]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.fixture(
    scope="module",
    params=["eager", "cpp", pytest.param("inductor", marks=pytest.mark.slow), "eager stacked", "cpp stacked"],
)
def trained(golden: Mapping[str, np.ndarray], request: pytest.FixtureRequest) -> Trained:
    path, _, stacked = request.param.partition(" ")
    with pytest.MonkeyPatch.context() as patch:
        use_kernels(path, patch)
        return train_beside_another(golden) if stacked else train(golden)


def begun(golden: Mapping[str, np.ndarray], alpha: float) -> tuple[nn.Module, methods.Attachment]:
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))
    model.load_state_dict(
        {f"{n}.{kind}": torch.tensor(golden[f"init/{n}.{kind}"]) for n in LAYERS for kind in ("weight", "bias")}
    )
    return model, methods.attach(model, "dst", total_steps=60, steps_per_epoch=60, alpha=alpha)


def train(golden: Mapping[str, np.ndarray]) -> Trained:
    model, attached = begun(golden, float(golden["alpha"]))
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


def train_beside_another(golden: Mapping[str, np.ndarray]) -> Trained:
    """As the second of two stacked trainings, the first of which has another alpha."""
    models, attachments = zip(*(begun(golden, factor * float(golden["alpha"])) for factor in (3, 1)), strict=True)
    stack, plain = Stack(attachments, 2), methods.finalize(copy.deepcopy(models[1]))
    optimizer = torch.optim.SGD(stack.parameters(), lr=float(golden["lr"]), momentum=float(golden["momentum"]))
    losses, keeps = [], []
    for x, y in zip(torch.tensor(golden["X"]), torch.tensor(golden["Y"]), strict=True):
        logits = vmap(lambda state, x=x: functional_call(plain, state, (x,)))(stack.effective())
        task_losses = torch.stack([F.cross_entropy(one, y) for one in logits])
        penalty = stack.penalty()
        assert penalty is not None
        optimizer.zero_grad()
        (task_losses + penalty).sum().backward()
        optimizer.step()
        stack.after_step()
        losses.append(task_losses[1].item())
        keeps.append([int(mask.sum()) for mask in attachments[1].masks().values()])
    return models[1], attachments[1], losses, keeps


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
