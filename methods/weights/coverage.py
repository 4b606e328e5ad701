"""How much of a model's weights a method can mask, and the warning where that is little."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from methods.layers import Selection

ENOUGH = 0.9
NAMED = 5


@dataclass(frozen=True)
class Coverage:
    """The share of a model's weights that is maskable.

    covered: numbers in maskable weights. total: these, and the numbers in dense weights with two
    or more axes. dense: the numbers of each dense weight, by qualified name, largest first. aside:
    weights that are dense on purpose and are not counted, by name, with the reason: embedding,
    excluded, not included, frozen or empty.
    """

    covered: int
    total: int
    dense: Mapping[str, int]
    aside: Mapping[str, str]

    @classmethod
    def of(cls, selection: Selection) -> Coverage:
        """Count the weights of a selection."""
        covered = sum(weight.parameter.numel() for weight in selection.weights.values())
        sizes = {name: parameter.numel() for name, parameter in selection.dense.items()}
        dense = dict(sorted(sizes.items(), key=lambda item: -item[1]))
        return cls(covered, covered + sum(sizes.values()), dense, dict(selection.aside))

    @property
    def share(self) -> float:
        """covered / total, in (0, 1]."""
        return self.covered / self.total

    def __str__(self) -> str:
        largest = [f"{name} ({count:,})" for name, count in list(self.dense.items())[:NAMED]]
        rest = f" and {len(self.dense) - NAMED} more" if len(self.dense) > NAMED else ""
        dense = f"; dense: {', '.join(largest)}{rest}" if largest else ""
        percent = 1000 * self.covered // self.total / 10  # rounded down: 100 only where nothing is dense
        return f"{percent:g} % of {self.total:,} weights are maskable{dense}"


def warn_where_little(coverage: Coverage, *, stacklevel: int) -> None:
    """Warn where under 90 % is maskable, and name the largest dense weights."""
    if coverage.share < ENOUGH:
        warnings.warn(
            f"only {coverage}. Register their classes with methods.register_layer, name them in extra, or exclude "
            "their modules",
            stacklevel=stacklevel + 1,
        )
