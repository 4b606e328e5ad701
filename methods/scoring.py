"""Scoring weights on training data, outside of the training steps.

A method calls these functions in `enter_phase` or after a step. Inside `undisturbed` they leave the
model as it was: gradients, buffers, modes and the random state of dropout. They count the examples
in `Context.scored_examples`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from methods import scores
from methods.base import Context
from methods.checks import ranks

LOSS = "the loss of a batch to score on"


def batches(ctx: Context, count: int) -> list[tuple[Tensor, Tensor]]:
    """The first `count` batches of `train_batches`, or all where there are fewer.

    Raises ValueError where there is none, and for a batch that is no pair of inputs and targets.
    """
    found = [pair(ctx, batch) for batch in itertools.islice(ctx.train_batches(), count)]
    if not found:
        raise ValueError(f"{ctx.method_name}: train_batches() gave no batch to score on")
    return found


def pair(ctx: Context, batch: object) -> tuple[Tensor, Tensor]:
    """A batch as (inputs, target). Raises ValueError unless it is a pair with a target per example."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        found = f"with {len(batch)} parts" if isinstance(batch, (tuple, list)) else f"of type {type(batch).__name__}"
        raise ValueError(f"{ctx.method_name}: train_batches() gave a batch {found}: let it give pairs (inputs, target)")
    inputs, target = batch
    if not isinstance(target, Tensor) or target.dim() == 0:
        found = "one number" if isinstance(target, Tensor) else f"a {type(target).__name__}"
        raise ValueError(f"{ctx.method_name}: a batch's target is {found}, not a tensor with an entry per example")
    return inputs, target


def check_scalar(value: object, *, method: str, what: str = LOSS) -> None:
    """Raises ValueError unless the value is a tensor of one finite number."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{method}: {what} is a {type(value).__name__}, not a tensor of one number")
    if value.numel() != 1:
        raise ValueError(f"{method}: {what} has shape {list(value.shape)}: it must be one number, such as a mean")
    if not bool(torch.isfinite(value)):
        raise ValueError(f"{method}: {what} is {value.item()}")


@contextlib.contextmanager
def undisturbed(ctx: Context, *, train: bool = True) -> Iterator[None]:
    """Restores the model's modes, buffers and random numbers at the end of the `with` block.

    Inside, gradients are enabled. train: whether the model is in training mode inside. Weights are
    not restored: a caller that writes them has to do it.
    """
    model = ctx.model
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    try:
        model.train(train)
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            torch.manual_seed(ctx.generator.initial_seed())
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def gradients(
    ctx: Context, *, among: Sequence[tuple[Tensor, Tensor]], create_graph: bool = False, temperature: float = 1.0
) -> dict[str, Tensor]:
    """The gradient of the mean loss over batches, for each maskable weight, in its shape.

    A weight that does not reach the loss has gradient 0. among: (inputs, targets) batches; each
    counts by its number of examples. create_graph: the gradients can be differentiated.
    temperature: the model's outputs are divided by it. Call it inside `undisturbed`. Raises
    ValueError where the loss or a gradient is not finite.
    """
    examples = sum(len(target) for _, target in among)
    sums = {name: torch.zeros_like(weight.parameter) for name, weight in ctx.weights.items()}
    for inputs, target in among:
        found = gradients_of(ctx, functools.partial(_loss, ctx, inputs, target, temperature), create_graph=create_graph)
        sums = {name: total + len(target) / examples * found[name] for name, total in sums.items()}
        ctx.scored_examples += len(target)
    return sums


def _loss(ctx: Context, inputs: Tensor, target: Tensor, temperature: float) -> Tensor:
    outputs = ctx.model(inputs)
    return ctx.loss_fn(outputs if temperature == 1 else outputs / temperature, target)


def gradients_of(
    ctx: Context,
    value: Callable[[], Tensor],
    *,
    what: str = LOSS,
    create_graph: bool = False,
) -> dict[str, Tensor]:
    """The gradient of a 0-dim value for each maskable weight, in its shape.

    A weight that the value does not depend on has gradient 0. what: the value's name in an error.
    Raises ValueError where the value or a gradient is not finite.
    """
    weights = [weight.parameter for weight in ctx.weights.values()]
    with _all_require_grad(weights):
        result = value()
        check_scalar(result, method=ctx.method_name, what=what)
        found = torch.autograd.grad(result, weights, create_graph=create_graph, allow_unused=True)
    filled = [torch.zeros_like(w) if part is None else part for w, part in zip(weights, found, strict=True)]
    named = dict(zip(ctx.weights, filled, strict=True))
    check_finite(ctx, named)
    return named


def hessian_gradients(
    ctx: Context, *, among: Sequence[tuple[Tensor, Tensor]], temperature: float = 1.0
) -> dict[str, Tensor]:
    """H g of the mean loss over batches, g its gradient and H its Hessian over the maskable weights.

    Each batch passes through the model twice. Arguments, shapes and errors are those of `gradients`.
    """
    weights = [weight.parameter for weight in ctx.weights.values()]
    examples = sum(len(target) for _, target in among)
    products = {name: torch.zeros_like(weight.parameter) for name, weight in ctx.weights.items()}
    with _all_require_grad(weights), _twice_differentiable(ctx.model):
        whole = gradients(ctx, among=among, temperature=temperature)
        for batch in among:
            found = gradients(ctx, among=[batch], create_graph=True, temperature=temperature)
            part = gradients_of(
                ctx, functools.partial(_inner_product, whole, found), what="the squared gradient of a batch"
            )
            products = {name: total + len(batch[1]) / examples * part[name] for name, total in products.items()}
    return products


def _inner_product(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensor:
    parts = [(a[name] * b[name]).sum() for name in a]
    return torch.stack([part.to(parts[0].device) for part in parts]).sum()


def examples_of_each_class(ctx: Context, count: int) -> list[tuple[Tensor, Tensor]]:
    """The first `count` examples of each class in one pass over `train_batches`.

    They are returned in equal batches, none larger than the first batch of the training. The pass
    ends early when it has them for as many classes as the model has outputs. A class with fewer
    examples gives all of them. Raises ValueError for targets that are not class numbers.
    """
    taken: dict[int, int] = {}
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    for batch, target in (pair(ctx, one) for one in ctx.train_batches()):
        if target.dim() != 1 or target.is_floating_point():
            raise ValueError(f"{ctx.method_name}: targets are {target.dtype} {list(target.shape)}, not class numbers")
        if not targets:
            with torch.no_grad():
                size, classes = len(batch), ctx.model(batch).shape[-1]
        places = []
        for place, label in enumerate(target.tolist()):
            if taken.get(label, 0) < count:
                taken[label] = taken.get(label, 0) + 1
                places.append(place)
        inputs.append(batch[places])
        targets.append(target[places])
        if sum(taken.values()) == count * classes:
            break
    if not targets:
        raise ValueError(f"{ctx.method_name}: train_batches() gave no batch to score on")
    parts = -(-sum(taken.values()) // size)
    return list(zip(torch.cat(inputs).tensor_split(parts), torch.cat(targets).tensor_split(parts), strict=True))


def keep_highest(
    ctx: Context, saliency: Mapping[str, Tensor], *, density: float, among: Mapping[str, Tensor] | None = None
) -> None:
    """Mask all but the round(density * weights) weights of the highest score over all layers.

    saliency: a score for every entry of every maskable weight. among: bool masks of the entries that
    may be kept. Warns where a layer keeps no weight. Raises ValueError where the density keeps no
    weight, where a score is not finite, and where all scores are 0.
    """
    check_finite(ctx, saliency)
    if not any(bool(score.any()) for score in saliency.values()):
        raise ValueError(f"{ctx.method_name}: the scores of all weights are 0, so none is better than another")
    ctx.masks.set(highest_of_all(ctx, saliency, ctx.kept_count(density), among=among))


def highest_of_all(
    ctx: Context, found: Mapping[str, Tensor], count: int, *, among: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """`scores.top_of_all`, with a warning where a layer loses its last weight."""
    masks = scores.top_of_all(found, count, among=among)
    had = {name for name in masks if among is None or bool(among[name].any())}
    if empty := [name for name, mask in masks.items() if name in had and not bool(mask.any())]:
        warnings.warn(
            f"{ctx.method_name}: {', '.join(empty)} keeps no weight at density {count / ctx.total_weights:g}: use a "
            "higher density, or exclude the layer",
            stacklevel=2,
        )
    return masks


def over_processes(ctx: Context, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of scores over the processes that train the model, so that all choose the same weights.

    Each process may score on batches of its own. All of them have to call this. Before `bind`, or in
    one process, the scores stay as they are.
    """
    return ranks.mean(found, ctx.process_group)


