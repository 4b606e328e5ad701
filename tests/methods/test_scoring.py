"""Scoring on data: the gradient of the mean loss, and a model that is as before."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import in_two_processes

import methods
from methods import Context, Method, scoring
from methods.algorithms.obd import OBD, second_derivatives

Batches = list[tuple[Tensor, Tensor]]


@dataclass(kw_only=True)
class Scores(Method):
    """Keeps the gradients that it scores by."""

    name = "scores"
    version = 1
    reference = "none"
    density_promise = "dense"

    batches: int = 2
    found: dict[str, Tensor] = field(init=False, repr=False, default_factory=dict)

    def enter_phase(self, ctx: Context) -> None:
        with scoring.undisturbed(ctx):
            self.found = scoring.gradients(ctx, among=scoring.batches(ctx, self.batches))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)).eval()


def data(sizes: Iterable[int]) -> Batches:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 6, generator=generator), torch.randint(3, (n,), generator=generator)) for n in sizes]


def attach(model: nn.Module, batches: Batches | None, loss_fn: Callable[..., Tensor] = F.cross_entropy) -> Scores:
    method = Scores()
    give = None if batches is None else lambda: iter(batches)
    at = methods.attach(model, method, total_steps=4, steps_per_epoch=2, train_batches=give, loss_fn=loss_fn)
    assert at.scored_examples == sum(len(y) for _, y in (batches or [])[:2])
    return method


def test_gradients_are_those_of_the_mean_loss_over_all_examples() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    batches = data([4, 2, 3])
    found = attach(model, batches).found
    x, y = (torch.cat(parts) for parts in zip(*batches[:2], strict=True))
    F.cross_entropy(model(x), y).backward()
    for name in ("0.weight", "2.weight"):
        torch.testing.assert_close(found[name], model.get_parameter(name).grad)


def test_the_model_and_the_global_generator_are_as_before() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    attach(model, data([8, 8]))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module.training for module in model.modules())


def test_a_loss_a_gradient_or_no_batch_is_refused_by_name() -> None:
    batches = data([4])
    batches[0][0][0, 0] = float("nan")
    with pytest.raises(ValueError, match="scores: the loss of a batch to score on is nan"):
        attach(network(), batches)
    with pytest.raises(ValueError, match=r"scores: [0-9]+ scores of 0\.weight are not finite, such as nan"):
        attach(network(), data([4]), lambda out, y: (0 * out.sum()).abs().sqrt() * 1.0)
    with pytest.raises(ValueError, match=r"scores: train_batches\(\) gave no batch"):
        attach(network(), [])
    with pytest.raises(ValueError, match="this method scores on data"):
        attach(network(), None)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"inputs": torch.ones(4, 6), "target": torch.ones(4)}, "a batch of type dict"),
        ((torch.ones(4, 6), torch.ones(4), torch.ones(4)), "a batch with 3 parts"),
        (torch.ones(2, 6), "a batch of type Tensor"),  # two rows would pass for inputs and target
        ((torch.ones(6), torch.tensor(1)), "target is one number"),
        ((torch.ones(4, 6), {"a": torch.ones(4), "b": torch.ones(4)}), "target is a dict"),
    ],
)
@pytest.mark.parametrize("method", ["snip", "grasp", "taylor", "obd", "synflow", "variational_dropout"])
def test_a_batch_that_is_no_pair_is_refused_by_name(method: str, batch: Any, message: str) -> None:
    values = {"density": 0.9} if method == "taylor" else {}
    with pytest.raises(ValueError, match=f"{method}: .*{message}"):
        methods.attach(
            network(),
            method,
            total_steps=4,
            steps_per_epoch=2,
            train_batches=lambda: [batch],
            **values,  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda out, y: F.cross_entropy(out, y, reduction="none"), r"has shape \[4\]: it must be one number"),
        (lambda out, y: F.cross_entropy(out, y).item(), "is a float, not a tensor of one number"),
        (lambda out, y: F.cross_entropy(out, y) * float("nan"), "is nan"),
    ],
)
@pytest.mark.parametrize("method", ["snip", "grasp", "taylor", "obd"])
def test_a_loss_that_is_no_number_is_refused_by_name(method: str, loss_fn: Callable[..., Tensor], message: str) -> None:
    model, (batch,) = network(), data([4])
    given: dict[str, Any] = {} if method in ("snip", "grasp") else {"density": 0.9}

    def train() -> None:
        at = methods.attach(
            model, method, total_steps=1, steps_per_epoch=1, train_batches=lambda: [batch], loss_fn=loss_fn, **given
        )
        at.bind(torch.optim.SGD(at.parameter_groups(), lr=0.1))
        for _ in range(at.total_steps):
            F.cross_entropy(model(batch[0]), batch[1]).backward()
            at.step()

    with pytest.raises(ValueError, match=f"{method}: the loss of a batch to score on {message}"):
        train()


def test_what_is_no_function_is_refused_when_attaching() -> None:
    given = {"total_steps": 4, "steps_per_epoch": 2}
    with pytest.raises(ValueError, match="train_batches is a list: it must be a function, such as lambda: loader"):
        methods.attach(network(), "rigl", train_batches=data([4]), **given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"loss_fn is a str: it must be a function, such as F\.cross_entropy"):
        methods.attach(network(), "rigl", loss_fn="cross_entropy", **given)  # type: ignore[arg-type]


def test_scored_examples_survive_a_resume() -> None:
    def make() -> methods.Attachment:
        model, batches = network(), data([8, 8])
        return methods.attach(model, Scores(), total_steps=4, steps_per_epoch=2, train_batches=lambda: iter(batches))

    state = make().state_dict()
    resumed = make()
    resumed.load_state_dict(state)
    assert resumed.scored_examples == 16


def test_outputs_come_with_the_gradient_of_the_summed_loss_and_hooks_are_gone_afterwards() -> None:
    """A module that is called twice has two entries, one that is not called none."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.unused, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.head(self.inner(self.inner(x).relu()))
            return output

    torch.manual_seed(0)
    model, (x, y) = Twice(), data([4])[0]
    at = methods.attach(model, "static", total_steps=1, steps_per_epoch=1, density=1.0)
    modules = {"inner": model.inner, "unused": model.unused, "head": model.head}
    with scoring.undisturbed(at.context):
        calls = scoring.outputs_and_gradients(at.context, (x, y), of=modules)
    assert [len(found) for found in calls.values()] == [2, 0, 1]
    output, gradient = calls["head"][0]
    torch.testing.assert_close(output, model(x))
    torch.testing.assert_close(gradient, output.softmax(1) - F.one_hot(y, 3))
    torch.testing.assert_close(calls["inner"][1][1], gradient @ model.head.weight)
    assert at.scored_examples == 4
    assert not any(module._forward_hooks for module in modules.values())


