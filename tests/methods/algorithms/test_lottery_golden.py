"""Four levels of open_lth, rewound to step 6 of 30, on a 20-16-12-4 network (golden/lottery_mlp.npz).

The file names open_lth's commit. Its fraction was set in each level so that it prunes as many
weights as this project: it prunes ceil(fraction * kept) + 1. The order of the bases of its class
Model was changed for torch 2.13.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods

GOLDEN = Path(__file__).parents[2] / "golden" / "lottery_mlp.npz"
SIZES = {"a": (20, 16), "b": (16, 12), "c": (12, 4)}
Trained = tuple[nn.Module, list[dict[str, Tensor]], list[list[float]]]


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(inputs, outputs) for inputs, outputs in SIZES.values())

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))
        return logits


@pytest.fixture(scope="module")
def golden() -> Mapping[str, np.ndarray]:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def trained(golden: Mapping[str, np.ndarray]) -> Trained:
    """The model, and the masks and losses of each level."""
    model = MLP()
    model.load_state_dict({n.removeprefix("init/"): torch.tensor(v) for n, v in golden.items() if n[:5] == "init/"})
    options = {"density": 0.2, "prune_fraction": 0.4, "rewind_at": 0.2}
    attached = methods.attach(model, "lottery", total_steps=30, steps_per_epoch=30, **options)
    batches = [(torch.tensor(x), torch.tensor(y)) for x, y in zip(golden["X"], golden["Y"], strict=True)]
    masks, losses = [], []
    for phase in attached.phases:
        masks.append(attached.masks())
        losses.append(train(model, attached, batches[30 - phase.steps :]))
    return model, masks, losses


def train(model: nn.Module, attached: methods.Attachment, batches: list[tuple[Tensor, Tensor]]) -> list[float]:
    optimizer = torch.optim.SGD(attached.parameter_groups(), lr=0.2, momentum=0.9)
    attached.bind(optimizer)
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        attached.step()
        losses.append(loss.item())
    return losses


def test_the_masks_of_every_level_are_those_of_open_lth(golden: Mapping[str, np.ndarray], trained: Trained) -> None:
    masks = trained[1]
    assert [sum(int(mask.sum()) for mask in level.values()) for level in masks] == [560, 336, 202, 121, 112]
    for level in range(1, 5):
        for name, mask in masks[level].items():
            np.testing.assert_array_equal(mask.numpy(), golden[f"masks/{level}/{name}"])


def test_the_losses_of_every_level_are_those_of_open_lth(golden: Mapping[str, np.ndarray], trained: Trained) -> None:
    for level, losses in enumerate(trained[2]):
        np.testing.assert_allclose(losses, golden[f"losses/{level}"], rtol=0, atol=1e-4)


def test_the_final_weights_are_those_of_open_lth(golden: Mapping[str, np.ndarray], trained: Trained) -> None:
    for name, value in trained[0].named_parameters():
        np.testing.assert_allclose(value.detach().numpy(), golden[f"final/{name}"], rtol=0, atol=1e-4)
