"""The exhibit `claims`: the paper's claims in words, each beside what our runs say of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from analysis.data.conditions import Results
from analysis.exhibits.claims import (
    appendix,
    appendix_layers,
    appendix_ranges,
    section_4,
    section_4_tables,
    section_5_1,
    section_5_2,
    section_5_3,
)
from analysis.exhibits.claims.claim import Claim, Outcome, registered
from analysis.output.exhibit import Makers, Written, write_table
from analysis.output.table import Row, Table

# each registers its claims
IMPORTED = (
    section_4, section_4_tables, section_5_1, section_5_2, section_5_3, appendix, appendix_ranges, appendix_layers,
)  # fmt: skip
TITLE = "The paper's claims in words, and what our runs say"
HEADS = ("Claim", "Section", "The paper's words", "How it is tested here", "Result", "Our numbers", "Runs")
NOTES = (
    "Supported: every unit (seed, condition, network or reading) that was run shows the claim. Not supported: every "
    "unit contradicts it. Mixed: some show and some contradict it. Inconclusive: it is neither shown nor contradicted, "
    "or an alpha, learning rate or setting that the claim names was not run. "
    "Not run: what it needs was not run or not recorded.",
    "Read at the last epoch where nothing else is said. t tests are at level 0.05 over the seeds; the margins are "
    "those of the verdicts (docs/verdicts.md). A number of ours, where the paper gives none, is marked as ours.",
    "Each claim is tested at its own level, without a correction over the claims: of those that t tests decide, up to "
    "one in twenty may be answered wrongly by chance. Within a claim all units have to show it; where some alpha is "
    "enough, its p is multiplied by the number of alphas that were run. An alpha with one seed is in no t test where "
    "others have more.",
    "n: seeds done, of those in these tables where some are missing. Runs: how many runs the numbers are of, without "
    "those of the dense network. Departing, failed and diverged cells are in no test except A.1's.",
)
WIDTHS = (0.16, 0.07, 0.2, 0.2, 0.1, 0.22, 0.06)
ORDER = ("supported", "mixed", "inconclusive", "not supported", "not run")


def claims() -> list[Claim]:
    """All claims, in the exhibit's order."""
    return registered()


def makers(results: Results) -> Makers:
    return {"claims": partial(write, results, name="claims", title=TITLE, chosen=claims())}


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many claims have which result, in a sentence."""
    counts = Counter[str](outcome.result for outcome in outcomes)
    return f"Of {len(outcomes)} claims: {', '.join(f'{counts[name]} {name}' for name in ORDER if counts[name])}."


def write(
    results: Results, out: Path, *, name: str, title: str, chosen: Sequence[Claim], notes: Sequence[str] = NOTES
) -> Written:
    """These claims, tested on the results."""
    tested = [(claim, claim.test(results)) for claim in chosen]
    rows = tuple(Row(_cells(claim, outcome), outcome.run_ids) for claim, outcome in tested)
    names = [head.lower().replace(" ", "_") for head in HEADS]
    records = [dict(zip(names, row.cells, strict=True)) | {"run_ids": ";".join(row.run_ids)} for row in rows]
    table = Table(name, title, HEADS, rows, tuple(notes), labels=len(HEADS), measured=HEADS[-2:], widths=WIDTHS)
    return write_table(table, records, out, finding=summary([outcome for _, outcome in tested]))


def _cells(claim: Claim, outcome: Outcome) -> tuple[str, ...]:
    runs = str(len(outcome.run_ids)) if outcome.run_ids else "-"
    return (
        claim.claim, claim.section, claim.paper, claim.tested_by, outcome.result, outcome.numbers or "-", runs,
    )  # fmt: skip
