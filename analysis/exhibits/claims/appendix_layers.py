"""The claims of appendices A.4 and A.5: what holds for VGG-16 holds for wide residual networks."""

from __future__ import annotations

import pandas as pd

from analysis.data.conditions import Results, seeds
from analysis.data.layers_and_curves import by_epoch, mean_remaining, of_common_seeds
from analysis.exhibits.claims.claim import LEARNING_RATE, Outcome, claim, judge, measured
from analysis.exhibits.claims.section_5_3 import consistent

WRN_ALPHA = 1e-5  # of Figures 8 to 10
OUTPUT = "fc.weight"


@claim(
    "pattern-consistent-wrn",
    section="A.5",
    claim="The layers of the wide residual networks too are in the same order at every alpha",
    paper='"This phenomenon also exists in other network architectures" (Figures 11 and 12)',
    tested_by=(
        "WideResNet-16-8 and -16-10: Kendall's W of the layers' ranks over the alphas is at least 0.7 (ours); last "
        "epoch, means over seeds"
    ),
)
def wrn_pattern_is_consistent(results: Results) -> Outcome:
    return consistent(results, ("wrn-16-8", "wrn-16-10"))


@claim(
    "wrn-like-vgg",
    section="A.4",
    claim="The layers of the wide residual networks change in a similar way",
    paper='"The similar phenomenon can be observed in all these three network architectures for various alpha"',
    tested_by=(
        "WideResNet-16-8, -16-10 and -28-8 at alpha 1e-5: the first five convolutions keep less at the end than after "
        "the first epoch, and the output layer keeps more than any of them at the end (ours: similar is not defined)"
    ),
)
def wrn_change_similarly(results: Results) -> Outcome:
    """A unit is a seed of a network."""
    held, said, used = [], [], []
    for model in ("wrn-16-8", "wrn-16-10", "wrn-28-8"):
        for condition in measured(results, model, alpha=WRN_ALPHA, learning_rate=LEARNING_RATE)[:1]:
            names = [n for n in mean_remaining(results.tables, condition).index if "conv" in str(n)][:5]
            wanted = [by_epoch(results.tables, condition, f"density/{name}") for name in [*names, OUTPUT]]
            *curves, output = of_common_seeds(wanted)
            if not curves or output.empty:
                continue
            first, last = (pd.DataFrame([curve.iloc[at] for curve in curves], index=names) for at in (0, -1))
            held += list((last < first).all() & (output.iloc[-1] > last.max()))
            used.append(condition)
            ends = f"convolutions {last.mean().mean():.2f} after {first.mean().mean():.2f}"
            n = seeds(len(output.columns), len(condition.rows))
            said.append(f"{model}: {ends}, output layer {output.iloc[-1].mean():.2f} ({n})")
    return judge(held, "; ".join(said), used)
