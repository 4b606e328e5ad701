"""The paper's claims in words (claims.csv), each tested by a predicate on our tables: the exhibit `claims`."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis import claims_appendix, claims_ratios, claims_training
from analysis.evidence import Outcome, Predicate
from analysis.exhibit import Maker, Results, Written, write_layout
from analysis.layout import Layout

CLAIMS = Path(__file__).with_name("claims.csv")
MODULES = (claims_training, claims_ratios, claims_appendix)
TITLE = "The paper's claims in words, and what our runs say"
HEADS = ("Claim", "Section", "The paper's words", "How it is tested here", "Result", "Our numbers", "Runs")
NOTES = (
    "Supported: the test holds in every unit (seed, setting or network) that was run; mixed: in some; not supported: "
    "in none; not run: what it needs has not been run, or not recorded.",
    "Where the paper gives no number, ours is named as such. n: seeds done, of those in the suite where some are "
    "missing. Runs: how many the numbers are of. Departing, failed and diverged cells are in no test but A.1's.",
)
WIDTHS = (0.16, 0.07, 0.2, 0.2, 0.1, 0.22, 0.06)
ORDER = ("supported", "mixed", "not supported", "not run")


@dataclass(frozen=True)
class Claim:
    """id, section and claim in our words; paper: what it says there; test: ours, in words; predicate: its name."""

    id: str
    section: str
    claim: str
    paper: str
    test: str
    predicate: str

    def evaluate(self, results: Results) -> Outcome:
        return predicate(self.predicate)(results)


def claims() -> list[Claim]:
    """All claims, in the order of claims.csv."""
    with CLAIMS.open(newline="", encoding="utf-8") as file:
        return [Claim(**row) for row in csv.DictReader(file)]


def predicate(name: str) -> Predicate:
    """The predicate of this name. Raises ValueError for a name that there is none of."""
    for module in MODULES:
        found: Predicate | None = getattr(module, name, None)
        if found is not None and not name.startswith("_"):
            return found
    raise ValueError(f"{CLAIMS.name}: no predicate {name!r}")


def makers(results: Results) -> dict[str, Maker]:
    return {"claims": lambda out: _write(results, out)}


def _write(results: Results, out: Path) -> Written:
    tested = [(claim, claim.evaluate(results)) for claim in claims()]
    cells = tuple(
        (c.claim, c.section, c.paper, c.test, o.result, o.evidence or "-", str(o.n) if o.n else "-") for c, o in tested
    )
    names = [head.lower().replace(" ", "_") for head in HEADS]
    data = [
        dict(zip(names, row, strict=True)) | {"run_ids": ";".join(o.run_ids)}
        for row, (_, o) in zip(cells, tested, strict=True)
    ]
    run_ids = [run_id for _, o in tested for run_id in o.run_ids]
    shown = Layout("claims", TITLE, HEADS, cells, NOTES, labels=len(HEADS), widths=WIDTHS)
    return write_layout(shown, data, out, run_ids=run_ids, finding=summary([o for _, o in tested]))


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many claims came out how, in a sentence."""
    counts = Counter(outcome.result for outcome in outcomes)
    said = [f"{counts[result]} {result}" for result in ORDER if counts[result]]  # type: ignore[index]
    return f"Of {len(outcomes)} claims: {', '.join(said)}."
