"""GraSP: gradient signal preservation."""

from __future__ import annotations

from dataclasses import dataclass

from methods import scoring
from methods.base import Context, Method, check_count, check_fraction, check_positive


@dataclass(kw_only=True)
class GraSP(Method):
    """Prunes once, before training, the weights whose removal lowers the gradient's norm least.

    Wang, Zhang, Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR
    2020, arXiv:2002.07376.

    With g the gradient of the loss over some examples of each class and H its Hessian, the removal
    of weight q changes the squared norm of the gradient, to first order and up to a factor, by
        S(-w_q) = -w_q * (H g)_q
    The weights with the highest S are removed, over all layers: without them the norm is largest.
    The loss is that of the model's outputs divided by a temperature T.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | density | 1 - p | 0.1, 0.05 and 0.02 on CIFAR (not verified) |
    | samples_per_class | | 10 |
    | temperature | T | 200 (the authors' code) |

    Departures: the first examples of each class are used, in equal batches no larger than those of
    the training and in the training's order; the authors' code passes them in two halves, sorted by
    class, which differs where batch normalisation uses a batch's statistics. All weights keep their
    initial values; the authors' code draws those of linear layers anew before it scores. Exactly
    round(density * weights) are kept; their code keeps all that tie with the last one.
    """

    name = "grasp"
    version = 1
    reference = "arXiv:2002.07376"
    density_promise = "exact"
    pruned_gradients = "zero"

    density: float = 0.05
    samples_per_class: int = 10
    temperature: float = 200.0

    def __post_init__(self) -> None:
        check_fraction("density", self.density)
        check_count("samples_per_class", self.samples_per_class)
        check_positive("temperature", self.temperature)

    def enter_phase(self, ctx: Context) -> None:
        with scoring.undisturbed(ctx):
            examples = scoring.examples_of_each_class(ctx, self.samples_per_class)
            products = scoring.hessian_gradients(ctx, among=examples, temperature=self.temperature)
        kept_flow = {name: weight.parameter.detach() * products[name] for name, weight in ctx.weights.items()}
        scoring.keep_highest(ctx, kept_flow, density=self.density)
