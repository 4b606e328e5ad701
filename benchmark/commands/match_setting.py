"""The setting of a search for a density, and its finished cells.

A setting is what a suite's cells of one model and method have in common: everything but the seed
and the hyperparameter that moves the density.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import methods
from benchmark import results, suites
from benchmark.commands.selection import Selection, parse_changes
from benchmark.messages import shown
from benchmark.results import Row
from benchmark.spec import RunSpec, SpecError, fields, from_json
from methods.density_search import DensityKnob
from methods.registry import method_class

STEADY = 2.0  # a mean counts as a density only if every seed is within this factor of it
NO_SETTING = ("seed", "step_records", *results.MEMBERSHIPS)  # fields in which cells of one setting may differ


@dataclass(frozen=True)
class Setting:
    """The cells of a search.

    base: one of them. knob: the hyperparameter that moves the density. start: the value to begin
    with. baselines: by method, the hyperparameters without the density that all of the suite's
    cells of the method share; methods whose cells differ are left out. plugin: as in `Suite`.
    """

    base: RunSpec
    knob: DensityKnob
    start: float
    baselines: Mapping[str, Mapping[str, Any]]
    plugin: Path | str | None

    def cell(self, value: float, seed: int) -> RunSpec:
        """The cell with this value. Raises SpecError if the method refuses the value."""
        (changed,) = suites.with_fields([self.base], {f"method.{self.knob.name}": value})
        return dataclasses.replace(changed, seed=seed, protocol=(), departs=())

    def value_of(self, spec: RunSpec) -> float | None:
        """The value of a cell of this setting; None for every other cell."""
        same = _key(spec, self.knob) == _key(self.base, self.knob)
        return _value(spec, self.knob) if same else None


@dataclass(frozen=True)
class Measured:
    """A finished cell. density: None where the training diverged. resets: of thresholds."""

    spec: RunSpec
    density: float | None
    resets: int
    cpu_seconds: float


@dataclass(frozen=True)
class Trial:
    """One value, and its finished cells by seed."""

    value: float
    cells: Mapping[int, Measured]

    @property
    def densities(self) -> dict[int, float | None]:
        """By seed; None where the training diverged."""
        return {seed: cell.density for seed, cell in self.cells.items()}

    @property
    def density(self) -> float | None:
        """The mean over seeds; None where it is the density of no cell (`trouble`)."""
        return None if self._diverged or self._spread else statistics.fmean(self._known)

    @property
    def trouble(self) -> str:
        """What is wrong with the cells, as a text to print; empty if nothing is."""
        lost = f"{self._diverged} of {len(self.cells)} cells diverged" if self._diverged else ""
        reset = sum(cell.resets > 0 for cell in self.cells.values())
        was_reset = f"thresholds were reset in {reset} of {len(self.cells)} cells" if reset else ""
        return ", ".join(part for part in (lost, self._spread, was_reset) if part)

    @property
    def _known(self) -> list[float]:
        return [density for density in self.densities.values() if density is not None]

    @property
    def _diverged(self) -> int:
        return len(self.cells) - len(self._known)

    @property
    def _spread(self) -> str:
        """A text if a seed's density is far from the mean: no cell keeps the mean then."""
        low, high = min(self._known, default=0.0), max(self._known, default=0.0)
        mean = statistics.fmean(self._known) if self._known else 0.0
        steady = high <= STEADY * mean and mean <= STEADY * low
        return "" if steady else f"seeds end between {100 * low:.3g} and {100 * high:.3g} %"


def setting_of(
    suite: str, *, model: str, method: str, where: Sequence[str], changes: Sequence[str], out: Path
) -> Setting:
    """The setting of a suite's cells of a model and method.

    For a method that the suite does not have, the suite's cells of the model decide the rest, and
    the method has its default hyperparameters. Raises SpecError where the cells have several
    settings or none, and for a method without a `density_knob`.
    """
    selection = Selection(suite, None, (f"model={model}", *where), ())
    expanded = selection.expand()
    knob = _knob(method)
    cells = [spec for spec, _ in selection.cells(expanded, out)]
    own = [spec for spec in cells if spec.method["name"] == method]
    chosen = own or [_with_defaults(spec, method) for spec in cells]
    if changes:
        chosen = list(suites.with_fields(chosen, parse_changes(changes)))
    kinds = {_key(spec, knob): spec for spec in chosen}
    if len(kinds) > 1:
        raise SpecError(
            f"suite {expanded.name} has {len(kinds)} settings for {model} with {method}, which differ in "
            f"{', '.join(_differing(list(kinds.values()), knob))}: choose one with --where"
        )
    values = sorted(_value(spec, knob) for spec in chosen)
    base = dataclasses.replace(chosen[0], step_records=None)
    return Setting(base, knob, statistics.median_low(values), _agreed(cells), expanded.plugin)


