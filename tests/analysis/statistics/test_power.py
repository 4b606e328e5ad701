"""The simulated power against an exact one, against the rule itself, and the page that shows it."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from analysis.exhibits.verdict_power import NEVER, powers, table
from analysis.exhibits.verdicts import p_of_claims
from analysis.output.table import markdown
from analysis.statistics.power import power_of_equivalence, power_to_reproduce, seeds_needed
from analysis.statistics.small_samples import against_fixed

PAGE = Path(__file__).resolve().parents[3] / "docs/verdicts.md"


def exact(sd: float, margin: float, n: int, level: float) -> float:
    """P(|mean| + t s / √n <= margin), by integrating over the distribution of s."""
    from scipy import integrate, special, stats

    error = sd / math.sqrt(n)
    quantile = special.stdtrit(n - 1, 1 - level)

    def density(v: float) -> float:
        room = margin - quantile * math.sqrt(v / (n - 1)) * error
        return float(stats.chi2.pdf(v, n - 1) * (2 * special.ndtr(room / error) - 1)) if room > 0 else 0.0

    return float(integrate.quad(density, 0, (n - 1) * (margin / (quantile * error)) ** 2)[0])


@pytest.mark.parametrize("n", [2, 3, 5, 9])
@pytest.mark.parametrize(("sd", "margin"), [(0.14, 0.2), (0.37, 0.3), (0.05, 0.3)])
def test_the_simulation_gives_the_exact_power(n: int, sd: float, margin: float) -> None:
    found = power_of_equivalence(sd, margin, n, level=0.05)
    assert found.mean() == pytest.approx(exact(sd, margin, n, 0.05), abs=4 * 0.5 / math.sqrt(len(found)))


def test_it_is_the_power_of_the_rule() -> None:
    """The rule's own p values on drawn seeds: reproduced has the smallest p, and that is at most 0.05."""
    draws, n, sds, margin = 4000, 5, (0.14, 0.21 / 2.48), 0.2
    noise = random.Random(1)
    shown = 0
    for _ in range(draws):
        accuracy, density = ([noise.gauss(0, sd) for _ in range(n)] for sd in sds)
        claims = p_of_claims(against_fixed(accuracy, 0.0), against_fixed(density, 0.0), margin)
        shown += min(claims, key=lambda claim: claims[claim]) == "reproduced" and claims["reproduced"] <= 0.05
    found = power_to_reproduce(sds, (margin, math.log(1.25)), n, level=0.05)
    assert shown / draws == pytest.approx(found, abs=5 * 0.5 / math.sqrt(draws))


def test_one_seed_shows_nothing_and_more_seeds_show_more() -> None:
    sds, margins = (0.1, 0.1), (0.2, math.log(1.25))
    shown = [power_to_reproduce(sds, margins, n, level=0.05) for n in (1, 2, 3, 5, 10)]
    assert shown[0] == 0
    assert shown == sorted(shown)
    needed = seeds_needed(sds, margins, power=0.8, level=0.05)
    assert needed is not None
    at, before = (power_to_reproduce(sds, margins, n, level=0.05) for n in (needed, needed - 1))
    assert before < 0.8 <= at
    assert seeds_needed((5.0, 0.1), margins, power=0.8, level=0.05, most=20) is None


def test_a_printed_number_that_five_seeds_cannot_settle_says_so() -> None:
    found = {(power.target.model, power.target.density_percent): power for power in powers()}
    assert found["vgg16", 3.76].five == NEVER
    assert max(found["vgg16", 3.76].of(5)) < 0.2
    assert found["resnet50", 9.87].of(5) == ()
    assert found["resnet50", 9.87].five == "no ± is printed"


def test_the_page_shows_the_table_that_the_build_computes() -> None:
    rows = [line for line in markdown(table(powers())).splitlines() if line.startswith("|")]
    assert "\n".join(rows) in PAGE.read_text(), "docs/verdicts.md: paste the rows of verdict-power.md"
