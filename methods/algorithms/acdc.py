"""Alternating compressed and decompressed training."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods import scores, scoring
from methods.base import Context, Method, check_fraction


@dataclass(kw_only=True)
class ACDC(Method):
    """Alternates between training only the largest weights and training all, and ends sparse.

    Peste, Iofinova, Vladu, Alistarh, "AC/DC: Alternating Compressed/DeCompressed Training of Deep
    Neural Networks", NeurIPS 2021, arXiv:2106.12379.

    After a dense warm-up (algorithm 1):
        compressed phase: keep the share `density` of all weights, those of largest |w| over all
        layers, and train them with this mask;
        decompressed phase: train all weights; those that were pruned start at 0, and the
        optimizer's momentum starts at 0.
    The phases have equal lengths. The training ends with a longer compressed phase, and the
    decompressed phase before it lasts until then.

    | hyperparameter | symbol | paper, as shares of the training |
    |---|---|---|
    | density | k / weights | 0.2 to 0.02 |
    | warm_up | Delta_w | 0.1 |
    | phase | Delta_c, Delta_d | 0.05 (ResNet-50), 0.1 (CIFAR) |
    | final | the last compressed phase | 0.15 |

    The defaults give the authors' schedule for ResNet-50, which has 100 epochs. Compressed phases
    of five epochs begin at epochs 10, 20, ..., 70. Decompressed phases of five epochs follow them;
    the last one lasts from epoch 75 to 85. The network is compressed from epoch 85 to the end.

    Departures: the momentum of maskable weights is reset, but not that of biases and
    normalisation. With Adam both moments are reset. Layers that are frozen at `attach` are never
    decompressed, because their pruned weights would stay 0.
    """

    name = "acdc"
    version = 1
    reference = "arXiv:2106.12379"
    density_promise = "final"
    pruned_gradients = "zero"

    density: float = 0.05
    warm_up: float = 0.1
    phase: float = 0.05
    final: float = 0.15

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_fraction("warm_up", self.warm_up, low_open=False)
        check_fraction("phase", self.phase)
        check_fraction("final", self.final)
        if self.warm_up + self.final > 1:
            raise ValueError(f"warm_up and final are {self.warm_up} and {self.final}: their sum must be at most 1")

    def enter_phase(self, ctx: Context) -> None:
        ctx.kept_count(self.density)  # a density that keeps no weight fails at once
        if self.compressed(0, ctx.total_steps):
            self._compress(ctx)

    def after_step(self, ctx: Context) -> None:
        before, now = (self.compressed(step, ctx.total_steps) for step in (ctx.step - 1, ctx.step))
        if now and not before:
            self._compress(ctx)
        elif before and not now:
            self._decompress(ctx)

    def compressed(self, step: int, total_steps: int) -> bool:
        """Whether the step that follows `step` completed ones belongs to a compressed phase."""
        begin, end = round(self.warm_up * total_steps), round((1 - self.final) * total_steps)
        length = max(1, round(self.phase * total_steps))
        number, within = divmod(step - begin, 2 * length)
        return step >= min(end, total_steps - 1) or (
            step >= begin and within < length and begin + number * 2 * length + length < end
        )

    @torch.no_grad()
    def _compress(self, ctx: Context) -> None:
        sizes = {name: scores.magnitude(weight.parameter) for name, weight in ctx.weights.items()}
        ctx.masks.set(scoring.highest_of_all(ctx, sizes, ctx.kept_count(self.density)))

    def _decompress(self, ctx: Context) -> None:
        assert ctx.optimizer is not None, "a step needs a bound optimizer"
        trains = [name for name, weight in ctx.weights.items() if weight.parameter.requires_grad]
        everywhere = {name: torch.ones_like(ctx.masks[name]) for name in trains}
        ctx.masks.set(everywhere)
        ctx.masks.zero_optimizer_state_(ctx.optimizer, everywhere)
