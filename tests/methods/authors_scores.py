"""The networks that the authors' code scored once: weights, data, and what it found (golden/*.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import methods

GOLDEN = Path(__file__).parents[1] / "golden"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return found


def network(golden: dict[str, Any]) -> nn.Module:
    """12-8-6-4 with ReLU between, with the weights that were scored."""
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    model.load_state_dict({name: torch.tensor(value) for name, value in golden["weights"].items()})
    return model


def masks_of(name: str, golden: dict[str, Any], **values: Any) -> dict[str, Tensor]:
    batch = torch.tensor(golden["inputs"]), torch.tensor(golden["targets"])
    attached = methods.attach(
        network(golden), name, total_steps=4, steps_per_epoch=2, train_batches=lambda: [batch], **values
    )
    return attached.masks()


def theirs(golden: dict[str, Any]) -> dict[str, Tensor]:
    return {name: torch.tensor(mask) != 0 for name, mask in golden["masks"].items()}
