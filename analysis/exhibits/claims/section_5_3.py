"""The claims of section 5.3: the layers of VGG-16 are sparse in one pattern at every alpha."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.data.conditions import Results
from analysis.data.layers_and_curves import mean_remaining
from analysis.exhibits.claims.claim import Outcome, by_alpha, claim, judge, mean_of
from analysis.exhibits.claims.evidence import Answer
from analysis.statistics.rankings import chance, kendalls_w, p_value

AGREE = 0.7  # ours
ALPHAS = (1e-6, 5e-6, 1e-5)  # ours: the paper does not print those of Figure 7
REDUNDANT = (*(f"conv{number}.weight" for number in range(10, 14)), "fc1.weight")
KEPT = (*(f"conv{number}.weight" for number in range(3, 8)), "fc2.weight")


@claim(
    "pattern-consistent",
    section="5.3",
    claim="The layers of VGG-16 are in the same order of remaining ratio at every alpha",
    paper=(
        '"For the same architecture trained by our method with various alpha values, the relative relationship of '
        'sparsity among different layers keeps consistent"'
    ),
    tested_by="Kendall's W of the layers' ranks over the alphas is at least 0.7 (ours); last epoch, means over seeds",
)
def vgg_pattern_is_consistent(results: Results) -> Outcome:
    return consistent(results, ("vgg16",))


@claim(
    "sparse-layers",
    section="5.3",
    claim="Conv 10-13 and FC 1 of VGG-16 are the highly sparse layers at every alpha",
    paper=(
        '"the last four convolutional layers (Conv 10-13) and the first fully connected layers (FC 1) are'
        ' highly sparse"'
    ),
    tested_by="at 1e-6, 5e-6 and 1e-5 (our choice) each keeps a smaller share than the whole network",
)
def redundant_layers_are_sparse(results: Results) -> Outcome:
    return _against_the_whole(results, REDUNDANT, sparser=True)


@claim(
    "kept-layers",
    section="5.3",
    claim="Conv 3-7 and FC 2 of VGG-16 keep much at every alpha",
    paper='"some layers (Conv 3-7, FC 2) keep a high amount of parameters after pruning"',
    tested_by="at 1e-6, 5e-6 and 1e-5 (our choice) each keeps a larger share than the whole network",
)
def other_layers_are_kept(results: Results) -> Outcome:
    return _against_the_whole(results, KEPT, sparser=False)


def consistent(results: Results, models: Sequence[str]) -> Outcome:
    """Whether the layers' ranks agree over the alphas; a unit is a network with three alphas or more."""
    held, said, used = [], [], []
    for model in models:
        found = [c.only(results.tables.layer_places) for c in by_alpha(results, model)]
        found = [c for c in found if len(c.done)]
        ratings = [mean_remaining(results.tables, condition) for condition in found]
        if len(ratings) < 3:
            continue
        table = pd.DataFrame(ratings).to_numpy(dtype=float)
        agreement = kendalls_w(table)
        held.append(agreement >= AGREE)
        used += found
        p = p_value(agreement, chance(table))
        said.append(f"{model}: W = {agreement:.2f} over {len(ratings)} alphas (by chance p = {p:.3g})")
    return judge(held, "; ".join(said), used)


def _against_the_whole(results: Results, names: Sequence[str], *, sparser: bool) -> Outcome:
    """Whether layers of VGG-16 keep less, or more, than the whole; a unit is a layer and alpha.

    An alpha without layers decides nothing, so that the claim about every alpha stays inconclusive.
    """
    held: list[Answer] = []
    said, used = [], []
    for alpha in ALPHAS:
        found = [c.only(results.tables.layer_places) for c in by_alpha(results, "vgg16") if c.alpha == alpha]
        condition = next((c for c in found if len(c.done)), None)
        layers = pd.Series() if condition is None else mean_remaining(results.tables, condition)
        if condition is None or not set(names) <= set(layers.index):
            held.append(None)
            said.append(f"alpha {alpha:g}: not run")
            continue
        chosen, whole = layers[list(names)], mean_of(condition, "density")
        held += list(chosen < whole if sparser else chosen > whole)
        used.append(condition)
        span = f"{100 * chosen.min():.1f}-{100 * chosen.max():.1f} %"
        said.append(f"alpha {alpha:g}: {span}, whole network {100 * whole:.1f} % ({condition.seeds})")
    return judge(held, "; ".join(said), used) if used else Outcome("not run")