def finished(setting: Setting, cells: Iterable[tuple[RunSpec, Row]], published: Iterable[Row]) -> dict[float, Trial]:
    """The finished cells of the setting, by value: those of a run folder, and rows of results tables."""
    found: dict[float, dict[int, Measured]] = {}
    elsewhere = ((from_json(row["spec"]), row) for row in published if _may_fit(row, setting.base))
    for spec, row in [*elsewhere, *cells]:
        if row["status"] in ("done", "diverged") and (value := setting.value_of(spec)) is not None:
            found.setdefault(value, {})[spec.seed] = measured(spec, row)
    return {value: Trial(value, by_seed) for value, by_seed in found.items()}


def measured(spec: RunSpec, row: Row) -> Measured:
    """The measurements in a finished cell's row, whose values are numbers or texts of them."""
    density = float(row["density"]) if row["status"] == "done" else None
    return Measured(spec, density, int(float(row["threshold_resets"] or 0)), float(row["train_cpu_seconds"] or 0))


def _may_fit(row: Row, base: RunSpec) -> bool:
    """Whether the model and the method are the same; cheap, and false for most rows of a table."""
    return bool(row["model"] == base.model.name and row["method"] == base.method["name"])


def _knob(method: str) -> DensityKnob:
    try:
        cls = method_class(method)
    except ValueError as error:
        raise SpecError(str(error)) from error
    knob, names = cls.density_knob, cls.hyperparameter_names()
    if knob is not None and not (isinstance(knob, DensityKnob) and knob.name in names):
        raise SpecError(f"{method}: its density_knob is no methods.DensityKnob of a hyperparameter: {shown(knob)}")
    if knob is not None:
        return knob
    if "density" in names:
        raise SpecError(f"{method} keeps the density that it is given: run it with --set density=VALUE")
    raise SpecError(f"{method} names no hyperparameter that moves its density (`density_knob` of its class)")


def _agreed(cells: Iterable[RunSpec]) -> dict[str, dict[str, Any]]:
    """The hyperparameters of each method whose cells all have the same ones."""
    found: dict[str, list[dict[str, Any]]] = {}
    for spec in cells:
        given = {name: value for name, value in spec.method.items() if name not in ("name", "version")}
        kinds = found.setdefault(spec.method["name"], [])
        kinds += [] if given in kinds else [given]
    return {name: kinds[0] for name, kinds in found.items() if len(kinds) == 1}


def _with_defaults(spec: RunSpec, method: str) -> RunSpec:
    made = methods.create(method)
    identity = {"name": method, "version": made.version, **made.identity()}
    return dataclasses.replace(spec, method=identity, density=None)


def _hyperparameters(spec: RunSpec) -> dict[str, Any]:
    """All hyperparameters of a cell's method, also those that its spec leaves out."""
    return {**method_class(spec.method["name"]).added_hyperparameters(), **spec.method}


def _value(spec: RunSpec, knob: DensityKnob) -> float:
    return float(_hyperparameters(spec)[knob.name])


def _key(spec: RunSpec, knob: DensityKnob) -> str:
    tree = {name: value for name, value in spec.to_dict().items() if name not in NO_SETTING}
    tree["method"] = {name: value for name, value in tree["method"].items() if name != knob.name}
    return json.dumps(tree, sort_keys=True)


def _differing(specs: Sequence[RunSpec], knob: DensityKnob) -> list[str]:
    every = [fields(spec) for spec in specs]
    names = dict.fromkeys(name for one in every for name in one)
    ignored = (*NO_SETTING, f"method.{knob.name}")
    return [name for name in names if name not in ignored and len({repr(one.get(name)) for one in every}) > 1]
