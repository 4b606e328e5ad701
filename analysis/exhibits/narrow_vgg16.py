"""VGG-16 of an eighth of the width: Figures 3 and 5 to 7 in their layout, and the claims of 5.2 and 5.3.

It is ours (suite cifar10_narrow): a test of what the paper says of training, not of its numbers.
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np

from analysis.data.conditions import Results
from analysis.exhibits import figure3, figure4_to_6, figure7
from analysis.exhibits.claims import table as claims
from analysis.output.exhibit import Makers, Written

NAME = "vgg16-narrow"
MODEL, WIDTHS = "vgg16", (8, 8, 16, 16, 32, 32, 32, 64, 64, 64, 64, 64, 64, 64)  # those of the suite
SCALED_DOWN = "scaled down (VGG-16 of an eighth of the width, CIFAR-10)"
# their tests hold the narrow network to accuracies and densities that the paper prints of the whole one
OF_THE_PRINTED_NUMBERS = ("accuracy-85-92", "fc2-at-40", "final-remaining")


def makers(results: Results) -> Makers:
    narrow = as_vgg16(results)
    return {
        f"{NAME}-figure3": partial(_figure3, narrow),
        **{f"{NAME}-{figure}": partial(_curves, narrow, figure) for figure in ("figure5", "figure6")},
        f"{NAME}-figure7": partial(_figure7, narrow),
        f"{NAME}-claims": partial(_claims, narrow),
    }


def as_vgg16(results: Results) -> Results:
    """The rows of this network and no others, in the place of VGG-16's: what reads VGG-16 reads them."""
    rows = results.tables.results
    trees = [json.loads(spec) for spec in rows["spec"]]
    own = [(t["model"]["name"], tuple(t["model"].get("widths") or ())) == (MODEL, WIDTHS) for t in trees]
    for tree in trees:
        tree["model"].pop("widths", None)
    whole = rows.assign(spec=[json.dumps(tree) for tree in trees])
    return Results(dataclasses.replace(results.tables, results=whole[np.array(own, dtype=bool)]))


def _figure3(narrow: Results, out: Path) -> Written:
    title = f"Layout of Figure 3, {SCALED_DOWN}: accuracy and remaining ratio for different alpha"
    return figure3.of_models(narrow, f"{NAME}-figure3", [MODEL], title, out)


def _curves(narrow: Results, figure: str, out: Path) -> Written:
    cell = figure4_to_6.FIGURES[figure]
    _, _, alpha, rate = cell
    number = figure.removeprefix("figure")
    title = f"Layout of Figure {number}, {SCALED_DOWN}: learning rate {rate:g}, alpha = {alpha:g}"
    return figure4_to_6.of_cell(narrow, f"{NAME}-{figure}", cell, title, out)


def _figure7(narrow: Results, out: Path) -> Written:
    title = f"Layout of Figure 7, {SCALED_DOWN}: the sparse pattern for different alpha"
    return figure7.of_model(narrow, f"{NAME}-figure7", MODEL, title, out)


def _claims(narrow: Results, out: Path) -> Written:
    title = f"The claims of sections 5.2 and 5.3, {SCALED_DOWN}"
    if not narrow.conditions:
        return Written(name=f"{NAME}-claims", title=title, remark="not run")
    tested = [c for c in claims.claims() if c.section in ("5.2", "5.3") and c.id not in OF_THE_PRINTED_NUMBERS]
    note = "The network is ours, so a result says how training goes, and is no verdict on the paper's numbers."
    return claims.write(narrow, out, name=f"{NAME}-claims", title=title, chosen=tested, notes=(note, *claims.NOTES))
