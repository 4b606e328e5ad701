"""Sparse momentum on eight weights drawn in a comment, and its promises on a small network."""

from __future__ import annotations

from typing import Any, cast

import attached_model
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import methods
from methods.algorithms.sparse_momentum import SparseMomentum
from methods.attachment import Attachment

# two layers of eight places, four kept in each; momentum m
# first   w  0.9  0.4 -0.1  0.7   .    .    .    .       second   w  0.6  0.5  0.4 -0.3   .    .    .    .
#         m  3    3    3    3     1    9   -8    2                m  1    1    1    1     5    4    3    2
FIRST = [0.9, 0.4, -0.1, 0.7, 0, 0, 0, 0]
SECOND = [0.6, 0.5, 0.4, -0.3, 0, 0, 0, 0]
MOMENTUM = ([3.0, 3, 3, 3, 1, 9, -8, 2], [1.0, 1, 1, 1, 5, 4, 3, 2])
Rows = tuple[list[float], ...]


def attached(rows: Rows = (FIRST, SECOND), momenta: Rows = MOMENTUM, **values: Any) -> Attachment:
    model = nn.Sequential(*(nn.Linear(8, 1) for _ in rows))
    made = methods.attach(model, "sparse_momentum", total_steps=100, steps_per_epoch=10, density=0.5, **values)
    made.set_masks({f"{i}.weight": torch.tensor([w]) != 0 for i, w in enumerate(rows)})
    optimizer = torch.optim.SGD(made.parameter_groups(), lr=0.1, momentum=0.9)
    with torch.no_grad():
        for layer, row, momentum in zip(model, rows, momenta, strict=True):
            layer.weight.copy_(torch.tensor([row]))
            optimizer.state[layer.weight]["momentum_buffer"] = torch.tensor([momentum])
    made.bind(optimizer)
    return made


def update(made: Attachment) -> list[list[int]]:
    method = made.method
    assert isinstance(method, SparseMomentum)
    method.update(made.context)
    return [mask.flatten().nonzero().flatten().tolist() for mask in made.masks().values()]


def test_half_the_smallest_move_to_the_layer_and_places_of_the_largest_momentum() -> None:
    # rate 0.5 of 4: each layer drops 2: -0.1 and 0.4; -0.3 and 0.4
    # importance 3/4 and 1/4 of 4 grown: 3 in the first, 1 in the second, where |m| is largest among free places
    # first: free 1 2 4 5 6 7 with |m| 3 3 1 9 8 2: places 5, 6 and 1; second: free 2 3 4 5 6 7: place 4
    assert update(attached()) == [[0, 1, 3, 5, 6], [0, 1, 4]]


def test_importance_is_the_mean_momentum_of_kept_weights_normalised() -> None:
    made = attached()
    assert isinstance(made.method, SparseMomentum)
    assert made.method.importance(made.context) == {"0.weight": 0.75, "1.weight": 0.25}


def test_the_drop_rate_follows_a_cosine_to_its_end() -> None:
    made = attached(drop_fraction=0.5, final_drop_fraction=0.0)
    made.context.step = 50  # half-way: rate 0.25, one weight of four a layer
    # first keeps 0 1 3, second keeps 0 1 2; two grown: 1.5 and 0.5 round to 2 and 0 (the first remainder wins the tie)
    assert [len(places) for places in update(made)] in ([5, 3], [4, 4])
    made = attached(drop_fraction=0.5, final_drop_fraction=0.0)
    made.context.step = 100
    assert update(made) == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_an_important_dense_layer_drops_no_more_than_its_sparsity() -> None:
    made = attached()
    made.context.masks.set({"0.weight": torch.ones(1, 8, dtype=torch.bool)})
    assert isinstance(made.method, SparseMomentum)
    dropped = made.method.dropped(made.context, "0.weight", made.masks()["0.weight"])
    assert int(dropped.sum()) == 0  # sparsity 0, importance above a half


def test_a_layer_takes_at_most_99_percent_of_its_free_places() -> None:
    made = attached()
    optimizer = made.context.optimizer
    assert optimizer is not None
    second = made.context.weights["1.weight"].parameter
    optimizer.state[second]["momentum_buffer"].zero_()
    # all 4 would go to the first, whose 6 free places give floor(5.94) = 5
    assert [len(places) for places in update(made)] == [6, 2]


