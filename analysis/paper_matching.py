"""Which of our settings stand beside a number that the paper printed, and which of them the verdict is on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis import paper
from analysis.paper import Target
from analysis.settings import Setting

PROTOCOLS = ("paper", "official")


@dataclass(frozen=True)
class Match:
    """A setting of ours beside a printed row.

    basis: "stated" (the alpha or the density that the paper prints) or "nearest" (the alpha run here
    whose remaining percentage comes nearest). decides: whether the cell's verdict is on it.
    """

    setting: Setting
    label: str
    protocol: str
    basis: str
    decides: bool = False


def printed_and_ours(name: str, settings: Sequence[Setting]) -> list[tuple[Target, list[Match]]]:
    """Every printed row of a table, in the paper's order, with our settings beside it."""
    chosen = as_stated(name, settings)
    return [(target, matching(target, chosen)) for target in paper.targets(name)]


def of_table(name: str, settings: Iterable[Setting]) -> list[Setting]:
    """The settings of a table's data sets and models, whatever protocol they follow."""
    printed = paper.targets(name)
    datasets, models = {target.dataset for target in printed}, {target.model for target in printed}
    return [s for s in settings if s.dataset in datasets and s.model in models]


def as_stated(name: str, settings: Iterable[Setting]) -> list[Setting]:
    """Those that follow one of the protocols, at the learning rate that the table is about."""
    rate = paper.RATES.get(name)
    own = of_table(name, settings)
    return [s for s in own if follows_protocol(s) and (rate is None or s.spec["optimizer"]["lr"] == rate)]


def matching(target: Target, settings: Sequence[Setting]) -> list[Match]:
    """In each protocol: the stated alpha or density, and, for methods with an alpha, the one whose last
    epoch's remaining percentage comes nearest to the printed one, on a log scale."""
    same = [s for s in settings if (s.model, s.method) == (target.model, target.method) and len(s.rows)]
    chosen: dict[int, Match] = {}
    for protocol in PROTOCOLS:
        of = [s for s in same if s.protocols[0] == protocol]
        suffix = ", official protocol" if protocol == "official" else ""
        for s in of:
            if _close(s.alpha, target.alpha) or _close(s.density, (target.density_percent or 0) / 100):
                chosen[id(s)] = Match(s, wording(s) + suffix, protocol, "stated")
        nearest = _nearest(target, [s for s in of if s.alpha is not None])
        if nearest is not None:
            label = f"{wording(nearest)}, nearest remaining{suffix}"
            chosen.setdefault(id(nearest), Match(nearest, label, protocol, "nearest"))
    return _decided(target, list(chosen.values()))


def follows_protocol(setting: Setting) -> bool:
    """Whether a setting follows one of the protocols on the whole data, with DST as the paper runs it."""
    return setting.whole_data and setting.as_published and bool(set(setting.protocols) & set(PROTOCOLS))


def wording(setting: Setting) -> str:
    """What tells a setting from its neighbours: its alpha or its density."""
    if setting.alpha is not None:
        return f"alpha {setting.alpha:g}"
    return "" if setting.density is None else f"density {setting.density:g}"


def _decided(target: Target, matches: list[Match]) -> list[Match]:
    """Marks the one that the verdict is on: the paper's protocol at the stated alpha; at the nearest where the
    paper states none. None for numbers that the paper quotes from others."""
    basis = "nearest" if target.alpha is None else "stated"
    own = [m for m in matches if m.protocol == "paper" and m.basis == basis and target.origin == "measured"]
    first = max(own, key=lambda match: len(match.setting.done), default=None)
    return [Match(m.setting, m.label, m.protocol, m.basis, decides=m is first) for m in matches]


def _nearest(target: Target, settings: Sequence[Setting]) -> Setting | None:
    wanted = target.density_percent
    found = [(100 * setting.done["density"].mean(), setting) for setting in settings if len(setting.done)]
    away = [(abs(math.log(has / wanted)), setting) for has, setting in found if wanted and has > 0]
    return min(away, key=lambda pair: pair[0])[1] if away else None


def _close(ours: float | None, stated: float | None) -> bool:
    return ours is not None and stated is not None and math.isclose(ours, stated, rel_tol=1e-6)
