"""One method on one network: what the checks look at, and how they compare trainings."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import Method
from methods.conformance.networks import Network
from methods.conformance.training import PLAIN, SPARSE, Moment, Training, Way, differing


@dataclass
class Trial:
    """One method on one network, trained in one way. The training that most checks look at runs once.

    every_step: whether to resume from every step, or only from those around updates and phases.
    reports: what the other processes reported, once they have run.
    """

    make: Callable[[], Method]
    network: Network
    way: Way = PLAIN
    every_step: bool = False
    reports: list[dict[str, Any]] | None = None

    def train(self, **options: Any) -> Training:
        return Training(self.make(), self.network, self.way, **options)

    def in_way(self, **changes: Any) -> Trial:
        """The same trial, trained in another way."""
        return Trial(self.make, self.network, dataclasses.replace(self.way, **changes))

    @cached_property
    def training(self) -> Training:
        return self.train(recorded=True, saves=self.way in (PLAIN, SPARSE)).run()

    @property
    def method(self) -> Method:
        return self.training.method

    @property
    def moments(self) -> list[Moment]:
        return self.training.moments

    @cached_property
    def maskable(self) -> dict[str, nn.Parameter]:
        named = self.training.plain.named_parameters()
        return {name: p for name, p in named if p.dim() > 1 and name not in self.network.dense}

    @cached_property
    def random_outputs(self) -> bool:
        """Whether the model's outputs are random in training mode."""
        model, x = copy.deepcopy(self.training.model).train(), self.network.batches()[0][0]
        with torch.no_grad():
            return not torch.equal(model(x), model(x))


Check = Callable[[Trial], Iterator[str]]


@torch.no_grad()
def outputs(model: nn.Module, network: Network) -> Tensor:
    """The outputs of the first batch in evaluation mode; the modes are as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    found: Tensor = model.eval()(network.batches()[0][0])
    for module, mode in modes:
        module.training = mode
    return found


def differences(want: list[Moment], got: list[Moment], *, first: int = 0) -> Iterator[str]:
    """What differs between two trainings that should be equal bit for bit."""
    for step, (a, b) in enumerate(zip(want, got, strict=True), start=first):
        if names := differing(a.masks, b.masks):
            yield f"masks of {', '.join(names)} differ at step {step}"
        if names := differing(a.parameters, b.parameters):
            yield f"{', '.join(names)} differ at step {step}"
        if step and a.loss != b.loss:
            yield f"the loss differs at step {step}"
        if a.scored_examples != b.scored_examples:
            yield f"{b.scored_examples} examples are scored at step {step}, not {a.scored_examples}"