def test_what_exceeds_a_layers_room_is_divided_evenly_among_the_layers() -> None:
    # first   w  0.9  0.8 -0.7  0.6  0.5 -0.4  0.1   .      keeps 7: sparsity 1/8, so it drops ceil(1/8 * 7) = 1
    # second  w  0.6  0.5  0.4 -0.3   .    .    .    .      drops 2
    # third   w  0.6  0.5  0.4 -0.3   .    .    .    .      drops 2
    rows = ([0.9, 0.8, -0.7, 0.6, 0.5, -0.4, 0.1, 0.0], SECOND, SECOND)
    momenta = ([15.0] * 8, [9.0, 9, 9, 9, 8, 7, 6, 5], [1.0, 1, 1, 1, 8, 7, 6, 5])
    # 5 grow; importance 15 / 25, 9 / 25, 1 / 25: shares 3, 1.8 and 0.2. The first has two free places, 99 % of which
    # are 1 whole one: its other 2 are divided evenly, 1 each: 1, 2.8 and 1.2 (in proportion 1, 3.6 and 0.4)
    kept = [len(places) for places in update(attached(rows, momenta))]
    assert kept == [6 + 1, 2 + 3, 2 + 1]


def test_grown_weights_start_at_zero_and_regrown_ones_at_their_value_and_all_keep_their_momentum() -> None:
    """The authors' code multiplies by the final masks only after growth: place 1 is dropped and grown again."""
    made = attached()
    before = made.masks()
    update(made)
    values = [made.context.weights[f"{i}.weight"].parameter.flatten().tolist() for i in (0, 1)]
    assert values == [pytest.approx([0.9, 0.4, 0, 0.7, 0, 0, 0, 0]), pytest.approx([0.6, 0.5, 0, 0, 0, 0, 0, 0])]
    optimizer = made.context.optimizer
    assert optimizer is not None
    for (name, mask), momentum in zip(made.masks().items(), MOMENTUM, strict=True):
        parameter = made.context.weights[name].parameter
        assert (parameter[mask & ~before[name]] == 0).all()
        assert optimizer.state[parameter]["momentum_buffer"].flatten().tolist() == momentum


class Wrapper:
    """Holds an optimizer as accelerate's does."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    @property
    def state(self) -> Any:
        return self.optimizer.state

    @property
    def param_groups(self) -> Any:
        return self.optimizer.param_groups

    def step(self) -> None:
        self.optimizer.step()


class AdamWScheduleFree(torch.optim.AdamW):
    """Stands for schedule-free optimizers, which have betas and keep no momentum."""


@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, lambda optimizer: Wrapper(Wrapper(optimizer))])
@pytest.mark.parametrize(
    ("optimizer_class", "named"),
    [
        (torch.optim.SGD, "SGD with momentum 0 has no momentum: use SGD or RMSprop with momentum above 0, Adam"),
        (torch.optim.RMSprop, "RMSprop with momentum 0 has no momentum"),
        (torch.optim.Adagrad, "Adagrad has no momentum"),
        (torch.optim.Adadelta, "Adadelta has no momentum"),
        (torch.optim.Adafactor, "Adafactor has no momentum"),
        (torch.optim.ASGD, "ASGD has no momentum"),
        (torch.optim.Rprop, "Rprop has no momentum"),
        (torch.optim.LBFGS, "LBFGS has no momentum"),
        (AdamWScheduleFree, "AdamWScheduleFree has no momentum"),
    ],
)
def test_an_optimizer_without_momentum_is_refused_by_name_when_it_is_bound(
    optimizer_class: Any, named: str, wrap: Any
) -> None:
    model = nn.Linear(8, 8)
    made = methods.attach(model, "sparse_momentum", total_steps=4, steps_per_epoch=1, density=0.5)
    with pytest.raises(ValueError, match=named):
        made.bind(wrap(optimizer_class(model.parameters(), lr=0.1)))
    assert made.context.optimizer is None


class ScheduleFreeWrapper(Wrapper):
    """Stands for the wrapper that makes any optimizer schedule-free."""


def test_a_schedule_free_wrapper_is_named_and_not_the_optimizer_inside() -> None:
    made = methods.attach(model := nn.Linear(8, 8), "sparse_momentum", total_steps=4, steps_per_epoch=1, density=0.5)
    inside = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match=r"^ScheduleFreeWrapper has no momentum"):
        made.bind(cast(torch.optim.Optimizer, ScheduleFreeWrapper(inside)))


def test_a_wrapped_optimizer_is_looked_through() -> None:
    made = methods.attach(model := nn.Linear(8, 8), "sparse_momentum", total_steps=9, steps_per_epoch=3, density=0.5)
    start = made.masks()["weight"]
    made.bind(cast(torch.optim.Optimizer, Wrapper(Wrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)))))
    for _ in range(3):
        model.zero_grad()
        F.cross_entropy(model(torch.randn(4, 8)), torch.randint(8, (4,))).backward()
        made.step()
    assert not torch.equal(made.masks()["weight"], start)


def test_other_methods_take_any_optimizer() -> None:
    for method in set(methods.available()) - {"sparse_momentum"}:
        made = attached_model.attach(attached_model.Block(), method)
        made.bind(torch.optim.Adagrad(made.parameter_groups(), lr=0.1))


def three_layers(frozen: str = "") -> tuple[nn.ModuleDict, Attachment]:
    torch.manual_seed(0)
    model = nn.ModuleDict({"one": nn.Linear(20, 40), "two": nn.Linear(40, 20), "three": nn.Linear(20, 40)})
    made = methods.attach(model, "sparse_momentum", total_steps=60, steps_per_epoch=10, density=0.2)
    for name in filter(None, frozen.split()):
        model[name].requires_grad_(False)
    return model, made


def trained(model: nn.ModuleDict, made: Attachment, steps: int = 60) -> None:
    """The third layer is unused; whatever is frozen gets no gradient."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    made.bind(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        output = model["two"](F.relu(model["one"](torch.randn(16, 20))))
        if output.requires_grad:
            F.cross_entropy(output, torch.randint(20, (16,))).backward()
        made.step()


