"""Groups of conditions that differ only in method, alpha or density, and so may be compared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.data.conditions import Condition
from analysis.data.differences import differences
from analysis.paper import printed

COMPARED = ("method", "density")
DATASET_ORDER = (*printed.DATASETS, "fashion-mnist", "digits")
FACTOR = 1.25  # within which densities match, here and in the verdicts on the paper's numbers


def place(condition: Condition) -> tuple[int, tuple[int, str], float, float, str]:
    """Where a condition stands in a table: by data set, network, learning rate and alpha."""
    known = list(DATASET_ORDER)
    dataset = known.index(condition.dataset) if condition.dataset in known else len(known)
    rank = printed.rank(condition.model)
    return dataset, rank, -condition.learning_rate, condition.alpha or 0.0, condition.key


@dataclass(frozen=True)
class Group:
    """Conditions of one data set, model and optimizer.

    label: unique among the groups it was made with.
    """

    label: str
    conditions: tuple[Condition, ...]

    @property
    def dataset(self) -> str:
        return self.conditions[0].dataset

    @property
    def model(self) -> str:
        return self.conditions[0].model

    @property
    def title(self) -> str:
        dataset = self.dataset.upper() if self.dataset in printed.DATASETS else self.dataset
        return f"{self.label}, {dataset}"

    @property
    def epochs(self) -> int:
        """The epochs of its set-up; a method with phases of its own may train for more."""
        return int(self.conditions[0].spec["optimizer"]["epochs"])

    @property
    def follows_protocol(self) -> bool:
        """Whether a suite states its set-up in a protocol."""
        return any(condition.protocols for condition in self.conditions)

    @property
    def dense(self) -> Condition | None:
        return next((c for c in self.conditions if c.method == "dense" and len(c.done)), None)

    @property
    def sparse(self) -> tuple[Condition, ...]:
        """The sparse conditions with results."""
        return tuple(c for c in self.conditions if c.method != "dense" and len(c.done))

    def of(self, method: str) -> tuple[Condition, ...]:
        """The conditions of a method with results, by alpha or density."""
        return tuple(c for c in self.sparse if c.method == method)


def of_protocols(found: Iterable[Group]) -> list[Group]:
    """The groups, of a network that has groups in a protocol only these.

    Its other set-ups are varied by suites such as `gap`, whose exhibits show them.
    """
    listed = list(found)
    stated = {(g.dataset, g.model) for g in listed if g.follows_protocol}
    return [g for g in listed if g.follows_protocol or (g.dataset, g.model) not in stated]


@dataclass(frozen=True)
class DensityMatch:
    """Conditions of one group at one density, one per method: the one with the most finished seeds.

    A method that is not asked for a density is there with its nearest alpha; too_far: such methods
    without an alpha within the factor.
    """

    group: Group
    density: float
    conditions: tuple[Condition, ...]
    too_far: tuple[str, ...]


def groups(conditions: Iterable[Condition]) -> list[Group]:
    """Every group with a sparse result, without variants of a method and networks of other widths.

    Nor are there conditions whose thresholds are reset more than twice an epoch: their last epoch says
    little. The exhibit reset-rules has them. Ordered by data set, the paper's first, then by model and
    learning rate.
    """
    members: dict[str, list[Condition]] = {}
    for condition in conditions:
        usual = condition.as_published and condition.whole_data and condition.widths is None
        if len(condition.rows) and usual and condition.rarely_reset:
            members.setdefault(set_up(condition), []).append(condition)
    found = [Group("", tuple(part)) for part in members.values()]
    filled = sorted((group for group in found if group.sparse), key=_order)
    return [Group(label, group.conditions) for group, label in zip(filled, _labels(filled), strict=True)]


def density_matches(group: Group) -> list[DensityMatch]:
    """For each density that some method was asked to keep, the conditions that keep about it."""
    densities = sorted({c.density for c in group.sparse if c.density is not None}, reverse=True)
    emergent = sorted({c.method for c in group.sparse if c.density is None})
    found = []
    for density in densities:
        exact = [c for c in group.sparse if c.density == density]
        nearest = {method: _nearest(group, method, density) for method in emergent}
        near = [c for c in nearest.values() if _distance(c, density) <= math.log(FACTOR) + 1e-9]
        far = tuple(method for method, c in nearest.items() if c not in near)
        chosen: dict[str, Condition] = {}
        for condition in [*near, *exact]:
            best = chosen.setdefault(condition.method, condition)
            if len(condition.done) > len(best.done):
                chosen[condition.method] = condition
        found.append(DensityMatch(group, density, tuple(chosen.values()), far))
    return found


def _nearest(group: Group, method: str, density: float) -> Condition:
    """The method's condition whose mean density comes nearest."""
    return min(group.of(method), key=lambda condition: _distance(condition, density))


