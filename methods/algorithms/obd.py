"""Optimal Brain Damage."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from methods import scoring
from methods.base import MOST_PHASES, Context, Method, Phase, check_count, check_fraction, check_positive

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(kw_only=True)
class OBD(Method):
    """Trains, then in rounds deletes the weights whose deletion raises the loss least, and trains on.

    Le Cun, Denker, Solla, "Optimal Brain Damage", NIPS 2 (1989).

    After the training, in each round, with E the mean loss and u_k the weights (section 2.2):
        h_kk = d^2 E / du_k^2
        s_k = h_kk u_k^2 / 2
        delete the weights of smallest s_k over all layers, and train on with the rest.
    A deleted weight stays 0. After round r of R the share density^(r / R) of all weights is left.

    h_kk is the diagonal of J^T H J, summed over the examples: J is the derivative of the network's
    outputs with respect to the weights, H the Hessian of the loss with respect to the outputs. This
    is the Levenberg-Marquardt approximation of section 2.1, which leaves out the term with the
    second derivative of the activations, so that h_kk is never negative. For networks whose
    activations are piecewise linear, it is the diagonal of the Hessian itself. It is estimated:
        h_kk ~ (d/du_k sum over examples of z^T H^(1/2) r)^2
    with the outputs z and random signs r, averaged over score_batches batches. The expectation is
    exact, because the signs of two examples or outputs are independent.

    | hyperparameter | symbol | paper (not verified) |
    |---|---|---|
    | density | | 0.25 |
    | rounds | iterations of the recipe | several |
    | retrain | steps of one round / training | until a reasonable solution is obtained |
    | score_batches | | the training set |

    Departures: the paper computes h_kk by a backward pass of second derivatives, which also leaves
    out the terms between two units of a layer. The estimate here includes these terms and works for
    any layer, but it is noisy: with 50 batches its standard deviation is about 20 % of h_kk. Biases
    are never deleted. The model is in evaluation mode while it is scored.
    """

    name = "obd"
    version = 1
    reference = "NIPS 1989"
    density_promise = "final"
    pruned_gradients = "zero"

    density: float = 0.05
    rounds: int = 5
    retrain: float = 0.2
    score_batches: int = 50

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_count("rounds", self.rounds, most=MOST_PHASES)
        check_count("score_batches", self.score_batches)
        check_positive("retrain", self.retrain)

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        steps = max(1, round(self.retrain * total_steps))
        return Phase("train", total_steps), *(Phase(f"round {r + 1}", steps) for r in range(self.rounds))

    def enter_phase(self, ctx: Context) -> None:
        if ctx.phase.name == "train":
            scoring.batches(ctx, 1)  # no data to score on fails at once, and so does a density that keeps no weight
            ctx.kept_count(self.density)
            return
        share = self.density ** (int(ctx.phase.name.removeprefix("round ")) / self.rounds)
        kept = {name: ctx.masks[name] for name in ctx.weights}
        ctx.masks.set(scoring.highest_of_all(ctx, self.saliencies(ctx), ctx.kept_count(share), among=kept))

    def saliencies(self, ctx: Context) -> dict[str, Tensor]:
        """s_k of each weight, in its shape."""
        curvature = second_derivatives(ctx, batches=self.score_batches)
        found = {name: curvature[name] * w.parameter.detach() ** 2 / 2 for name, w in ctx.weights.items()}
        found = scoring.over_processes(ctx, found)
        scoring.check_finite(ctx, found)
        return found


def second_derivatives(ctx: Context, *, batches: int) -> dict[str, Tensor]:
    """The estimate of h_kk for each weight, in its shape: the mean over the first batches."""
    among = scoring.batches(ctx, batches)
    estimates = {name: torch.zeros_like(weight.parameter) for name, weight in ctx.weights.items()}
    projected = dataclasses.replace(ctx, loss_fn=functools.partial(projection, ctx.loss_fn, ctx.generator))
    # cuDNN computes no gradients of recurrent layers in evaluation mode
    with scoring.undisturbed(ctx, train=False), torch.backends.cudnn.flags(enabled=False):
        for batch in among:
            for name, gradient in scoring.gradients(projected, among=[batch]).items():
                estimates[name] += gradient**2 / len(among)
    ctx.scored_examples = projected.scored_examples
    return estimates


def projection(loss_fn: Loss, generator: torch.Generator, outputs: Tensor, target: Tensor) -> Tensor:
    """sum over examples of z^T H^(1/2) r, where only z has a gradient: 0-dim. outputs: [examples, ...]."""
    hessian = output_hessian(loss_fn, outputs, target)
    if not bool(hessian.isfinite().all()):
        raise ValueError("obd: the second derivatives of the loss of a batch to score on are not finite")
    values, vectors = torch.linalg.eigh(hessian.double())
    signs = torch.randint(2, values.shape, generator=generator, dtype=torch.float64, device="cpu") * 2 - 1
    roots = values.clamp_min(0).sqrt()
    # the symmetric root: unlike an eigenvector, whose sign is arbitrary, it changes little where H does
    direction = torch.einsum("nij,nj,nkj,nk->ni", vectors, roots, vectors, signs.to(values.device)).to(outputs.dtype)
    return (outputs.flatten(1) * direction).sum()


def output_hessian(loss_fn: Loss, outputs: Tensor, target: Tensor) -> Tensor:
    """The Hessian of the loss with respect to each example's outputs: [examples, outputs, outputs]."""
    outputs = outputs.detach().requires_grad_()
    loss = loss_fn(outputs, target)
    scoring.check_scalar(loss, method="obd")
    (slope,) = torch.autograd.grad(loss, outputs, create_graph=True)
    columns = slope.flatten(1).sum(0)
    if not columns.requires_grad:  # a loss that is linear in the outputs
        return torch.zeros(len(outputs), len(columns), len(columns), dtype=outputs.dtype, device=outputs.device)
    rows = [torch.autograd.grad(column, outputs, retain_graph=True)[0].flatten(1) for column in columns]
    return torch.stack(rows, 1)
