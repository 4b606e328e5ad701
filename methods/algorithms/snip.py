"""SNIP: single-shot network pruning."""

from __future__ import annotations

from dataclasses import dataclass

from methods import scoring
from methods.base import Context, Method, check_count, check_fraction


@dataclass(kw_only=True)
class SNIP(Method):
    """Prunes once, before training, the weights whose removal changes the loss of a batch least.

    Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR
    2019, arXiv:1810.02340.

    With c the mask, c_j = 1 for each connection before pruning, and L the loss of a batch:
        g_j = dL(c * w) / dc_j at c = 1, which is w_j * dL / dw_j
        s_j = |g_j| / sum over k of |g_k|
        c_j = 1 for the kappa largest s_j over all layers, else 0

    The kept weights train from their initial values. The sum over k divides all scores by the same
    number and changes no mask, so it is left out.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | density | kappa / m | 0.05, 0.02 for LeNet-300-100; 0.02, 0.01 for LeNet-5 |
    | batches | size of D^b | 1: one batch of the training |

    Departures: the weights that are scored are also those that train; the authors' code may draw
    them anew after scoring. Biases are neither scored nor pruned; the authors' code prunes them
    with the weights. Exactly round(density * weights) are kept; ties go to the earlier entry. The
    model is in training mode while it is scored, so batch normalisation uses the batch; the
    authors' code scores in evaluation mode.
    """

    name = "snip"
    version = 1
    reference = "arXiv:1810.02340"
    density_promise = "exact"
    pruned_gradients = "zero"

    density: float = 0.05
    batches: int = 1

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_count("batches", self.batches)

    def enter_phase(self, ctx: Context) -> None:
        with scoring.undisturbed(ctx):
            gradients = scoring.gradients(ctx, among=scoring.batches(ctx, self.batches))
        sensitivity = {
            name: (weight.parameter.detach() * gradients[name]).abs() for name, weight in ctx.weights.items()
        }
        scoring.keep_highest(ctx, sensitivity, density=self.density)
