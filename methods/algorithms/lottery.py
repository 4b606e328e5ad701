"""Lottery tickets by iterative magnitude pruning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from methods import scores, scoring
from methods.base import MOST_PHASES, Context, Method, Phase, check_fraction


@dataclass(kw_only=True)
class Lottery(Method):
    """Repeatedly trains, prunes the smallest weights, and rewinds the others to early values.

    Frankle, Carbin, "The lottery ticket hypothesis: finding sparse, trainable neural networks",
    ICLR 2019, arXiv:1803.03635. Rewinding to a later step: Frankle, Dziugaite, Roy, Carbin, "Linear
    mode connectivity and the lottery ticket hypothesis", ICML 2020, arXiv:1912.05671.

    Level 0 trains the dense network, and remembers all its parameters and buffers after k steps
    (after 0 steps: those of `bind`, so load weights before it).
    Each further level
        prunes the prune_fraction of the kept weights of least |w|, over all layers;
        gives everything that is left the values after k steps;
        trains from step k to the end, with a fresh optimizer.
    The last level prunes to the density and no further: there are
    ceil(log(density) / log(1 - prune_fraction)) levels after level 0.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | density | P_m | authors' code: what the number of levels gives |
    | prune_fraction | p | authors' code: 0.2 |
    | rewind_at | k / steps of a training | 0, or a later step |

    A density of 0.05 takes 15 trainings at prune_fraction 0.2, and six at 0.5. If the epochs are
    few in all, a larger prune_fraction leaves more of them for each training.

    Departures from the first paper: it compares magnitudes over all layers only for VGG-19 and
    ResNet-18. Its LeNets are pruned layer by layer, and the output layer at half the rate; here every
    network is pruned over all layers. From the authors' later code (open_lth): it also compares
    magnitudes over all layers, but prunes one weight more than the fraction in each level; here counts
    are exact. It does not prune the output layer of LeNet-300-100; here `exclude` leaves a layer out.
    After rewinding to a later step it continues the learning-rate schedule from step k; here the
    schedule restarts. It
    gives every level the batches of level 0; here the batches go on in their order.
    """

    name = "lottery"
    version = 1
    reference = "arXiv:1803.03635"
    density_promise = "final"
    pruned_gradients = "zero"

    density: float = 0.05
    prune_fraction: float = 0.2
    rewind_at: float = 0.0
    _level: int = field(init=False, repr=False, default=0)
    _start: dict[str, Tensor] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        if not 0 < self.prune_fraction < 1:
            raise ValueError(f"prune_fraction is {self.prune_fraction}: it must lie in (0, 1)")
        if math.log(self.density) / math.log1p(-self.prune_fraction) > MOST_PHASES:
            raise ValueError(f"prune_fraction is {self.prune_fraction}: it takes more than {MOST_PHASES} levels")
        if not 0 <= self.rewind_at < 1:
            raise ValueError(f"rewind_at is {self.rewind_at}: it must lie in [0, 1)")

    def densities(self) -> list[float]:
        """The density of each level after level 0."""
        keep = 1 - self.prune_fraction
        levels = math.ceil(math.log(self.density) / math.log(keep) - 1e-9)
        return [keep**level for level in range(1, levels)] + [self.density] * (levels > 0)

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        steps = total_steps - self._rewind_step(total_steps)
        levels = range(1, len(self.densities()) + 1)
        further = [Phase(f"level {level}", steps, new_optimizer=True, lr="restart") for level in levels]
        return Phase("level 0", total_steps), *further

    def enter_phase(self, ctx: Context) -> None:
        if ctx.phase.name == "level 0":
            ctx.kept_count(self.density)  # a density that keeps no weight fails at once
            self._remember(ctx)  # a state may be saved before `bind`
            return
        masks = self._tickets(ctx)
        self._level += 1
        _restore_(ctx.model, self._start)
        ctx.masks.set(masks)

    def begin_training(self, ctx: Context) -> None:
        if self._rewind_step(ctx.phase.steps) == 0:
            self._remember(ctx)

    def after_step(self, ctx: Context) -> None:
        if ctx.phase.name == "level 0" and ctx.step == self._rewind_step(ctx.phase.steps):
            self._remember(ctx)

    def _tickets(self, ctx: Context) -> dict[str, Tensor]:
        """The masks of the next level: the largest of the weights that are kept now."""
        sizes = {name: scores.magnitude(weight.parameter) for name, weight in ctx.weights.items()}
        total = ctx.kept_count(self.densities()[self._level])
        return scoring.highest_of_all(ctx, sizes, total, among={name: ctx.masks[name] for name in sizes})

    def _remember(self, ctx: Context) -> None:
        values = ctx.model.state_dict().items()
        self._start = {name: value.clone() for name, value in values if isinstance(value, Tensor)}

    def _rewind_step(self, total_steps: int) -> int:
        return min(round(self.rewind_at * total_steps), total_steps - 1)

    def state_dict(self) -> dict[str, Any]:
        return {"level": self._level, "start": self._start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._level, self._start = state["level"], dict(state["start"])


@torch.no_grad()
def _restore_(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give the model's buffers, and the parameters that are not frozen, these values, in place."""
    now = model.state_dict()
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    for name, value in values.items():
        if name not in frozen:
            now[name].copy_(value)
