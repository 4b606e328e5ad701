"""Pruning of filters by a first-order Taylor expansion of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.modules.conv import _ConvNd

from methods import scoring, units
from methods.base import Context, Method, Phase, check_count, check_duration, check_fraction, check_positive
from methods.layers import MaskableWeight
from methods.schedules import every, steps_of


@dataclass(kw_only=True)
class Taylor(Method):
    """Trains, then repeatedly prunes the filters that change the loss least, and trains on.

    Molchanov, Tyree, Karras, Aila, Kautz, "Pruning Convolutional Neural Networks for Resource
    Efficient Inference", ICLR 2017, arXiv:1611.06440.

    After the training, every `update_every` steps, with z the output of a filter at M positions and
    C the loss of one example:
        Theta(z) = |1/M sum_m dC/dz_m z_m|, averaged over the examples     (8)
        Theta_hat = Theta / the l2 norm of all Theta of the layer          (section 2.3)
        prune the filters of smallest Theta_hat over all layers.
    At the end the rest trains on.

    A filter is a row of the weight: a neuron of a linear layer, an output channel of a convolution,
    one gate of one hidden unit in a recurrent layer. Gates, and projections inside attention, are
    not the output of a module. Their score is |sum over the row of dC/dw w| with the loss of a
    batch: to first order, the change of the loss when the row becomes 0. The last weight of the
    model stays dense, because its rows are the model's outputs (`units.prunable`: exclude the output
    layer where it is not the last one). The first axis of an output is that of the examples.

    | hyperparameter | symbol | paper (not verified) |
    |---|---|---|
    | density | B / weights, eq. 2 | all points of a curve |
    | update_every | updates between pruning iterations | 10 for Flowers-102; more is better |
    | prune | pruning / training | one filter per iteration |
    | fine_tune | training after the pruning / training | not stated as a share |
    | score_batches | batches that score | those of the updates in between |

    Departures: the number of weights falls linearly over the pruning phase, so that this phase
    takes the same share of any training; the paper prunes one filter per iteration. Scores come
    from the first score_batches batches, in passes of their own, which `scored_examples` counts. z
    is the output before the activation, with the bias. Where ReLU follows, the products are those
    of the output after it, because where ReLU gives 0 its gradient is 0 too. There is no
    regularization by FLOPs (eq. 9). Each layer keeps at least one filter. The masks are those of
    filters: the columns of the next layer that read a pruned filter count as kept; `finalize(model,
    compact=True)` cuts them out. Biases and normalisation of pruned filters stay. At 5 %
    LeNet-300-100 keeps about ten neurons of each hidden layer, and is less accurate than a random
    mask of single weights (`static`).
    """

    name = "taylor"
    version = 1
    reference = "arXiv:1611.06440"
    density_promise = "final"
    granularity = "unit"
    pruned_gradients = "zero"

    density: float = 0.05
    update_every: int | str = "30 steps"
    prune: float = 0.25
    fine_tune: float = 0.25
    score_batches: int = 10

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_duration("update_every", self.update_every)
        for name in ("prune", "fine_tune"):
            check_positive(name, getattr(self, name))
        check_count("score_batches", self.score_batches)

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        prune, fine_tune = (max(1, round(share * total_steps)) for share in (self.prune, self.fine_tune))
        return Phase("train", total_steps), Phase("prune", prune), Phase("fine-tune", fine_tune)

    def enter_phase(self, ctx: Context) -> None:
        if ctx.phase.name == "train":  # a density that is too low, or missing data, fails at once
            units.room(ctx.weights, units.prunable(ctx.model, ctx.weights), total=self._total(ctx), method=self.name)
            scoring.batches(ctx, 1)

    def after_step(self, ctx: Context) -> None:
        period = steps_of(self.update_every, steps_per_epoch=ctx.steps_per_epoch)
        last = ctx.phase_step == ctx.phase.steps
        if ctx.phase.name != "prune" or not (last or every(ctx.phase_step, period)):
            return
        total, size = self._total(ctx), ctx.total_weights
        now = total if last else size - (size - total) * ctx.phase_step // ctx.phase.steps
        prunable = units.prunable(ctx.model, ctx.weights)
        kept = {name: units.by_unit(weight, ctx.masks[name])[:, 0] for name, weight in prunable.items()}
        scores = {name: ranked(theta, kept[name]) for name, theta in self.changes(ctx, prunable).items()}
        ctx.masks.set(units.keep_best(ctx.weights, scores, total=now, method=self.name))

    def _total(self, ctx: Context) -> int:
        return round(self.density * ctx.total_weights)

    def changes(self, ctx: Context, weights: Mapping[str, MaskableWeight]) -> dict[str, Tensor]:
        """Theta of each unit, eq. 8: [units] for each weight."""
        among = scoring.batches(ctx, self.score_batches)
        modules = {name: weight.module for name, weight in weights.items() if not weight.recurrent}
        theta = {name: weight.parameter.new_zeros(()) for name, weight in weights.items()}
        with scoring.undisturbed(ctx):
            for batch in among:
                calls = scoring.outputs_and_gradients(ctx, batch, of=modules)
                seen = {name: found for name, found in calls.items() if found}
                for name, found in seen.items():
                    by_example = sum(mean_products(weights[name], *call) for call in found)
                    theta[name] = theta[name] + torch.as_tensor(by_example).abs().mean(0) / len(among)
                unseen = weights.keys() - seen.keys()
                gradients = scoring.gradients(ctx, among=[batch]) if unseen else {}
                for name in unseen:
                    product = gradients[name] * weights[name].parameter.detach()
                    theta[name] = theta[name] + units.by_unit(weights[name], product).sum(1).abs() / len(among)
        theta = scoring.over_processes(ctx, theta)
        scoring.check_finite(ctx, theta)
        return theta


def mean_products(weight: MaskableWeight, outputs: Tensor, gradients: Tensor) -> Tensor:
    """dC/dz z of each unit, averaged over its positions: [examples, units]."""
    axis = 1 if isinstance(weight.module, _ConvNd) else -1
    product = (outputs * gradients).movedim(axis, 1) if outputs.dim() > 1 else (outputs * gradients)[None]
    return product.flatten(2).mean(2) if product.dim() > 2 else product


def ranked(theta: Tensor, kept: Tensor) -> Tensor:
    """Theta_hat of the kept units, and -inf for pruned ones: [units]."""
    theta = torch.where(kept, theta, 0)
    return torch.where(kept, theta / theta.norm().clamp_min(torch.finfo(theta.dtype).tiny), -torch.inf)
