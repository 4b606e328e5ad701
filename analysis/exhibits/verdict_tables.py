"""The verdicts as exhibits: a table beside each of Tables 1 to 3, and beside Figures 5 and 6, and a
summary of those on the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from analysis.data.comparable import FACTOR
from analysis.data.conditions import Results, seeds
from analysis.data.epochs import ACCURACY, COUNTED, DENSITY, EPOCHS, NAMES, measured
from analysis.data.selection import left_out, of_table
from analysis.exhibits.verdicts import (
    LEVEL,
    PAPER_RUNS,
    QUOTED,
    TABLES,
    Verdict,
    deciding,
    finding,
    table_verdicts,
    tally,
    verdict_rows,
)
from analysis.output.exhibit import Makers, Written, write_table
from analysis.output.numbers import WIDE, factor, mean_and_sd, p_text, percentage, points, printed_number
from analysis.output.table import Row, Table
from analysis.paper import printed
from analysis.statistics.small_samples import Comparison

RULE = (
    "Reproduced: accuracy within the margin (MNIST 0.2, CIFAR-10 0.3, ImageNet 0.5 points) and remaining percentage "
    f"within a factor of {1 / FACTOR:g} to {FACTOR:g}, both by two one-sided tests (90 % intervals); the printed mean "
    f"counts as exact. Better: accuracy above the margin at no more than {FACTOR:g} times the printed percentage. "
    f"Holm's correction at level {LEVEL:g} is over the counted verdicts of a table (stated alpha, last epoch), and, "
    "apart from them, over all other pairs that the table shows. In full: docs/verdicts.md."
)
SUPPOSED = (
    "If the paper's n is 1, 3 or 5: the verdict if the printed mean is over so many runs and its ± their standard "
    "deviation (Welch's test; for n = 1 the deviation counts as known)."
)
BESIDE = (
    "Counted: the verdict at the last epoch. In brackets: verdicts at another alpha than the stated one, or in the "
    "official protocol; every alpha that was run is here. p (claim): the smallest p of the three claims, and which "
    "it is; p (Holm): after the correction. A claim whose first p is small and whose second is not would be shown "
    "only if no other pair had been tried."
)
DIFFERENCES = (
    "Where the dense baselines differ (marked *: the 95 % interval leaves out 0), compare the differences sparse minus "
    "dense too. The paper's is that of its printed accuracies; the last word says how the interval lies to the margin. "
    "At the lowest-density epoch the dense twin is read at the last epoch."
)
FIGURES = ("figure5", "figure6")  # whose final values the paper prints; figure5's are in Table 2 too
SUMMARY_HEADS = (
    "Ours, last epoch",
    "Verdict",
    "Epoch of best accuracy",
    "Epoch of lowest density",
    "At the nearest alpha",
)


def makers(results: Results) -> Makers:
    each = {f"{name}-verdicts": partial(_write_table, results, name) for name in (*TABLES, *FIGURES)}
    return {**each, "verdicts": partial(_write_summary, results)}


def record(row: Verdict) -> dict[str, Any]:
    """A verdict with every number in full."""
    return {
        "exhibit": row.exhibit, "cell": row.cell, "model": row.target.model, "method": row.target.method,
        "metric": row.target.metric, "origin": row.target.origin, "epoch": row.epoch, "counts": row.counts,
        "decides": row.decides, "setting": row.match.label if row.match else "",
        "protocol": row.match.protocol if row.match else "", "basis": row.match.basis if row.match else "",
        "n": row.n, "expected": row.expected, "lost": sum(row.lost.values()), "margin": row.margin,
        "paper_accuracy": row.target.sparse, "paper_density_percent": row.target.density_percent,
        **_limits("accuracy_difference", row.accuracy), **_limits("log_density_ratio", row.remaining),
        **_limits("difference_difference", row.difference), **_limits("dense_difference", row.dense),
        "claim": row.claim, "p": row.p, "p_holm": row.adjusted, "verdict": row.verdict,
        **{f"verdict_if_paper_n_{n}": row.sensitivity.get(n, "") for n in PAPER_RUNS},
        "run_ids": ";".join(row.run_ids),
    }  # fmt: skip


def _limits(name: str, comparison: Comparison) -> dict[str, float]:
    low, high = comparison.interval(confidence=0.90)
    return {name: comparison.difference, f"{name}_low90": low, f"{name}_high90": high}


def _write_table(results: Results, name: str, out: Path) -> Written:
    number = printed.number(name)
    judged = table_verdicts(name, measured(name, results))
    several = len({v.target.method for v in judged}) > 1
    rows: list[Row] = []
    for before, verdict in zip([None, *judged], judged, strict=False):
        if before is None or verdict.target != before.target:
            rows.append(Row(_printed_cells(verdict, several), starts=True))
        rows.append(Row(_cells(verdict, several), verdict.run_ids))
    heads = (
        "Architecture", *(["Method"] if several else []), "Source", "Reading", "Remaining (%)", "Ours / paper [90 %]",
        "Accuracy (%)", "Ours − paper [90 %]", "Verdict", "p (claim)", "p (Holm)",
        *(f"If the paper's n is {n}" for n in PAPER_RUNS), "Sparse − dense, ours − paper [90 %]",
        "Dense, ours − paper [95 %]",
    )  # fmt: skip
    notes = (RULE, SUPPOSED, BESIDE, DIFFERENCES, WIDE, *left_out(of_table(name, results.conditions)))
    caption = f"{number}: the verdict on each printed number, at every alpha that was run and at the three readings"
    table = Table(f"{name}-verdicts", caption, heads, tuple(rows), notes, labels=heads.index("Reading") + 1)
    return write_table(table, [record(verdict) for verdict in judged], out, finding=finding(number, judged))


def _write_summary(results: Results, out: Path) -> Written:
    every = verdict_rows(results)
    heads = ("Exhibit", "Cell", "Paper", *SUMMARY_HEADS)
    caption = f"Verdicts on the paper's own numbers at the last epoch: {tally(every)}"
    quoted = len({v.target for v in every if v.verdict == QUOTED})
    note = f"{quoted} numbers that the paper quotes from others get no verdict; they are in its tables."
    rows: list[Row] = []
    for verdict in deciding(every):
        cells = _summary_cells(verdict, every)
        rows.append(Row(cells, verdict.run_ids, starts=not rows or cells[0] != rows[-1].cells[0]))
    table = Table(
        "verdicts", caption, heads, tuple(rows), (RULE, note, WIDE), labels=len(heads), measured=SUMMARY_HEADS
    )
    run_ids = [run_id for verdict in every for run_id in verdict.run_ids]
    records = [record(verdict) for verdict in every]
    return write_table(table, records, out, finding=finding("Tables 1 to 3", every), more_runs=run_ids)


def _summary_cells(cell: Verdict, every: Sequence[Verdict]) -> tuple[str, ...]:
    same = [v for v in every if v.target == cell.target and v.match is not None]
    beside = {v.epoch: v for v in same if v.decides and not v.counts}
    found = [v for v in same if v.match and v.match.basis == "nearest" and not v.decides]
    nearest = sorted(found, key=lambda v: EPOCHS.index(v.epoch))
    return (
        printed.number(cell.exhibit), cell.cell, _theirs(cell), _ours(cell), cell.verdict,
        *(_with_verdict(beside[epoch]) if epoch in beside else "" for epoch in EPOCHS if epoch != COUNTED),
        "; ".join(f"{NAMES[v.epoch]}: {_with_verdict(v)}" for v in nearest),
    )  # fmt: skip


def _with_verdict(verdict: Verdict) -> str:
    return f"{_ours(verdict)}: {verdict.verdict}" if verdict.n else verdict.verdict


def _printed_cells(verdict: Verdict, several: bool) -> tuple[str, ...]:
    target = verdict.target
    metric = ", top-5" if target.metric == "top5" else ""
    stated = ", ".join(["paper", *([f"alpha {target.alpha:g}"] if target.alpha is not None else []),
                        *(["quoted"] if target.origin == "quoted" else [])])  # fmt: skip
    method = [printed.method_name(target.method)] if several else []
    density = printed_number(target.density_percent, target.density_std, exact=True)
    accuracy = printed_number(target.sparse, target.sparse_std)
    blank = ("",) * (len(PAPER_RUNS) + 6)
    return (printed.architecture(target.model) + metric, *method, stated, "", density, "", accuracy, *blank)


def _cells(verdict: Verdict, several: bool) -> tuple[str, ...]:
    differs = verdict.dense.testable and not _holds_zero(verdict.dense)
    dense = points(verdict.dense) + ("*" if differs else "")
    accuracy, remaining = _summaries(verdict)
    label = verdict.match.label if verdict.match else ""
    return (
        "", *([""] if several else []), f"ours, {label}" if label else "ours",
        NAMES[verdict.epoch], remaining, factor(verdict.remaining, confidence=0.90),
        accuracy, points(verdict.accuracy, confidence=0.90), _bracketed(verdict, verdict.verdict),
        f"{p_text(verdict.p)} ({verdict.claim})" if verdict.claim else "", p_text(verdict.adjusted),
        *(_bracketed(verdict, verdict.sensitivity.get(n, "")) for n in PAPER_RUNS),
        _against_margin(verdict.difference, verdict.margin), dense,
    )  # fmt: skip


def _summaries(verdict: Verdict) -> tuple[str, str]:
    if verdict.match is None or not verdict.n:
        return "", ""
    condition = verdict.match.condition
    accuracy = condition.summary(ACCURACY[verdict.target.metric, verdict.epoch])
    remaining = condition.summary(DENSITY[verdict.epoch], scale=100)
    return f"{mean_and_sd(accuracy)} ({seeds(verdict.n, verdict.expected)})", percentage(remaining)


def _theirs(verdict: Verdict) -> str:
    target = verdict.target
    accuracy = printed_number(target.sparse, target.sparse_std)
    return f"{accuracy} % at {printed_number(target.density_percent, target.density_std)} %"


def _ours(verdict: Verdict) -> str:
    accuracy, remaining = _summaries(verdict)
    label = f", {verdict.match.label}" if verdict.match and verdict.match.label else ""
    return f"{accuracy.partition(' (')[0]} % at {remaining} %{label} (n={verdict.n})" if accuracy else ""


def _bracketed(verdict: Verdict, text: str) -> str:
    return text if verdict.decides or not text else f"[{text}]"


def _holds_zero(comparison: Comparison) -> bool:
    low, high = comparison.interval()
    return low <= 0 <= high


def _against_margin(comparison: Comparison, margin: float) -> str:
    """The difference with its interval: within the margin, outside it, or across it."""
    if not comparison.testable:
        return points(comparison)
    low, high = comparison.interval(confidence=0.90)
    place = "within" if -margin < low and high < margin else "outside" if low > margin or high < -margin else "across"
    return f"{points(comparison, confidence=0.90)} {place}"
