"""Table A.2: shapes of thresholds are matched by the ratio of densities that the table shows."""

from __future__ import annotations

from pathlib import Path

import suite_rows

from analysis.data.conditions import Results
from analysis.data.read import load
from analysis.exhibits.table_a2 import against_vector, lines
from benchmark import suites

SEEDS = (0, 1, 2)
# By shape and alpha, the densities of the seeds. Resets swing the second of the matrix's: its mean is above the
# vector's, and its ratio to it below 1.
DENSITIES = {
    ("vector", 5e-4): (0.080, 0.083, 0.084),
    ("matrix", 5e-5): (0.090, 0.091, 0.092),
    ("matrix", 5e-4): (0.014, 0.017, 0.434),
}


def test_the_matched_alphas_are_those_whose_shown_ratio_is_nearest_to_1(tmp_path: Path) -> None:
    rows = [
        suite_rows.done(spec, accuracy=97.0, density=DENSITIES[at][spec.seed])
        for spec in suites.load("thresholds").specs
        if spec.model.name == "lenet-300-100"
        and (at := (spec.method.get("threshold", "vector"), spec.method.get("alpha"))) in DENSITIES
        and spec.seed in SEEDS
    ]
    assert len(rows) == len(DENSITIES) * len(SEEDS)
    found = lines(Results(load([suite_rows.write(tmp_path, rows)])).conditions)
    matrix = {x.compared_at: x for x in found if x.model == "lenet-300-100" and x.shape == "matrix" and x.condition}
    above, below = (matrix[f"matched density, {side}"] for side in ("above", "below"))
    assert (above.alpha, below.alpha) == (5e-5, 5e-4)
    assert against_vector(above)[1].difference > 0 > against_vector(below)[1].difference