def check_finite(ctx: Context, found: Mapping[str, Tensor]) -> None:
    """Raises ValueError naming the method, the layer and the value where a score is not finite."""
    for name, score in found.items():
        bad = score.detach()[~torch.isfinite(score.detach())]
        if len(bad):
            raise ValueError(f"{ctx.method_name}: {len(bad)} scores of {name} are not finite, such as {bad[0].item()}")


@contextlib.contextmanager
def absolute(model: nn.Module) -> Iterator[None]:
    """Inside the `with` block, parameters and buffers have their absolute values, in float64."""
    held = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    before = [tensor.data for tensor in held]
    try:
        for tensor in held:
            tensor.data = tensor.data.abs().double()
        yield
    finally:
        for tensor, data in zip(held, before, strict=True):
            tensor.data = data


@contextlib.contextmanager
def _all_require_grad(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    frozen = [weight for weight in weights if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


@contextlib.contextmanager
def _twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Inside, layers use kernels that can be differentiated twice, not fused attention or cuDNN."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    cudnn = torch.backends.cudnn.flags(enabled=False) if recurrent else contextlib.nullcontext()
    with sdpa_kernel(SDPBackend.MATH), cudnn:
        yield


def outputs_and_gradients(
    ctx: Context, batch: tuple[Tensor, Tensor], *, of: Mapping[str, nn.Module]
) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Each module's outputs on one batch, with the gradients of the summed loss of its examples.

    A module has one pair (outputs, gradients) per call. It has none if its output is no tensor, or
    if others use its weights without calling it. The outputs are those of the module, also where the
    model then changes them in place. Call this inside `undisturbed`. Raises ValueError
    where the loss is not finite.
    """
    inputs, target = batch
    outputs: list[tuple[str, Tensor]] = []

    def record(name: str, _: nn.Module, __: object, output: object) -> Tensor | None:
        if not isinstance(output, Tensor):
            return None
        outputs.append((name, output))
        return output.clone()  # the model may change it in place

    handles = [module.register_forward_hook(functools.partial(record, name)) for name, module in of.items()]
    with _all_require_grad([weight.parameter for weight in ctx.weights.values()]):
        try:
            loss = ctx.loss_fn(ctx.model(inputs), target)
        finally:
            for handle in handles:
                handle.remove()
        check_scalar(loss, method=ctx.method_name)
        wanted = [output for _, output in outputs]
        found = torch.autograd.grad(loss * len(target), wanted, allow_unused=True) if wanted else ()
    ctx.scored_examples += len(target)
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in of}
    for (name, output), gradient in zip(outputs, found, strict=True):
        calls[name].append((output.detach(), torch.zeros_like(output) if gradient is None else gradient))
    return calls