@pytest.mark.parametrize(
    ("frozen", "moving"), [("", ["one", "two"]), ("one", ["two"]), ("two", ["one"]), ("one two", [])]
)
def test_layers_without_a_gradient_so_far_keep_their_masks_and_take_no_part(frozen: str, moving: list[str]) -> None:
    model, made = three_layers(frozen)
    start = made.masks()
    trained(model, made)
    changed = [name.split(".")[0] for name, mask in made.masks().items() if not torch.equal(mask, start[name])]
    assert changed == moving
    for part in ([f"{name}.weight" for name in moving], [n for n in start if n.split(".")[0] not in moving]):
        assert sum(int(made.masks()[n].sum()) for n in part) == sum(int(start[n].sum()) for n in part)
    assert isinstance(made.method, SparseMomentum)
    importance = made.method.importance(made.context)
    assert list(importance) == [f"{name}.weight" for name in moving]
    assert not moving or sum(importance.values()) == pytest.approx(1)


def test_a_layer_that_is_frozen_during_the_training_stays_as_it_is_then() -> None:
    model, made = three_layers()
    trained(model, made, steps=15)
    model["one"].requires_grad_(False)
    before = made.masks()
    trained(model, made, steps=15)
    assert torch.equal(made.masks()["one.weight"], before["one.weight"])
    assert not torch.equal(made.masks()["two.weight"], before["two.weight"])


def test_a_layer_without_kept_weights_counts_for_nothing() -> None:
    made = attached()
    made.set_masks({"1.weight": torch.zeros(1, 8, dtype=torch.bool)})
    assert isinstance(made.method, SparseMomentum)
    assert made.method.importance(made.context) == {"0.weight": 1.0, "1.weight": 0.0}
    assert [len(places) for places in update(made)] == [4, 0]


@pytest.mark.parametrize(
    "optimizer_class",
    [
        torch.optim.SGD,
        torch.optim.RMSprop,
        torch.optim.Adam,
        torch.optim.AdamW,
        torch.optim.NAdam,
        torch.optim.RAdam,
        torch.optim.Adamax,
    ],
)
def test_sparse_momentum_keeps_the_total_density_while_layers_change(optimizer_class: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 5))
    made = methods.attach(model, "sparse_momentum", total_steps=60, steps_per_epoch=10, density=0.2)
    options = {"momentum": 0.9} if optimizer_class in (torch.optim.SGD, torch.optim.RMSprop) else {}
    optimizer = optimizer_class(made.parameter_groups(), lr=0.01, **options)
    made.bind(optimizer)
    start = made.kept_counts().tolist()
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(16, 20)), torch.randint(5, (16,))).backward()
        made.step()
        assert int(made.kept_counts().sum()) == round(0.2 * 2150)
    assert made.kept_counts().tolist() != start
