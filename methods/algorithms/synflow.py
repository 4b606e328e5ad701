"""SynFlow: iterative synaptic flow pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from methods import scores, scoring
from methods.base import Context, Method, check_count, check_fraction


@dataclass(kw_only=True)
class SynFlow(Method):
    """Prunes before training, in many rounds and without data, so that no layer is cut off.

    Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by iteratively
    conserving synaptic flow", NeurIPS 2020, arXiv:2006.05467.

    With all parameters replaced by their absolute values and an input of ones:
        R = the sum of the model's outputs
        S = |dR/dw * w|
    In round k of n, the round(density^(k/n) * weights) weights of the highest S are kept, over all
    layers; R is then computed without the others.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | density | 1 / rho | 1 to 0.001 and below (not verified) |
    | rounds | n | 100 |

    The input has the shape of an example of `train_batches`, whose values are not used. The model
    is in evaluation mode, so that batch normalisation divides by its stored variance; this is also
    the default of the authors' code. The sum of S is the same in every layer only where activations
    are homogeneous, such as ReLU. Recurrent layers and attention are scored in the same way, but
    there a layer may be cut off.

    Departures: R and S are computed in float64, because R of a deep network overflows float32.
    Inputs that are whole numbers (tokens) are ones of their type. Exactly the stated numbers are
    kept; the authors' rounding may keep fewer.
    """

    name = "synflow"
    version = 1
    reference = "arXiv:2006.05467"
    density_promise = "exact"
    pruned_gradients = "zero"

    density: float = 0.05
    rounds: int = 100

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_count("rounds", self.rounds)

    def enter_phase(self, ctx: Context) -> None:
        masks = {name: torch.ones_like(weight.parameter, dtype=torch.bool) for name, weight in ctx.weights.items()}
        ones = input_of_ones(ctx)
        with scoring.undisturbed(ctx, train=False), scoring.absolute(ctx.model):
            for number in range(1, self.rounds):
                count = max(1, round(self.density ** (number / self.rounds) * ctx.total_weights))
                masks = scores.top_of_all(synaptic_flow(ctx, ones, masks), count, among=masks)
            flow = synaptic_flow(ctx, ones, masks)
        scoring.keep_highest(ctx, flow, density=self.density, among=masks)


def input_of_ones(ctx: Context) -> Tensor:
    """One example of ones in the shape of the training's: [1, ...], float64 or whole numbers."""
    inputs, _ = scoring.batches(ctx, 1)[0]
    return torch.ones_like(inputs[:1], dtype=torch.float64 if inputs.is_floating_point() else inputs.dtype)


def synaptic_flow(ctx: Context, ones: Tensor, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """|dR/dw * w| of each weight, where only the weights in the masks are not 0: float64.

    Zeroes the others. Call it where the model is `scoring.absolute`. Raises ValueError where R or a
    score is not finite.
    """
    weights = {name: weight.parameter for name, weight in ctx.weights.items()}
    for name, weight in weights.items():
        weight.data.mul_(masks[name])
    try:
        gradients = scoring.gradients_of(ctx, lambda: ctx.model(ones).sum(), what="R, the sum of the outputs,")
    except RuntimeError as error:
        if "dtype" not in str(error):
            raise
        raise ValueError(
            f"{ctx.method_name}: the model cannot compute in float64, so it casts inside: {error}"
        ) from error
    ctx.scored_examples += 1
    return {name: (gradients[name] * weight.detach()).abs() for name, weight in weights.items()}
