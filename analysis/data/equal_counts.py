"""Baselines that keep exactly as many weights as another method's cell of the same seed.

A method that finds its own density, such as DST, keeps another count for each seed, so a baseline of
equal counts (`python -m benchmark match --with`) has another density for each seed. Its cells are one
condition all the same, as the other method's cells are one.
"""

from __future__ import annotations

import collections
import json
import statistics
from collections.abc import Sequence

import pandas as pd

SETTING = ("data", "model", "optimizer", "precision")


def with_one_density(results: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """The keys of all rows, with the mean of their densities in those of baselines of equal counts.

    keys: each row's spec without its seed, as JSON. A density that cells of several seeds share is
    not the count of one cell, and stays.
    """
    free = results["density_target"].isna() & (results["method"] != "dense") & (results["status"] == "done")
    measured = zip(results["seed"][free], results["density"][free], strict=True)
    asked = list(zip(results["seed"], results["density_target"], strict=True))
    known = set(measured)
    possible = [place for place, pair in enumerate(asked) if pair in known]
    if not possible:
        return list(keys)
    owners = _owners(results[free], [key for key, is_free in zip(keys, free, strict=True) if is_free])
    used = collections.Counter(keys)
    groups: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
    for place in possible:
        owner = owners.get((_setting(keys[place]), *asked[place]))
        if owner is not None and used[keys[place]] == 1:
            groups[owner, _with_density(keys[place], 0.0)].append(place)
    found = list(keys)
    for places in groups.values():
        mean = statistics.fmean(asked[place][1] for place in places)
        for place in places:
            found[place] = _with_density(keys[place], mean)
    return found


def _owners(free: pd.DataFrame, keys: Sequence[str]) -> dict[tuple[str, int, float], str]:
    """(setting, seed, density) of a cell that found its density -> its key."""
    cells = zip(keys, free["seed"], free["density"], strict=True)
    return {(_setting(key), seed, density): key for key, seed, density in cells}


def _setting(key: str) -> str:
    tree = json.loads(key)
    return json.dumps([tree.get(name) for name in SETTING], sort_keys=True)


def _with_density(key: str, density: float) -> str:
    return json.dumps({**json.loads(key), "density": density}, sort_keys=True)
