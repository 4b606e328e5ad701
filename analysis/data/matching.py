"""Which of our conditions stand beside a row that the paper printed, at each of the three readings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.data.conditions import PROTOCOLS, Condition
from analysis.data.epochs import DENSITY, EPOCHS, read_at
from analysis.data.selection import as_stated
from analysis.paper import printed
from analysis.paper.printed import Target


@dataclass(frozen=True)
class Match:
    """A condition of ours beside a printed row, read at one epoch.

    basis: "stated" (the alpha or the density that the paper prints), "nearest" (the alpha run here
    whose remaining percentage at this epoch is nearest to the printed one), or "other" (another
    alpha). decides: whether the printed number's verdict at this epoch is on it.
    """

    condition: Condition
    protocol: str
    epoch: str
    basis: str
    decides: bool = False

    @property
    def label(self) -> str:
        return self.condition.label + (", official protocol" if self.protocol == "official" else "")


def printed_and_ours(name: str, conditions: Sequence[Condition]) -> list[tuple[Target, list[Match]]]:
    """Every row of a printed table, in the paper's order, with our conditions beside it."""
    chosen = as_stated(name, conditions)
    return [(target, matching(target, chosen)) for target in printed.targets(name)]


def matching(target: Target, conditions: Sequence[Condition]) -> list[Match]:
    """Our conditions beside a printed row, in each protocol and at each epoch.

    They are those at the stated alpha or density, and every other alpha that has finished runs.
    """
    same = [c for c in conditions if (c.model, c.method) == (target.model, target.method) and len(c.rows)]
    found: list[Match] = []
    for protocol in PROTOCOLS:
        of = [c for c in same if c.protocol == protocol]
        stated = [c for c in of if _is_stated(c, target)]
        others = [c for c in of if c not in stated and c.alpha is not None and len(c.done)]
        nearest = {epoch: _nearest(target, [*stated, *others], epoch) for epoch in EPOCHS}
        for c in (*stated, *others):
            for epoch in read_at(c):
                basis = "stated" if c in stated else "nearest" if c is nearest[epoch] else "other"
                found.append(Match(c, protocol, epoch, basis))
    return _decided(target, found)


def _decided(target: Target, matches: list[Match]) -> list[Match]:
    """Marks, at each epoch, the match that the verdict is on.

    That is the paper's protocol at the stated alpha, or at the nearest where the paper states none.
    Numbers that the paper quotes from others get no verdict.
    """
    basis = "nearest" if target.alpha is None else "stated"
    own = [m for m in matches if m.protocol == "paper" and m.basis == basis and target.origin == "measured"]
    deciding = [
        max((m for m in own if m.epoch == epoch), key=lambda match: len(match.condition.done), default=None)
        for epoch in EPOCHS
    ]
    return [replace(match, decides=any(match is one for one in deciding)) for match in matches]


def _nearest(target: Target, conditions: Sequence[Condition], epoch: str) -> Condition | None:
    """By the mean remaining percentage at this epoch, on a log scale."""
    wanted = target.density_percent
    found = [(100 * c.done[DENSITY[epoch]].mean(), c) for c in conditions if len(c.done) and c.alpha is not None]
    distances = [(abs(math.log(has / wanted)), c) for has, c in found if wanted and has > 0]
    return min(distances, key=lambda pair: pair[0])[1] if distances else None


def _is_stated(condition: Condition, target: Target) -> bool:
    return _close(condition.alpha, target.alpha) or _close(condition.density, (target.density_percent or 0) / 100)


def _close(ours: float | None, stated: float | None) -> bool:
    return ours is not None and stated is not None and math.isclose(ours, stated, rel_tol=1e-6)
