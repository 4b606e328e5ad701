"""STR: soft threshold weight reparameterization."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.base import Context, Method, check_positive
from methods.density_search import DensityKnob
from methods.weights.reparametrization import EffectiveWeight


class SoftThreshold(EffectiveWeight):
    """sign(W) * ReLU(|W| - sigmoid(s)): s is 0-dim."""

    def __call__(self, weight: Tensor, s: Tensor) -> Tensor:
        return weight.sign() * torch.relu(weight.abs() - s.sigmoid())

    def kept(self, weight: Tensor, s: Tensor) -> Tensor:
        return weight.abs() > s.sigmoid()

    def threshold(self, s: Tensor) -> Tensor:
        return s.sigmoid()


@dataclass(kw_only=True)
class STR(Method):
    """Learns one soft threshold for each layer, which weight decay on its parameter raises.

    Kusupati, Ramanujan, Somani, Wortsman, Jain, Kakade, Farhadi, "Soft Threshold Weight
    Reparameterization for Learnable Sparsity", ICML 2020, arXiv:2002.03231.

    With s a trainable number of each layer and g(s) = sigmoid(s), a layer computes with
        S_g(W, s) = sign(W) * ReLU(|W| - g(s))
    Pruned weights get no gradient. s starts far below 0, where g(s) is almost 0 and the network is
    dense. Weight decay on s moves it towards 0, and so raises the threshold. Without a gradient of
    the task, s(t) = s_0 * exp(-decay * sum of the learning rates); with momentum m the exponent is
    divided by 1 - m. Gradients of the task move s as they move any weight.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | threshold_weight_decay | lambda | 2.25e-5 for 90 % of ResNet-50, equal to that of the weights |
    | initial_s | s_init | -3200 for ResNet-50 |

    The density follows from both: a larger threshold_weight_decay, an initial_s nearer to 0 or a
    longer training keeps fewer weights. Where the decay is too strong, all weights are pruned.
    LeNet-300-100 on MNIST (20 epochs, SGD at 0.01 with momentum 0.9, one seed) keeps 18.7 % of its
    weights at a decay of 0.005, with 98.05 % test accuracy, and 4.6 % at 0.015, with 97.75 %.

    Departures: weights and s may decay differently; where both decays are equal, as in the paper,
    this is the authors' code. The defaults are for LeNets on MNIST, whose training is too short to
    bring s from -3200 near 0. Linear and recurrent layers have one s for each weight tensor, as
    convolutions do; the authors write the classifier as a convolution. A weight of exactly 0 gets
    no gradient, in their code too.
    """

    name = "str"
    version = 1
    reference = "arXiv:2002.03231"
    density_promise = "emergent"
    density_knob = DensityKnob(name="threshold_weight_decay", low=1e-8, high=1.0)

    threshold_weight_decay: float = 0.015
    initial_s: float = -10.0

    def __post_init__(self) -> None:
        check_positive("threshold_weight_decay", self.threshold_weight_decay, or_zero=True)
        if not float("-inf") < self.initial_s < float("inf"):
            raise ValueError(f"initial_s is {self.initial_s}: it must be a finite number")

    def enter_phase(self, ctx: Context) -> None:
        ctx.thresholds.attach_own(SoftThreshold(), lambda weight: weight.parameter.new_tensor(self.initial_s))

    def after_step(self, ctx: Context) -> None:
        ctx.thresholds.count_()
