"""Settings that differ in method, alpha or density alone, and so may be compared: a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis import paper
from analysis.settings import Setting

NOT_RECIPE = ("method", "density")
STARTS = "initialization"  # the twins of the official protocol draw their first weights in two ways
DATASET_ORDER = (*paper.DATASETS, "fashion-mnist", "digits")
METHOD_NAMES = {"dense": "Dense", **paper.METHODS}


@dataclass(frozen=True)
class Recipe:
    """Settings of one data set, model and optimizer. label: unique among the recipes that it was made with."""

    label: str
    settings: tuple[Setting, ...]

    @property
    def dataset(self) -> str:
        return self.settings[0].dataset

    @property
    def model(self) -> str:
        return self.settings[0].model

    @property
    def title(self) -> str:
        return f"{self.label}, {self.dataset}"

    @property
    def dense(self) -> Setting | None:
        return next((s for s in self.settings if s.method == "dense" and len(s.done)), None)

    @property
    def sparse(self) -> tuple[Setting, ...]:
        """The sparse settings with results."""
        return tuple(s for s in self.settings if s.method != "dense" and len(s.done))

    def of(self, method: str) -> tuple[Setting, ...]:
        """The settings of a method with results, by alpha or density."""
        return tuple(s for s in self.sparse if s.method == method)


def recipes(settings: Iterable[Setting]) -> list[Recipe]:
    """Every recipe with a sparse result; a method's variants and narrowed networks are left out.

    Ordered by data set, the paper's first, then by model and learning rate.
    """
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        if len(setting.rows) and is_plain(setting):
            groups.setdefault(_key(setting), []).append(setting)
    found = [Recipe("", tuple(group)) for group in groups.values()]
    filled = sorted((r for r in found if r.sparse), key=_order)
    return [Recipe(label, r.settings) for r, label in zip(filled, _labels(filled), strict=True)]


def is_plain(setting: Setting) -> bool:
    """Whether a setting has its method as published, on the architecture's own widths and the whole data."""
    return setting.as_published and setting.whole_data and setting.spec["model"].get("widths") is None


def lost_note(settings: Iterable[Setting]) -> list[str]:
    """A note of how many cells are in no mean, and why; empty where there is none. Tables 1 to 3 name each."""
    counts: dict[str, int] = {}
    for setting in settings:
        lost = {**setting.lost(), "departing from the suite": setting.departing}
        for why, count in lost.items():
            counts[why] = counts.get(why, 0) + count
    texts = [f"{count} {why}" for why, count in sorted(counts.items()) if count]
    return [f"In no mean of any exhibit: cells that are {', '.join(texts)}."] if texts else []


def model_name(model: str) -> str:
    """An architecture in the paper's words."""
    return paper.ARCHITECTURES.get(model, model)


def method_name(method: str) -> str:
    """A method in the paper's words."""
    return METHOD_NAMES.get(method, method)


def in_symbols(setting: Setting) -> str:
    """What tells a setting from its method's others: its alpha or its density."""
    if setting.alpha is not None:
        return f"α = {setting.alpha:g}"
    return "" if setting.density is None else f"{100 * setting.density:g} % kept"


def _key(setting: Setting) -> str:
    tree = {name: value for name, value in setting.spec.items() if name not in NOT_RECIPE}
    tree["model"] = {name: value for name, value in setting.spec["model"].items() if name != STARTS}
    return json.dumps(tree, sort_keys=True)


def _order(recipe: Recipe) -> tuple[int, str, int, float, bool, str]:
    known, models = list(DATASET_ORDER), list(paper.ARCHITECTURES)
    spec = recipe.settings[0].spec
    return (
        known.index(recipe.dataset) if recipe.dataset in known else len(known),
        recipe.dataset,
        models.index(recipe.model) if recipe.model in models else len(models),
        -spec["optimizer"]["lr"],
        "paper" not in _protocols(recipe),
        _key(recipe.settings[0]),
    )


def _protocols(recipe: Recipe) -> set[str]:
    return {name for setting in recipe.settings for name in setting.protocols}


def _labels(found: Sequence[Recipe]) -> list[str]:
    """The model's name, with its protocol, learning rate or a number where several recipes share it."""
    names = [model_name(r.model) for r in found]
    for more in (_protocol, _rate, _epochs):
        names = [
            f"{name}{more(r)}" if _shared(found, names, r, name) else name for r, name in zip(found, names, strict=True)
        ]
    seen: dict[tuple[str, str], int] = {}
    unique = []
    for r, name in zip(found, names, strict=True):
        seen[r.dataset, name] = seen.get((r.dataset, name), 0) + 1
        again = seen[r.dataset, name]
        unique.append(name if again == 1 else f"{name}, recipe {again}")
    return unique


def _shared(found: Sequence[Recipe], names: Sequence[str], recipe: Recipe, name: str) -> bool:
    return sum((r.dataset, n) == (recipe.dataset, name) for r, n in zip(found, names, strict=True)) > 1


def _protocol(recipe: Recipe) -> str:
    return ", official" if _protocols(recipe) == {"official"} else ""


def _rate(recipe: Recipe) -> str:
    return f", lr {recipe.settings[0].spec['optimizer']['lr']:g}"


def _epochs(recipe: Recipe) -> str:
    return f", {recipe.settings[0].spec['optimizer'].get('epochs')} epochs"
