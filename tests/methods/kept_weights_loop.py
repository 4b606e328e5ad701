"""A training with a chosen execution, for tests that compare kept weights with dense ones."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import methods

DOUBLE = torch.float64
X = torch.randn(16, 20, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
Y = torch.arange(16) % 10


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(20, 30, dtype=DOUBLE)
        self.b = nn.Linear(30, 24, dtype=DOUBLE)
        self.c = nn.Linear(24, 10, dtype=DOUBLE)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(F.relu(self.b(F.relu(self.a(x)))))
        return y


class Loop:
    """A training with one execution. `finish` gives everything that has to be equal."""

    def __init__(self, execution: Any, method: str = "set", net: Callable[[], nn.Module] = Net, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = net()
        self.execution = execution
        options = {"density": 0.2, "total_steps": 24, "steps_per_epoch": 3} | options
        self.attached = methods.attach(
            self.model, method, execution=execution, train_batches=lambda: [(X, Y)], **options
        )

    def bind(self, make: Callable[..., torch.optim.Optimizer] | None = None) -> Loop:
        self.make = make or (lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True))
        self.optimizer = self.make(self.attached.parameter_groups(weight_decay=1e-3))
        self.attached.bind(self.optimizer)
        return self

    def loss(self) -> Tensor:
        return F.cross_entropy(self.model(X), Y)

    def step(self, add: Callable[[], Tensor] | None = None) -> None:
        self.optimizer.zero_grad()
        extra = add() if add is not None else 0.0  # before the forward pass
        (self.loss() + extra).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
        if self.attached.step() and self.attached.phase.new_optimizer:
            self.bind(self.make)

    def run(self, steps: int) -> Loop:
        for _ in range(steps):
            self.step()
        return self

    def state(self) -> dict[str, Any]:
        parts = {"attached": self.attached, "model": self.model, "optimizer": self.optimizer}
        file = io.BytesIO()
        torch.save({name: part.state_dict() for name, part in parts.items()}, file)  # type: ignore[attr-defined]
        file.seek(0)
        state: dict[str, Any] = torch.load(file, weights_only=True)
        return state

    def load(self, state: dict[str, Any]) -> Loop:
        self.attached.load_state_dict(state["attached"])
        self.model.load_state_dict(state["model"])
        self.bind()
        self.optimizer.load_state_dict(state["optimizer"])
        return self

    def finish(self) -> list[Tensor]:
        masks = list(self.attached.masks().values())
        return masks + [value.clone() for value in methods.finalize(self.model).state_dict().values()]


def linear(attached_model: nn.Module, name: str = "a") -> nn.Linear:
    layer = attached_model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def assert_same(way: Callable[[Any], list[Tensor]], *, tolerance: float = 1e-9) -> None:
    """The tensors that a way of training gives with kept weights only are those of dense execution."""
    for dense, sparse in zip(way("dense"), way("sparse"), strict=True):
        assert dense.shape == sparse.shape
        torch.testing.assert_close(sparse.detach(), dense.detach(), rtol=0, atol=tolerance)


def all_sparse(loop: Loop) -> bool:
    return set(loop.attached.executions().values()) == {"sparse"}
