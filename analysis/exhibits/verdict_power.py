"""What the number of seeds can show: the power of the verdict on each number that the paper printed.

It needs no runs: the paper's ± is taken as the standard deviation over seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from analysis.data.comparable import FACTOR
from analysis.data.conditions import Results
from analysis.exhibits.verdicts import LEVEL, MARGINS, TABLES
from analysis.output.exhibit import Makers, Written, write_table
from analysis.output.table import Row, Table
from analysis.paper import printed
from analysis.paper.printed import Target
from analysis.statistics.power import DRAWS, power_to_reproduce, seeds_needed

NAME = "verdict-power"
SEEDS = (3, 5)
WANTED = 0.8
CAPTION = "The power of each verdict: how often it would say reproduced of a number that is exactly as printed"
HEADS = (
    "Exhibit", "Cell", "± of accuracy / margin", "± of ln remaining / limit", *(f"{n} seeds" for n in SEEDS),
    "Seeds for 80 %", "Five seeds",
)  # fmt: skip
NOTES = (
    "The first percentage is that of the number by itself, at level 0.05. The second is at the strictest step of "
    "Holm's correction, 0.05 divided by the table's numbers. A number needs that step only if no other number of the "
    "table is clearer, so its power lies between the two.",
    f"{DRAWS:,} simulated sets of seeds each: accuracy and the logarithm of the remaining percentage are normal and "
    "independent, with the printed means and the printed ± as standard deviation over seeds (of the logarithm: ± / "
    "mean). The paper does not say what its ± is. Where our seeds vary more, the power is lower.",
    "Five seeds: whether they have a power of 80 % with the correction at its strictest.",
)
SUFFICE, UNCORRECTED, NEVER, UNKNOWN = (
    "suffice", "suffice without the correction", "do not suffice", "no ± is printed"
)  # fmt: skip


@dataclass(frozen=True)
class Power:
    """A printed number and the power of its verdict.

    levels: of the number by itself, and at the strictest step of the correction. Where the paper
    prints no ±, the properties are None or empty.
    """

    target: Target
    levels: tuple[float, float]

    @property
    def sds(self) -> tuple[float, float] | None:
        """Standard deviations of accuracy and of ln remaining."""
        t = self.target
        if t.sparse_std is None or t.density_std is None or not t.density_percent:
            return None
        return t.sparse_std, t.density_std / t.density_percent

    @property
    def margins(self) -> tuple[float, float]:
        return MARGINS[self.target.dataset], math.log(FACTOR)

    def of(self, n: int) -> tuple[float, ...]:
        sds = self.sds
        return () if sds is None else tuple(power_to_reproduce(sds, self.margins, n, level=a) for a in self.levels)

    @property
    def needed(self) -> tuple[int | None, ...]:
        sds = self.sds
        return () if sds is None else tuple(
            seeds_needed(sds, self.margins, power=WANTED, level=level) for level in self.levels
        )  # fmt: skip

    @property
    def five(self) -> str:
        """Whether five seeds suffice."""
        if self.sds is None:
            return UNKNOWN
        uncorrected, strictest = (power >= WANTED for power in self.of(5))
        return SUFFICE if strictest else UNCORRECTED if uncorrected else NEVER


def powers() -> list[Power]:
    """The power of each number in Tables 1 to 3 that the paper's authors measured."""
    found = []
    for name in TABLES:
        measured = [target for target in printed.targets(name) if target.origin == "measured"]
        found += [Power(target, (LEVEL, LEVEL / len(measured))) for target in measured]
    return found


def makers(results: Results) -> Makers:
    return {NAME: partial(_write, powers())}


def table(found: list[Power]) -> Table:
    rows = []
    for before, power in zip([None, *found], found, strict=False):
        starts = before is None or before.target.exhibit != power.target.exhibit
        rows.append(Row(_cells(power), starts=starts))
    return Table(NAME, CAPTION, HEADS, tuple(rows), NOTES, labels=2, measured=())


def _cells(power: Power) -> tuple[str, ...]:
    t = power.target
    metric = ", top-5" if t.metric == "top5" else ""
    cell = f"{printed.architecture(t.model)}, {printed.method_name(t.method)} at {t.density_percent:g} %{metric}"
    if power.sds is None:
        return (printed.number(t.exhibit), cell, *("",) * (len(HEADS) - 3), power.five)
    shares = [f"{sd:.2f} / {margin:.2f}" for sd, margin in zip(power.sds, power.margins, strict=True)]
    chances = [" / ".join(f"{100 * chance:.0f} %" for chance in power.of(n)) for n in SEEDS]
    needed = " / ".join("over 100" if n is None else str(n) for n in power.needed)
    return (printed.number(t.exhibit), cell, *shares, *chances, needed, power.five)


def _record(power: Power) -> dict[str, Any]:
    t, sds = power.target, power.sds
    found: dict[str, Any] = {
        "exhibit": t.exhibit, "model": t.model, "metric": t.metric, "printed_density_percent": t.density_percent,
        "sd_accuracy": sds and sds[0], "margin_accuracy": power.margins[0], "sd_log_density": sds and sds[1],
        "margin_log_density": power.margins[1],
    }  # fmt: skip
    for n in SEEDS:
        uncorrected, strictest = power.of(n) or (None, None)
        found |= {f"power_{n}_seeds": uncorrected, f"power_{n}_seeds_corrected": strictest}
    uncorrected_n, strictest_n = power.needed or (None, None)
    return found | {"seeds_for_80": uncorrected_n, "seeds_for_80_corrected": strictest_n, "five_seeds": power.five}


def _write(found: list[Power], out: Path) -> Written:
    never = [_cells(power)[1] for power in found if power.five == NEVER]
    said = f"Five seeds have no power of 80 % for {'; '.join(never)}." if never else "Five seeds suffice everywhere."
    return write_table(
        table(found), [_record(power) for power in found], out, finding=said, remark="needs no runs: it is computed "
        "from the printed numbers",
    )  # fmt: skip