def _distance(condition: Condition, density: float) -> float:
    """|log ratio| of a condition's mean density at the last epoch to another density."""
    mean = float(condition.done["density"].mean())
    return abs(math.log(mean / density)) if mean > 0 else math.inf


def set_up(condition: Condition) -> str:
    """What the conditions of one group share, as JSON: all but method and density."""
    return json.dumps(_set_up(condition), sort_keys=True)


def _set_up(condition: Condition) -> dict[str, Any]:
    """What the conditions of one group share."""
    tree = {name: value for name, value in condition.spec.items() if name not in COMPARED}
    return {**tree, "model": without_official_start(condition.spec["model"])}


def without_official_start(model: Mapping[str, Any]) -> dict[str, Any]:
    """A spec's model without the initialization of the official protocol.

    Dense and DST cells of that protocol have different ones, and are compared nevertheless.
    """
    starts = {"initialization"} if str(model.get("initialization")).startswith("official") else set()
    return {name: value for name, value in model.items() if name not in starts}


def _order(group: Group) -> tuple[int, str, tuple[int, str], float, bool, str]:
    known, first = list(DATASET_ORDER), group.conditions[0]
    place = known.index(group.dataset) if group.dataset in known else len(known)
    rank = printed.rank(group.model)
    return (place, group.dataset, rank, -first.learning_rate, "paper" not in _protocols(group), set_up(first))


def _protocols(group: Group) -> set[str]:
    return {name for condition in group.conditions for name in condition.protocols}


def _labels(found: Sequence[Group]) -> list[str]:
    """The model's name; where groups share it also protocol, learning rate, epochs and other fields."""
    names = [printed.architecture(group.model) for group in found]
    for more in (_protocol, _rate, _epochs):
        shared = [sum((g.dataset, n) == (group.dataset, name) for g, n in zip(found, names, strict=True)) > 1
                  for group, name in zip(found, names, strict=True)]  # fmt: skip
        names = [f"{name}{more(g)}" if twice else name for g, name, twice in zip(found, names, shared, strict=True)]
    named = list(zip(found, names, strict=True))
    return [", ".join([name, *_others(group, [g for g, n in named if n == name], found)]) for group, name in named]


def _others(group: Group, alike: Sequence[Group], found: Sequence[Group]) -> Iterator[str]:
    """The other fields in which a group differs from the stated one of its name or of its network."""
    network = (group.dataset, group.model)
    near = [g for g in (*alike, *found) if (g.dataset, g.model) == network]
    stated = next((g for g in near if g.follows_protocol), near[0])
    return differences(_set_up(group.conditions[0]), _set_up(stated.conditions[0]), without=("lr", "epochs"))


def _protocol(group: Group) -> str:
    return ", official" if _protocols(group) == {"official"} else ""


def _rate(group: Group) -> str:
    return f", lr {group.conditions[0].learning_rate:g}"


def _epochs(group: Group) -> str:
    return f", {group.epochs} epochs"
