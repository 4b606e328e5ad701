"""The page's appendix of runs: what was trained, where, at which commit; what is in no mean."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis.data.conditions import LOST, OLDER, label, spec_without_seed, unpublished
from benchmark.results import SEPARATOR

SHARED = ("dataset", "model", "method", "suite", "protocol", "device", "commit", "departs")
# shown beside the other fields
NAMED = ("data.name", "model.name", "method.name", "method.alpha", "density")
STARTED = ("done", "diverged", "failed", "cancelled")


@dataclass(frozen=True)
class Run:
    run_id: str
    seed: str
    status: str
    outcome: str

    @property
    def anchor(self) -> str:
        return f"run-{self.run_id}"


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ only in their seed: one condition, one suite, one commit, one machine."""

    dataset: str
    model: str
    method: str
    suite: str
    protocol: str
    device: str
    commit: str
    departs: str
    condition: str
    fields: tuple[tuple[str, str], ...]
    runs: tuple[Run, ...]

    @property
    def network(self) -> str:
        return f"{self.dataset}, {self.model}"

    @property
    def label(self) -> str:
        return " ".join(filter(None, [self.model, self.method, self.condition, f"({self.dataset})"]))


@dataclass
class RunIndex:
    """Where the page describes a set of runs: at the runs of one group, or in a list of groups."""

    groups: Sequence[RunGroup]
    sets: dict[tuple[int, ...], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._group_of = {run.run_id: i for i, group in enumerate(self.groups) for run in group.runs}

    def link(self, run_ids: Sequence[str]) -> str:
        """The address of these runs on the page, or empty where it knows none of them."""
        known = [run_id for run_id in run_ids if run_id in self._group_of]
        if not known:
            return ""
        key = tuple(sorted({self._group_of[run_id] for run_id in known}))
        if len(key) == 1:
            return f"#run-{known[0]}"
        return "#" + self.sets.setdefault(key, f"runs-{len(self.sets) + 1}")

    def listed(self) -> Iterator[tuple[str, list[RunGroup]]]:
        """Every set of several groups that a link points to, after its anchor."""
        for key, anchor in self.sets.items():
            yield anchor, [self.groups[i] for i in key]


def run_groups(results: pd.DataFrame) -> list[RunGroup]:
    """The runs that have started and ended, by condition, suite, machine and commit."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in results[results["status"].isin(STARTED)].to_dict("records"):
        groups.setdefault((spec_without_seed(row["spec"]), *(str(row[name]) for name in SHARED)), []).append(row)
    made = [_group(key, rows) for key, rows in groups.items()]
    return sorted(made, key=lambda g: (g.dataset, g.model, g.method, g.fields, g.suite, g.device, g.commit, g.departs))


def left_out(
    groups: Iterable[RunGroup], older: Container[str] = ()
) -> list[tuple[str, str, list[tuple[RunGroup, Run]]]]:
    """(network, why, runs) of what is in no mean: departing, diverged, failed, cancelled or older.

    older: the runs that are left out because they are of an earlier version of their method.
    """
    found: dict[tuple[str, str], list[tuple[RunGroup, Run]]] = {}
    for group in groups:
        departs = f"departs: {group.departs.replace(SEPARATOR, f'{SEPARATOR} ')}" if group.departs else ""
        for run in group.runs:
            why = departs or (run.status if run.status in LOST else OLDER if run.run_id in older else "")
            if why:
                found.setdefault((group.network, why), []).append((group, run))
    return [(network, why, runs) for (network, why), runs in sorted(found.items())]


@dataclass(frozen=True)
class Network:
    """The runs of one network on one data set.

    shared: what their specs have in common; rows: the rest, by group.
    """

    name: str
    shared: str
    rows: tuple[tuple[RunGroup, str], ...]


def networks(groups: Sequence[RunGroup]) -> list[Network]:
    """The groups by data set and model; what they share stands apart from what they differ in."""
    found: dict[str, list[RunGroup]] = {}
    for group in groups:
        found.setdefault(group.network, []).append(group)
    return [_network(name, members) for name, members in found.items()]


def _network(name: str, members: Sequence[RunGroup]) -> Network:
    shared = set.intersection(*(set(group.fields) for group in members))
    common = [field for field in members[0].fields if field in shared]
    rows = tuple((group, _fields(f for f in group.fields if f not in shared)) for group in members)
    return Network(name, _fields(common), rows)


def _fields(fields: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name}={value}" for name, value in fields)


def _group(key: tuple[str, ...], rows: Sequence[Mapping[str, Any]]) -> RunGroup:
    spec = json.loads(key[0])
    shared = dict(zip(SHARED, key[1:], strict=True))
    runs = sorted((_run(row) for row in rows), key=lambda run: (len(run.seed), run.seed, run.run_id))
    fields = tuple((name, value) for name, value in _leaves(spec) if name not in NAMED)
    return RunGroup(**shared, condition=label(spec, unpublished(spec)), fields=fields, runs=tuple(runs))


def _run(row: Mapping[str, Any]) -> Run:
    accuracy, density = row["test_accuracy"], row["density"]
    known = row["status"] == "done" and not math.isnan(accuracy)
    outcome = f"{accuracy:.2f} % at {100 * density:.4g} %" if known else " ".join(str(row["error"]).split())[:160]
    return Run(str(row["run_id"]), f"{row['seed']:g}", str(row["status"]), outcome)


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for name, value in sorted(tree.items()):
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value if isinstance(value, str) else json.dumps(value)