# ---- several processes


class ScoresAlone(OBD):
    """Chooses weights by the examples of one process."""

    def saliencies(self, ctx: Context) -> dict[str, Tensor]:
        return second_derivatives(ctx, batches=2)


def _train(rank: int, case: str) -> tuple[dict[str, Any], str]:
    """The masks at the end of a training whose processes score on examples of their own, and its error."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    x, y = torch.randn(64, 6)[rank::2], (torch.arange(64) % 3)[rank::2]
    method = {
        "obd": OBD(density=0.3, rounds=2),
        "taylor": methods.create("taylor", density=0.6, update_every=1),
        "alone": ScoresAlone(density=0.3, rounds=2),
    }[case]
    batches = [(x[:16], y[:16]), (x[16:], y[16:])]
    attached = methods.attach(model, method, total_steps=8, steps_per_epoch=2, train_batches=lambda: batches)
    network = DistributedDataParallel(model)
    attached.bind(torch.optim.SGD(attached.parameter_groups(), lr=0.1, momentum=0.9))
    try:
        for _ in range(attached.total_steps):
            model.zero_grad()
            F.cross_entropy(network(x), y).backward()
            attached.step()
    except RuntimeError as error:
        return {}, str(error)
    return {name: mask.tolist() for name, mask in attached.masks().items()}, ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("obd", ""),
        ("taylor", ""),
        ("alone", "processes hold different masks or thresholds: score on the same train_batches, or average scores"),
    ],
)
def test_processes_that_score_on_their_own_examples_choose_the_same_weights(case: str, message: str) -> None:
    first, second = in_two_processes(_train, case)
    assert first == second
    assert first[1].startswith(message)
    assert bool(first[1]) == bool(message)
