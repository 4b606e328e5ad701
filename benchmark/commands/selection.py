"""Which cells of a suite a command is about, and which of them are left to run."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import data, models, results, suites
from benchmark.commands import filters, published
from benchmark.results import Row
from benchmark.spec import RunSpec, SpecError, check_names, fields

FINAL = ("done", "diverged")
FIELD_OF = {"dataset": "data.name", "model": "model.name", "method": "method.name", "density_target": "density"}
MEANT = {"density": "density_target", "epochs": "optimizer.epochs"}  # labels and --set use these names for the spec's
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Selection:
    """A suite with its seeds replaced, fields changed and cells filtered.

    done_in: results tables; a cell with an intact row in one of them is not run again. Raises
    SpecError for a filter on a measured column that has the name of a field of the spec.
    """

    suite: str
    seeds: str | None
    where: tuple[str, ...]
    changes: tuple[str, ...]
    done_in: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for condition in self.where:
            if meant := MEANT.get(condition.partition("=")[0]):
                raise SpecError(
                    f"--where {condition}: only finished cells have that column, which is measured; write {meant}="
                )

    def expand(self) -> suites.Suite:
        """The suite with its seeds and changes, every name in it checked. Raises SpecError."""
        suite = suites.load(self.suite)
        specs = suite.specs
        if self.seeds is not None:
            seeds = parse_seeds(self.seeds)
            if len(seeds) * len(suites.with_seeds(specs, seeds[:1])) > suites.MOST_CELLS:
                raise SpecError(
                    f"--seeds {self.seeds}: these make more than {suites.MOST_CELLS} cells; give fewer seeds"
                )
            specs = suites.with_seeds(specs, seeds)
        specs = self._to_change(suite.name, specs)
        if self.changes:
            specs = suites.with_fields(specs, parse_changes(self.changes))
        check_names({spec.data.name: None for spec in specs}, data.available(), "data set")
        check_names({spec.model.name: None for spec in specs}, models.available(), "model")
        return dataclasses.replace(suite, specs=specs)

    def _to_change(self, name: str, specs: tuple[RunSpec, ...]) -> tuple[RunSpec, ...]:
        """Without cells left out by a filter on unchanged fields: a change need not fit those."""
        changed = {change.partition("=")[0] for change in self.changes}
        known = {*results.COLUMNS, *fields(specs[0])}
        names = {where: filters.whole_name(where.partition("=")[0], known) for where in self.where}
        settled = [where for where in self.where if FIELD_OF.get(names[where], names[where]) in fields(specs[0])]
        early = [where for where in settled if FIELD_OF.get(names[where], names[where]) not in changed]
        if not self.changes or not early:
            return specs
        rows = [(spec, results.pending_row(spec, (name,))) for spec in specs]
        return tuple(spec for spec, _ in filters.select(rows, early))

    def cells(self, suite: suites.Suite, out: Path) -> list[tuple[RunSpec, Row]]:
        """The filtered cells, each with its row from the run folder."""
        rows = [(spec, results.row(out, results.Member(spec, (suite.name,)))) for spec in suite.specs]
        return filters.select(rows, self.where)

    def unpublished(self, cells: Sequence[tuple[RunSpec, Row]]) -> list[tuple[RunSpec, Row]]:
        """The cells that no table of `done_in` has finished. Raises SpecError for what is no table."""
        return [(spec, row) for spec, row in cells if spec.run_id not in self.elsewhere.rows]

    @functools.cached_property
    def elsewhere(self) -> published.Done:
        """What the tables of `done_in` have finished. Raises SpecError for what is no table."""
        return published.done(self.done_in)

    def skipped_text(self, count: int) -> str:
        """How many cells `unpublished` left out, for the end of a line; empty without `done_in`."""
        if not self.done_in:
            return ""
        ignored = self.elsewhere.ignored
        text = f"; {count} more are finished in {', '.join(map(str, self.done_in))}"
        return f"{text}; finished rows ignored there: {len(ignored)}, the first: {ignored[0]}" if ignored else text


def parse_seeds(text: str) -> list[int]:
    """`0-4` or `0,2,5-7` as numbers. Raises SpecError."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            numbers = range(int(first), int(last if dash else first) + 1)
        except ValueError:
            raise SpecError(f"--seeds {text}: write numbers and ranges, such as 0-4 or 0,2") from None
        if not numbers:
            raise SpecError(f"--seeds {text}: the range {part} is empty; write the smaller number first")
        if numbers.stop - numbers.start + len(seeds) > MOST_SEEDS:
            raise SpecError(f"--seeds {text}: give at most {MOST_SEEDS} seeds")
        seeds += numbers
    return list(dict.fromkeys(seeds))


def parse_changes(texts: Sequence[str]) -> dict[str, Any]:
    """The values of --set by field. Raises SpecError as `parse_change`, and for a field given twice."""
    changes: dict[str, Any] = {}
    for name, value in map(parse_change, texts):
        if name in changes:
            raise SpecError(f"--set {name} is given twice: give each field one value")
        changes[name] = value
    return changes


def parse_change(text: str) -> tuple[str, Any]:
    """(field, value) of --set: `none`, a number, true, false, a list of these, or else a text.

    Raises SpecError.
    """
    name, equals, written = text.partition("=")
    if not equals:
        raise SpecError(f"--set {text}: write FIELD=value, such as optimizer.epochs=1")
    if written.lower() in ("none", "null"):
        return name, None
    try:
        value = json.loads(written)
    except ValueError:
        value = written
    except RecursionError:
        value = {}
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, (list, dict)) for part in parts):
        raise SpecError(f"--set {name}: give a number, a text or a list of these")
    if any(isinstance(part, int) and abs(part) >= 2**63 for part in parts):
        raise SpecError(f"--set {name}: the number does not fit in 64 bits")
    return name, tuple(parts) if isinstance(value, list) else value


def resolve_device(name: str) -> str:
    """cpu or cuda; auto is cuda if there is a GPU. Raises SpecError for cuda without a GPU."""
    check_names([name], ("auto", "cpu", "cuda"), "device")
    if name == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise SpecError("--device cuda: torch sees no GPU on this machine; use --device cpu")
    return "cpu"


def unended(cells: Sequence[tuple[RunSpec, Row]], *, retry_failed: bool) -> list[RunSpec]:
    """The cells that are left to run."""
    skip = FINAL if retry_failed else (*FINAL, "failed")
    return [spec for spec, row in cells if row["status"] not in skip]
