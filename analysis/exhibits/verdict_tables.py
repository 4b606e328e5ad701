"""The verdicts as exhibits: beside each table of the paper one with every epoch and test, and one summary of all."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis import paper
from analysis.epochs import ACCURACY, DENSITY, NAMES, measured
from analysis.exhibit import Maker, Results, Written, write_layout, write_table
from analysis.layout import Layout
from analysis.paper import Target
from analysis.paper_matching import of_table
from analysis.render import factor, mean_and_sd, p_text, points
from analysis.settings import seeds
from analysis.stats import Comparison
from analysis.tables import Table, left_out, paper_table
from analysis.verdicts import FACTOR, LEVEL, PAPER_RUNS, QUOTED, TABLES, Verdict, counts, table_verdicts

RULE = (
    "Reproduced: accuracy within the margin (MNIST 0.2, CIFAR-10 0.3, ImageNet 0.5 points) and remaining percentage "
    f"within a factor of {1 / FACTOR:g} to {FACTOR:g}, both by two one-sided tests (90 % intervals), the printed mean "
    f"taken as fixed. Better: accuracy above the margin at most {FACTOR:g} times the printed percentage. Holm's "
    f"correction over the table's cells at level {LEVEL:g}. In full: docs/verdicts.md."
)
SUPPOSED = (
    "If the paper's n is 1, 3 or 5: the verdict with the printed mean as one of so many runs, its ± their standard "
    "deviation (Welch; for n = 1 taken as known)."
)
BESIDE = "In brackets: beside the cell's verdict, at another alpha than the stated one or in the official protocol."


def makers(results: Results) -> dict[str, Maker]:
    """Tables 1 to 3, their verdicts, and the summary of all verdicts."""
    chosen = functools.cache(lambda name: measured(name, results.settings, results.tables.traces))
    judged = functools.cache(lambda name: table_verdicts(name, chosen(name)))
    found: dict[str, Maker] = {}
    for name in TABLES:
        found[name] = lambda out, name=name: _table(paper_table(name, chosen(name), judged(name)), judged(name), out)  # type: ignore[misc]
        found[f"{name}-verdicts"] = lambda out, name=name: _verdicts(name, results, judged(name), out)  # type: ignore[misc]
    found["verdicts"] = lambda out: _summary([verdict for name in TABLES for verdict in judged(name)], out)
    return found


def verdict_rows(results: Results) -> list[Verdict]:
    """Every verdict on Tables 1 to 3: a row a printed number, setting of ours and epoch."""
    settings = {name: measured(name, results.settings, results.tables.traces) for name in TABLES}
    return [verdict for name in TABLES for verdict in table_verdicts(name, settings[name])]


def headlines(results: Results) -> list[Verdict]:
    """The verdict of each number that the paper measured, at the epoch fixed in advance."""
    return _deciding(verdict_rows(results))


def _deciding(rows: Sequence[Verdict]) -> list[Verdict]:
    return [v for v in rows if v.is_headline and v.decides and v.verdict != QUOTED]


def _table(table: Table, judged: Sequence[Verdict], out: Path) -> Written:
    return write_table(table, out, finding=_finding(paper.PRINTED[table.name].partition(",")[0], judged))


def _verdicts(name: str, results: Results, judged: Sequence[Verdict], out: Path) -> Written:
    number = paper.PRINTED[name].partition(",")[0]
    several = len({v.target.method for v in judged}) > 1
    body: list[tuple[str, ...]] = []
    starts = []
    before: Target | None = None
    for verdict in judged:
        target = verdict.target
        if target != before:
            starts.append(len(body))
            body.append(_printed_line(verdict, several))
            before = target
        body.append(_line(verdict, several))
    heads = (
        "Architecture", *(["Method"] if several else []), "Source", "Epoch", "Remaining (%)", "Ours / paper [90 %]",
        "Accuracy (%)", "Ours − paper [90 %]", "Verdict", "p (Holm)", *(f"If the paper's n is {n}" for n in PAPER_RUNS),
        "Sparse − dense, ours − paper [90 %]", "Dense, ours − paper [95 %]",
    )  # fmt: skip
    notes = (RULE, SUPPOSED, BESIDE, DIFFERENCES, *left_out(of_table(name, results.settings)))
    shown = Layout(
        name=f"{name}-verdicts",
        caption=f"{number}: the verdict on each cell at the best-accuracy, last and lowest-density epochs",
        heads=heads, body=tuple(body), notes=notes, labels=heads.index("Epoch") + 1, starts=tuple(starts),
    )  # fmt: skip
    return write_layout(shown, _records(judged), out, run_ids=_run_ids(judged), finding=_finding(number, judged))


DIFFERENCES = (
    "Where the dense baselines differ (marked *: the 95 % interval leaves out 0) compare the differences sparse minus "
    "dense too. The paper's is that of its printed accuracies; the last word says how the interval lies to the margin. "
    "At the lowest-density epoch the dense twin is read at its headline epoch."
)


def _summary(rows: Sequence[Verdict], out: Path) -> Written:
    cells = _deciding(rows)
    body = []
    for cell in cells:
        same = [v for v in rows if v.target == cell.target and v.decides and not v.is_headline]
        other = {NAMES[v.epoch]: v.verdict for v in same}
        beside = [v for v in rows if v.target == cell.target and v.is_headline and not v.decides]
        body.append((
            paper.PRINTED[cell.exhibit].partition(",")[0], cell.cell, _theirs(cell), _ours(cell), cell.verdict,
            "; ".join(f"{epoch}: {verdict}" for epoch, verdict in other.items()),
            "; ".join(f"{v.match.label}: {v.verdict}" for v in beside if v.match),
        ))  # fmt: skip
    heads = ("Exhibit", "Cell", "Paper", "Ours", "Verdict", "At other epochs", "At other settings")
    caption = f"Verdicts on the paper's own numbers: {_tally(rows)}"
    quoted = len({v.target for v in rows if v.verdict == QUOTED})
    note = f"{quoted} numbers that the paper quotes from others get no verdict; they are in its tables."
    starts = tuple(i for i, row in enumerate(body) if i == 0 or row[0] != body[i - 1][0])
    shown = Layout("verdicts", caption, heads, tuple(body), (RULE, note), labels=len(heads), starts=starts)
    return write_layout(shown, _records(rows), out, run_ids=_run_ids(rows), finding=_finding("Tables 1 to 3", rows))


def _records(rows: Sequence[Verdict]) -> list[dict[str, Any]]:
    return [record(row) for row in rows]


def _run_ids(rows: Sequence[Verdict]) -> set[str]:
    return {run_id for row in rows for run_id in row.run_ids}


def record(row: Verdict) -> dict[str, Any]:
    """A verdict with every number in full."""
    return {
        "exhibit": row.exhibit, "cell": row.cell, "model": row.target.model, "method": row.target.method,
        "metric": row.target.metric, "origin": row.target.origin, "epoch": row.epoch, "headline": row.is_headline,
        "decides": row.decides, "setting": row.match.label if row.match else "",
        "protocol": row.match.protocol if row.match else "", "basis": row.match.basis if row.match else "",
        "n": row.n, "expected": row.expected, "lost": sum(row.lost.values()), "margin": row.margin,
        "paper_accuracy": row.target.sparse, "paper_density_percent": row.target.density_percent,
        **_limits("accuracy_difference", row.accuracy), **_limits("log_density_ratio", row.remaining),
        **_limits("difference_difference", row.difference), **_limits("dense_difference", row.dense),
        "p": row.p, "p_holm": row.adjusted, "verdict": row.verdict,
        **{f"verdict_if_paper_n_{n}": row.sensitivity.get(n, "") for n in PAPER_RUNS},
        "run_ids": ";".join(row.run_ids),
    }  # fmt: skip


def _limits(name: str, comparison: Comparison) -> dict[str, float]:
    low, high = comparison.interval(confidence=0.90)
    return {name: comparison.difference, f"{name}_low90": low, f"{name}_high90": high}


def _printed_line(verdict: Verdict, several: bool) -> tuple[str, ...]:
    target = verdict.target
    metric = ", top-5" if target.metric == "top5" else ""
    stated = ", ".join(["paper", *([f"alpha {target.alpha:g}"] if target.alpha is not None else []),
                        *(["quoted"] if target.origin == "quoted" else [])])  # fmt: skip
    method = [paper.METHODS[target.method]] if several else []
    density = _printed(target.density_percent, target.density_std, plain=True)
    accuracy = _printed(target.sparse, target.sparse_std)
    blank = ("",) * (len(PAPER_RUNS) + 5)
    return (paper.ARCHITECTURES[target.model] + metric, *method, stated, "", density, "", accuracy, *blank)


def _line(verdict: Verdict, several: bool) -> tuple[str, ...]:
    differs = verdict.dense.testable and not _holds_zero(verdict.dense)
    dense = points(verdict.dense) + ("*" if differs else "")
    accuracy, remaining = _summaries(verdict)
    label = verdict.match.label if verdict.match else ""
    return (
        "", *([""] if several else []), f"ours, {label}" if label else "ours",
        NAMES[verdict.epoch], remaining, factor(verdict.remaining, confidence=0.90),
        accuracy, points(verdict.accuracy, confidence=0.90), _bracketed(verdict, verdict.verdict),
        p_text(verdict.adjusted),
        *(_bracketed(verdict, verdict.sensitivity.get(n, "")) for n in PAPER_RUNS),
        _against_margin(verdict.difference, verdict.margin), dense,
    )  # fmt: skip


def _summaries(verdict: Verdict) -> tuple[str, str]:
    if verdict.match is None or not verdict.n:
        return "", ""
    setting = verdict.match.setting
    accuracy = setting.summary(ACCURACY[verdict.target.metric, verdict.epoch])
    remaining = setting.summary(DENSITY[verdict.epoch], scale=100)
    return f"{mean_and_sd(accuracy)} ({seeds(verdict.n, verdict.expected)})", mean_and_sd(remaining)


def _printed(mean: float | None, sd: float | None, *, plain: bool = False) -> str:
    if mean is None:
        return ""
    return f"{mean:.2f} ± {sd:.2f}" if sd is not None else f"{mean:g}" if plain else f"{mean:.2f}"


def _theirs(verdict: Verdict) -> str:
    target = verdict.target
    return f"{_printed(target.sparse, target.sparse_std)} % at {_printed(target.density_percent, target.density_std)} %"


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
    """The difference with its interval, and whether that lies within the margin, outside it, or across it."""
    if not comparison.testable:
        return points(comparison)
    low, high = comparison.interval(confidence=0.90)
    place = "within" if -margin < low and high < margin else "outside" if low > margin or high < -margin else "across"
    return f"{points(comparison, confidence=0.90)} {place}"


def _tally(rows: Sequence[Verdict]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts(rows).items())


def _finding(where: str, rows: Sequence[Verdict]) -> str:
    total = sum(counts(rows).values())
    return f"{where}: of {total} numbers that the paper measured, at their headline epoch: {_tally(rows)}."
