"""Tables as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import math
from typing import Any

from analysis import paper
from analysis.epochs import EPOCHS
from analysis.layout import Layout
from analysis.settings import Summary
from analysis.stats import Comparison, half_width
from analysis.tables import Row, Table

HEADS = {
    "dense": "Dense Baseline (%)",
    "remaining": "Model Remaining Percentage (%)",
    "sparse": "Sparse Accuracy (%)",
    "difference": "Difference",
    "parameters": "Remaining number of parameters (M)",
}
TOP5 = {"dense": "Dense Baseline Top-1 / Top-5 (%)", "sparse": "Sparse Accuracy Top-1 / Top-5 (%)"}
MINUS = "ours − paper"


def data(table: Table) -> list[dict[str, Any]]:
    """Every number in full, a line a row of the table, the three epochs side by side; run ids by semicolons."""
    names = [name for column in table.columns for name in column]
    rows = []
    for row in table.rows:
        known: dict[str, Any] = {
            "architecture": row.model, "method": row.method, "source": row.source, "setting": row.setting,
            "status": row.status, "epoch_shown": row.shown, "verdict": "; ".join(row.verdicts),
        }  # fmt: skip
        numbers = {
            f"{epoch}_{name}_{part}": value
            for epoch in ("printed", *EPOCHS)
            for name in names
            for part, value in _numbers(row, epoch, name).items()
        }
        traced = {
            "run_ids": ";".join(row.run_ids),
            "dense_run_ids": ";".join(row.dense_run_ids),
            "commits": ";".join(row.commits),
        }
        rows.append(known | numbers | traced)
    return rows


def laid_out(table: Table) -> Layout:
    """What a reader sees: the paper's row, ours at its headline epoch, and ours minus the paper's."""
    several = len({row.method for row in table.rows}) > 1
    body: list[tuple[str, ...]] = []
    starts = []
    before = ("", "")
    for row in table.rows:
        model = paper.ARCHITECTURES.get(row.model, row.model) if row.model != before[0] else ""
        method = paper.METHODS.get(row.method, row.method) if (row.model, row.method) != before else ""
        before = (row.model, row.method)
        if row.source == "paper" or model:
            starts.append(len(body))
        label = ", ".join(filter(None, [row.source, row.setting]))
        numbers = [_joined([cell(row, row.shown, name) for name in column]) for column in table.columns]
        verdict = [" / ".join(row.verdicts)] if table.judged else []
        body.append((model, *([method] if several else []), label, *numbers, *verdict))
        if any(epoch == row.shown for epoch, _ in row.against):
            minus = [_joined([_minus(row, row.shown, name) for name in column]) for column in table.columns]
            body.append(("", *([""] if several else []), MINUS, *minus, *([""] if table.judged else [])))
    heads = [TOP5.get(column[0], HEADS[column[0]]) if len(column) > 1 else HEADS[column[0]] for column in table.columns]
    labels = ["Architecture", *(["Method"] if several else []), "Source"]
    return Layout(
        name=table.name,
        caption=table.caption,
        heads=(*labels, *heads, *(["Verdict"] if table.judged else [])),
        body=tuple(body),
        notes=table.notes,
        labels=len(labels),
        starts=tuple(starts),
    )


def cell(row: Row, epoch: str, name: str) -> str:
    """A number as a reader sees it: `97.90 ± 0.07 (n=5) [97.83, 97.97]`, `not run`, or empty where not printed."""
    if name == "parameters" and row.source == "ours":
        epoch = "last"
    value = row.values.get((epoch, name))
    signed = name.startswith("difference")
    if row.source == "paper":
        return "" if value is None else _spread(value, signed=signed, exact=name == "remaining")
    if value is None:
        return "" if row.values and not name.startswith("dense") else "not run"
    if value.n == 0:
        return "" if signed else f"not run (n=0/{value.expected})"
    return f"{_spread(value, signed=signed)} ({value.seeds}){limits(*_interval(value), signed=signed)}"


def reading(value: Summary) -> str:
    """`97.90 ± 0.07 (n=5)`, `(n=2/3)` where seeds are missing, or `not run`."""
    return f"{mean_and_sd(value)} ({value.seeds})" if value.n else "not run"


def mean_and_sd(value: Summary) -> str:
    """`97.90 ± 0.07`, of one value `97.90`."""
    return f"{value.mean:.2f} ± {value.sd:.2f}" if value.n > 1 else f"{value.mean:.2f}"


def p_text(p: float) -> str:
    if math.isnan(p):
        return ""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def points(comparison: Comparison, *, confidence: float = 0.95) -> str:
    """A difference in points with its interval: `+0.34 [+0.25, +0.43]`."""
    if math.isnan(comparison.difference):
        return ""
    return f"{comparison.difference:+.2f}{limits(*comparison.interval(confidence=confidence), signed=True)}"


def factor(comparison: Comparison, *, confidence: float = 0.95) -> str:
    """A logarithm of a ratio, as the ratio with its interval: `×5.00 [3.61, 6.93]`."""
    if math.isnan(comparison.difference):
        return ""
    low, high = (math.exp(limit) for limit in comparison.interval(confidence=confidence))
    return f"×{math.exp(comparison.difference):.2f}{limits(low, high)}"


def limits(low: float, high: float, *, signed: bool = False) -> str:
    """An interval to stand behind its number: ` [97.83, 97.97]`; empty where there is none."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f" [{low:+.2f}, {high:+.2f}]" if signed else f" [{low:.2f}, {high:.2f}]"


def _minus(row: Row, epoch: str, name: str) -> str:
    comparison = row.against.get(("last" if name == "parameters" else epoch, name))
    if comparison is None:
        return ""
    return factor(comparison) if name == "remaining" else points(comparison)


def _spread(value: Summary, *, signed: bool = False, exact: bool = False) -> str:
    mean = f"{value.mean:+.2f}" if signed else f"{value.mean:.2f}"
    if math.isnan(value.sd):
        return f"{value.mean:g}" if exact else mean
    return f"{mean} ± {value.sd:.2f}"


def _interval(value: Summary) -> tuple[float, float]:
    half = half_width(value.sd, value.n)
    return value.mean - half, value.mean + half


def _joined(texts: list[str]) -> str:
    same = len(set(texts)) == 1 and texts[0].startswith("not run")
    return texts[0] if same else " / ".join(text for text in texts if text)


def _numbers(row: Row, epoch: str, name: str) -> dict[str, float | int | None]:
    value = row.values.get((epoch, name))
    mean, sd = (None, None) if value is None else (value.mean, value.sd)
    if epoch == "printed":
        return {"mean": mean, "sd": sd}
    n, expected = (None, None) if value is None else (value.n, value.expected)
    low, high = (None, None) if value is None else _interval(value)
    comparison = row.against.get((epoch, name), Comparison(math.nan, math.nan, math.nan))
    below, above = comparison.interval()
    against = {"against_paper": comparison.difference, "against_paper_low": below, "against_paper_high": above}
    return {"mean": mean, "sd": sd, "n": n, "expected": expected, "low": low, "high": high, **against}
