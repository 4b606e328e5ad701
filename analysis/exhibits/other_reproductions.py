"""What another reproduction reports of DST, between the paper's numbers and ours of as many epochs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.data.conditions import Condition, Results, summarize
from analysis.data.selection import left_out
from analysis.output.exhibit import Makers, Written, write_table
from analysis.output.numbers import WIDE, percentage, printed_number, with_seeds
from analysis.output.table import Row, Table
from analysis.paper import printed
from analysis.paper.other_reproductions import Reported, reported
from analysis.paper.printed import Target

NAME = "other-reproductions"
CAPTION = "DST in the paper, in another reproduction, and here, with as many epochs (not in the paper)"
HEADS = ("Network", "alpha", "Source", "Epochs", "Read at", "Accuracy (%)", "Remaining (%)")
NOTES = (
    "Another reproduction: one run each; its ± and its seeds are not stated. It has the paper's alpha and learning "
    "rate. Where it trains longer than the paper, so do our cells of the same line.",
    "Ours: mean ± standard deviation over seeds, last epoch; the paper's protocol, with the number of epochs changed. "
    f"{WIDE}",
)


@dataclass(frozen=True)
class Line:
    """A reported run, the paper's number for its network, and our condition; None: not run.

    target: only where the reported run has the paper's alpha.
    """

    reported: Reported
    target: Target | None
    ours: Condition | None


def makers(results: Results) -> Makers:
    return {NAME: lambda out: _write(results, out)}


def lines(conditions: Sequence[Condition]) -> list[Line]:
    found = []
    for run in reported():
        targets = [t for t in printed.targets(run.exhibit) if (t.model, t.method) == (run.model, "dst")]
        target = next((t for t in targets if t.alpha in (None, run.alpha)), None)
        found.append(Line(run, target, _with_as_many_epochs(run, conditions)))
    return found


def _with_as_many_epochs(run: Reported, conditions: Sequence[Condition]) -> Condition | None:
    """The paper's protocol at the reported alpha and epochs, all else unchanged; only with runs."""
    own = [
        c for c in conditions if (c.dataset, c.model, c.method, c.alpha) == (run.dataset, run.model, "dst", run.alpha)
    ]
    stated = {_without_epochs(c) for c in own if c.follows_protocol and "paper" in c.protocols}
    same = [c for c in own if _without_epochs(c) in stated and _epochs(c) == run.epochs and len(c.done)]
    return max(same, key=lambda c: len(c.done), default=None)


def _without_epochs(condition: Condition) -> str:
    optimizer = {name: value for name, value in condition.spec["optimizer"].items() if name != "epochs"}
    return json.dumps({**condition.spec, "optimizer": optimizer}, sort_keys=True)


def _epochs(condition: Condition) -> int:
    return int(condition.spec["optimizer"]["epochs"])


def _write(results: Results, out: Path) -> Written:
    found = lines(results.conditions)
    rows: list[Row] = []
    before = ""
    for line in found:
        starts = line.reported.model != before
        before = line.reported.model
        rows += _rows(line, starts=starts)
    sources = dict.fromkeys(f"Source: {line.reported.source}." for line in found)
    ours = [line.ours for line in found if line.ours is not None]
    table = Table(NAME, CAPTION, HEADS, tuple(rows), (*NOTES, *sources, *left_out(ours)), labels=5)
    return write_table(table, [_record(line) for line in found], out, finding=_finding(found))


def _rows(line: Line, *, starts: bool) -> list[Row]:
    """The paper's line before the first of a network, then what is reported, then ours."""
    run, rows = line.reported, []
    network = printed.architecture(run.model) if starts else ""
    if starts and line.target is not None:
        sparse = printed_number(line.target.sparse, line.target.sparse_std)
        remaining = printed_number(line.target.density_percent, line.target.density_std, exact=True)
        alpha = "" if line.target.alpha is None else f"{line.target.alpha:g}"
        rows.append(Row((network, alpha, "paper", "", "not stated", sparse, remaining), starts=True))
        network = ""
    accuracy = "not stated" if run.accuracy is None else f"{run.accuracy:.2f}"
    about = f"about {run.density_percent:g}" if run.note.startswith("about") else f"{run.density_percent:.2f}"
    alpha, epochs = f"{run.alpha:g}", str(run.epochs)
    rows.append(Row((network, alpha, "another reproduction", epochs, run.reading, accuracy, about)))
    if line.ours is None:
        return [*rows, Row(("", alpha, "ours", epochs, "", "not run", "not run"))]
    numbers = with_seeds(line.ours.summary("test_accuracy")), percentage(line.ours.summary("density", scale=100))
    return [*rows, Row(("", alpha, "ours", epochs, "last epoch", *numbers), line.ours.run_ids)]


def _record(line: Line) -> dict[str, Any]:
    run, none = line.reported, summarize([], expected=0)
    accuracy = none if line.ours is None else line.ours.summary("test_accuracy")
    density = none if line.ours is None else line.ours.summary("density", scale=100)
    return {
        "model": run.model, "alpha": run.alpha, "epochs": run.epochs, "reading": run.reading,
        "reported_accuracy": run.accuracy, "reported_density_percent": run.density_percent,
        "printed_accuracy": None if line.target is None else line.target.sparse,
        "printed_density_percent": None if line.target is None else line.target.density_percent,
        "accuracy_mean": accuracy.mean, "accuracy_sd": accuracy.sd, "n": accuracy.n, "expected": accuracy.expected,
        "density_percent_mean": density.mean, "density_percent_sd": density.sd, "source": run.source,
        "note": run.note, "run_ids": "" if line.ours is None else ";".join(line.ours.run_ids),
    }  # fmt: skip


def _finding(found: Sequence[Line]) -> str:
    texts = [
        f"{printed.architecture(line.reported.model)}, {line.reported.epochs} epochs: "
        f"{percentage(line.ours.summary('density', scale=100))} % of the weights here, "
        f"{line.reported.density_percent:g} % there"
        for line in found
        if line.ours is not None
    ]
    return f"{len(texts)} of {len(found)} reported runs have runs of ours beside them. {'; '.join(texts)}."
