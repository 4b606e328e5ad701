"""Suites that changed after a run folder listed their cells.

Reports which of these cells are no longer in the suite, and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark import results
from benchmark.run_folder.files import write_json
from benchmark.spec import RunSpec, SpecError, fields, from_dict
from benchmark.suites import Suite

NAMED = 3


def check(out: Path, suite: Suite, *, accept: bool) -> None:
    """Raises SpecError if the folder has cells of an earlier version of the suite.

    accept: marks them instead.
    """
    path = out / "suites" / f"{suite.name}.json"
    if not path.exists():
        return
    document = results.expansion(path)
    strays = _strays(document["cells"], suite.own)
    if not strays:
        return
    first = from_dict(strays[0]["spec"])
    if not accept:
        raise SpecError(
            f"suite {suite.name} was changed since {out} was begun: {len(strays)} of its cells are no longer in it "
            f"({first.label}: {_difference(first, suite.own)}); use another --out, put the suite back, or give "
            "--accept-drift: those cells stay in the tables, marked as departing"
        )
    for entry in strays:
        entry["departs"] = [f"drift: suite: {_difference(from_dict(entry['spec']), suite.own)}"]
    write_json(path, document)


def _strays(entries: Iterable[dict[str, Any]], own: Sequence[RunSpec]) -> list[dict[str, Any]]:
    """Listed cells that are marked as no departure, and that the suite has under no seed."""
    ids = {spec.run_id for spec in own}
    unknown = [entry for entry in entries if entry["run_id"] not in ids and not entry["departs"]]
    own_specs = {_without_seed(spec.to_dict()) for spec in own} if unknown else set()
    return [entry for entry in unknown if _without_seed(entry["spec"]) not in own_specs]


def _without_seed(tree: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in tree.items() if key != "seed"}, sort_keys=True)


def _difference(stray: RunSpec, own: Sequence[RunSpec]) -> str:
    """`optimizer.epochs: 2 -> 3`: how a stray differs from the most similar cell of the suite."""
    before = fields(stray)
    closest = min((_changes(before, fields(spec)) for spec in own), key=len)
    return ", ".join(closest[:NAMED]) + (" and more" if len(closest) > NAMED else "")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [name for name in {**before, **now} if name not in ("seed", *results.MEMBERSHIPS)]
    return [f"{name}: {before.get(name)} -> {now.get(name)}" for name in names if before.get(name) != now.get(name)]
