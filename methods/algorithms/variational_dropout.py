"""Sparse variational dropout."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._compile import _disable_dynamo

from methods import scoring
from methods.base import Context, Method, check_count
from methods.density_search import DensityKnob
from methods.weights.reparametrization import EffectiveWeight

K1, K2, K3 = 0.63576, 1.87320, 1.48695
CLIP = 8.0  # log alpha is clipped to [-8, 8]


@dataclass(kw_only=True)
class VariationalDropout(Method):
    """Learns the noise of each weight and prunes the weights that are mostly noise.

    Molchanov, Ashukha, Vetrov, "Variational Dropout Sparsifies Deep Neural Networks", ICML 2017,
    arXiv:1701.05369.

    Each weight is normal with mean theta and variance sigma^2, and alpha = sigma^2 / theta^2:
        linear layers, local reparameterization: with inputs x and noise e ~ N(0, 1) for each output
            y = x theta + sqrt(x^2 sigma^2) * e + bias
        -KL(alpha) ~ k1 S(k2 + k3 log alpha) - 0.5 log(1 + 1 / alpha) - k1
            with the sigmoid S, k1 = 0.63576, k2 = 1.87320 and k3 = 1.48695
        loss = mean task loss + r / N * sum of KL(alpha) over all weights
    N is the number of training examples. r is the warm-up: first 0, then rising linearly to 1, then
    1. A weight is pruned where log alpha >= threshold: its mean is 0, in training it still has its
    noise, and in evaluation it is 0. log sigma^2 is a parameter beside each weight, with the name
    <weight>_threshold.

    | hyperparameter | symbol | paper |
    |---|---|---|
    | threshold | of log alpha | 3 |
    | initial_log_sigma2 | | -10 (the authors' code) |
    | warm_up | r | epochs 5 to 20 of 200 (the authors' code), here as fractions of the training |
    | train_examples | N | by default the batches of an epoch times the examples of the first one |

    Give train_examples where several processes have batches of their own, or where a step takes
    several batches of a generator: the default is too small there. A lower threshold or a smaller
    train_examples keeps fewer weights. The KL term pulls theta to 0
    with a force of about 1 / (N theta), so it needs many steps times learning rate; the authors
    train for 200 epochs with Adam. LeNet-300-100 on MNIST (5 epochs, SGD at 0.04 with momentum 0.9,
    one seed) keeps 5.5 % of its weights, with 96.95 % test accuracy. On a data set with far fewer
    examples than weights the KL term outweighs the task loss and prunes everything. The 1437
    examples of the embedded digits are too few: set train_examples to more, such as 20000.

    Departures: layers other than linear ones draw one random weight for each forward pass, not
    noise for each output, so all examples of a batch share a filter and all time steps a recurrent
    weight. A pruned weight of a convolution keeps its noise in training; in the authors' LeNet-5 it
    loses it. alpha is sigma^2 / (theta^2 + 1e-8), as in the authors' convolutions. Where a step has
    several passes or processes, each of them draws its noise, so the result depends on their
    number. Activation checkpointing is refused, since the second pass would draw other noise.
    """

    name = "variational_dropout"
    version = 1
    reference = "arXiv:1701.05369"
    density_promise = "emergent"
    weight_gradient = "dense"
    density_knob = DensityKnob(name="threshold", low=0.05, high=CLIP, rising=True)

    threshold: float = 3.0
    initial_log_sigma2: float = -10.0
    warm_up: tuple[float, ...] = (0.025, 0.1)
    train_examples: int | None = None
    _examples: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        if not -CLIP < self.threshold <= CLIP:
            raise ValueError(f"threshold is {self.threshold}: it must lie in (-{CLIP:g}, {CLIP:g}], as log alpha does")
        if not float("-inf") < self.initial_log_sigma2 < float("inf"):
            raise ValueError(f"initial_log_sigma2 is {self.initial_log_sigma2}: it must be a finite number")
        check_interval("warm_up", self.warm_up)
        if self.train_examples is not None:
            check_count("train_examples", self.train_examples)

    def enter_phase(self, ctx: Context) -> None:
        if half := [name for name, weight in ctx.weights.items() if weight.parameter.dtype == torch.float16]:
            raise ValueError(
                f"{self.name}: variances of {', '.join(half)} underflow in float16: use bfloat16 or float32"
            )
        self._examples = self.train_examples or examples_of(ctx)
        ctx.thresholds.attach_own(
            NoisyWeight(ctx.generator, self.threshold),
            lambda weight: torch.full_like(weight.parameter, self.initial_log_sigma2),
        )

    def penalty(self, ctx: Context) -> Tensor:
        start, end = (fraction * ctx.total_steps for fraction in self.warm_up)
        scale = min(max((ctx.step - start) / (end - start), 0.0), 1.0) / self._examples
        log_sigma2 = ctx.thresholds.parameters()
        device = ctx.thresholds.resets.device
        sums = [divergence(log_alpha(w.parameter, log_sigma2[name])).to(device) for name, w in ctx.weights.items()]
        return scale * torch.stack(sums).sum()

    def after_step(self, ctx: Context) -> None:
        ctx.thresholds.count_()


class NoisyWeight(EffectiveWeight):
    """theta where log alpha is below the threshold, else 0; in training with noise of variance sigma^2."""

    stochastic = True

    def __init__(self, generator: torch.Generator, threshold: float) -> None:
        self.generator = generator
        self.limit = threshold

    def __call__(self, weight: Tensor, log_sigma2: Tensor) -> Tensor:
        return torch.where(self.kept(weight, log_sigma2), weight, 0)

    def kept(self, weight: Tensor, log_sigma2: Tensor) -> Tensor:
        return log_alpha(weight, log_sigma2).lt(self.limit)

    def sampled(self, weight: Tensor, log_sigma2: Tensor) -> Tensor:
        mean, variance = self.moments(weight, log_sigma2)
        noise: Tensor = standard_normal(weight, self.generator)
        return mean + (variance + 1e-16).sqrt() * noise

    def sampled_linear(self, inputs: Tensor, weight: Tensor, log_sigma2: Tensor, bias: Tensor | None) -> Tensor:
        mean, variance = self.moments(weight, log_sigma2)
        outputs, spread = F.linear(inputs, mean, bias), F.linear(inputs.square(), variance).float()
        noise: Tensor = standard_normal(spread, self.generator)
        return outputs + ((spread + 1e-8).sqrt() * noise).to(outputs.dtype)

    def moments(self, weight: Tensor, log_sigma2: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the variance of each weight in training: alpha * theta^2, with the clipped alpha."""
        noisiness = log_alpha(weight, log_sigma2)
        return torch.where(noisiness < self.limit, weight, 0), noisiness.exp() * (weight.square() + 1e-8)


def log_alpha(weight: Tensor, log_sigma2: Tensor) -> Tensor:
    """log(sigma^2 / theta^2) of each weight, clipped to [-8, 8]."""
    return (log_sigma2 - (weight.square() + 1e-8).log()).clamp(-CLIP, CLIP)


def divergence(log_alpha: Tensor) -> Tensor:
    """The sum of KL(alpha) over all entries: 0-dim, 0 where all weights are noise."""
    return (K1 * (1 - torch.sigmoid(K2 + K3 * log_alpha)) + 0.5 * F.softplus(-log_alpha)).sum()


@_disable_dynamo  # as torch.compiler.disable, which imports the compiler at once: a second at every start
def standard_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise in the shape, type and on the device of `like`.

    On other devices than the CPU it comes from a generator there, seeded by this one. Raises
    RuntimeError in a backward pass, which would compute a layer again with other noise.
    """
    if torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            "variational_dropout: activation checkpointing computes this layer again, with other noise than before: "
            "train without checkpointing, or exclude the layers in it"
        )
    if like.device.type == "cpu":
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device="cpu")
    seed = int(torch.randint(2**62, (), generator=generator, device="cpu"))
    there = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=there, dtype=like.dtype, device=like.device)


def examples_of(ctx: Context) -> int:
    """The number of training examples: the batches of an epoch times the examples of the first one.

    An epoch has at least a batch per step, and all batches of `train_batches` where it has a length:
    a step that accumulates gradients takes several.
    """
    try:
        _, target = scoring.batches(ctx, 1)[0]
    except ValueError as error:
        raise ValueError(
            f"{ctx.method_name}: give train_examples=…, the number of training examples, or attach(train_batches=…) "
            f"of known size ({error})"
        ) from error
    return max(ctx.steps_per_epoch, operator.length_hint(ctx.train_batches())) * len(target)


def check_interval(name: str, value: Sequence[float]) -> None:
    """Raises ValueError unless the value is two fractions, the second the larger one."""
    if len(value) != 2 or not 0 <= value[0] < value[1] <= 1:
        raise ValueError(f"{name} is {value}: it must be two fractions of the training, the second the larger one")
