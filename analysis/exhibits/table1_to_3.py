"""Tables 1 to 3 in the paper's layout, printed rows beside ours; the same for other data sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from analysis.data.conditions import PROTOCOLS, Condition, Results, Summary, dense_twin, settings, summarize
from analysis.data.epochs import ACCURACY, COUNTED, DENSITY, EPOCHS, NAMES, dense_epoch, measured, read_at
from analysis.data.matching import Match, printed_and_ours
from analysis.data.paired import log_ratios
from analysis.data.selection import as_stated, left_out, of_table, without_results
from analysis.exhibits.verdicts import TABLES, Verdict, finding, table_verdicts
from analysis.output.exhibit import Makers, Written, write_table
from analysis.output.numbers import (
    CUT,
    WIDE,
    limits,
    percentage_and_interval,
    percentage_interval,
    printed_number,
    t_interval,
)
from analysis.output.table import Row, Table
from analysis.paper import printed
from analysis.paper.printed import Target
from analysis.statistics.small_samples import Comparison, against_fixed, paired

QUANTITIES = (("dense",), ("remaining",), ("sparse",), ("difference",))
TOP5 = (("dense", "dense_top5"), ("remaining",), ("sparse", "sparse_top5"), ("difference", "difference_top5"))
HEADS = {
    "dense": "Dense Baseline (%)",
    "remaining": "Model Remaining Percentage (%)",
    "sparse": "Sparse Accuracy (%)",
    "difference": "Difference",
    "parameters": "Remaining number of parameters (M)",
}
HEADS_TOP5 = {"dense": "Dense Baseline Top-1 / Top-5 (%)", "sparse": "Sparse Accuracy Top-1 / Top-5 (%)"}
PRINTED = "printed"
SUMMARY = (
    "Ours: mean ± sample standard deviation over n seeds, and the 95 % t interval of the mean; n=2/3 means that 2 of "
    f"the 3 seeds in these tables are done. The difference is over the seeds that both have. {WIDE}"
)


@dataclass(frozen=True)
class Line:
    """One line of a table: as printed (source "paper") or as measured (source "ours").

    values: (epoch, quantity) -> Summary; percentages, and millions of parameters; absent where not
    printed or not run; a printed line's epoch is "printed", and its `n` 0: the paper states none.
    against: (epoch, quantity) -> ours minus the paper's; of `remaining` the logarithm of ours / the
    paper's. label: which alpha or density. basis, verdicts: by epoch; see `Match`. lost, dense_lost:
    what stands in place of numbers that no seed has, `not run` or `5 diverged`.
    """

    model: str
    method: str
    source: str
    label: str
    protocol: str = ""
    basis: dict[str, str] = field(default_factory=dict)
    values: dict[tuple[str, str], Summary] = field(default_factory=dict)
    against: dict[tuple[str, str], Comparison] = field(default_factory=dict)
    run_ids: tuple[str, ...] = ()
    dense_run_ids: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    status: str = ""
    lost: str = ""
    dense_lost: str = ""
    verdicts: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ResultTable:
    """A table in the paper's layout.

    quantities: those of each column, several to be joined by a slash. judged: has a column of
    verdicts.
    """

    name: str
    caption: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    quantities: tuple[tuple[str, ...], ...] = QUANTITIES
    judged: bool = False


def makers(results: Results) -> Makers:
    """Tables 1 to 3; and one for each data set that the paper has no table of."""
    others = sorted({c.dataset for c in results.conditions} - set(printed.DATASETS))
    return {
        **{name: partial(_write_paper_table, results, name) for name in TABLES},
        **{dataset: partial(_write_dataset_table, results, dataset) for dataset in others},
    }


def paper_table(name: str, conditions: Sequence[Condition], verdicts: Sequence[Verdict] | None = None) -> ResultTable:
    """A table of the paper: below each printed row ours, every alpha that was run.

    conditions: epochs.measured. verdicts: table_verdicts of the same conditions, where they are
    known already.
    """
    chosen = as_stated(name, conditions)
    judged = table_verdicts(name, conditions) if verdicts is None else verdicts
    lines: list[Line] = []
    for group in _by_line(printed_and_ours(name, chosen)):
        targets = [target for target, _ in group]
        lines.append(printed_line(targets))
        ours = _by_condition(group)
        if not ours:
            lines.append(_not_run(targets[0]))
        for matches in ours:
            first = matches[0]
            line = measured_line(first.condition, dense_twin(first.condition, chosen), first.label, targets)
            lines.append(_judged(line, targets, matches, judged))
    title = f"{printed.CAPTIONS[name]}: as printed ({printed.PLACES[name]}), and measured here"
    top5 = any(target.metric == "top5" for target in printed.targets(name))
    own = of_table(name, conditions)
    notes = (*rules(name), *left_out(own), *_unshown(own), *_remarks(printed.targets(name)))
    return ResultTable(name, title, tuple(lines), notes, (*TOP5, ("parameters",)) if top5 else QUANTITIES, judged=True)


def dataset_table(dataset: str, conditions: Sequence[Condition]) -> ResultTable:
    """The same layout for a data set that the paper has no table of; last epoch."""
    own = [c for c in conditions if c.dataset == dataset]
    sparse, names = [c for c in own if c.method != "dense" and len(c.rows)], settings(own)
    lines = [measured_line(c, dense_twin(c, own), names[c.key]) for c in sparse]
    caption = f"Not in the paper: the data set {dataset}, in the layout of the paper's Table 2; last epoch"
    return ResultTable(dataset, caption, tuple(lines), (SUMMARY, *left_out(own)))


def measured_line(condition: Condition, twin: Condition | None, label: str, targets: Sequence[Target] = ()) -> Line:
    """Ours at every epoch, against the printed numbers of these targets, one for each metric."""
    values: dict[tuple[str, str], Summary] = {}
    against: dict[tuple[str, str], Comparison] = {}
    for epoch in read_at(condition):
        values[epoch, "remaining"] = condition.summary(DENSITY[epoch], scale=100)
        for target in targets:
            if target.density_percent:
                ratios = log_ratios(condition.by_seed(DENSITY[epoch]).values(), target.density_percent)
                against[epoch, "remaining"] = against_fixed(ratios, 0.0)
        for metric in [target.metric for target in targets] or ["top1"]:
            stated = next((target for target in targets if target.metric == metric), None)
            _accuracies(values, against, condition, twin, epoch, metric, stated)
    _parameters(values, against, condition, targets)
    commits = {*condition.done["commit"], *([] if twin is None else twin.done["commit"])}
    n, seeds = len(condition.done), condition.seeds
    lost = without_results([condition])
    status = "measured" if n == len(condition.rows) else seeds if n else f"{lost} ({seeds})"
    return Line(
        condition.model, condition.method, "ours", label, values=values, against=against, run_ids=condition.run_ids,
        dense_run_ids=() if twin is None else twin.run_ids, commits=tuple(sorted(commits)), status=status,
        lost=lost, dense_lost="" if twin is None else without_results([twin]),
    )  # fmt: skip


def printed_line(targets: Sequence[Target]) -> Line:
    """What the paper printed on one line: of one metric, or of top-1 and top-5."""
    found: dict[tuple[str, str], Summary] = {}
    for target in targets:
        suffix = _suffix(target.metric)
        values = {
            f"dense{suffix}": (target.dense, target.dense_std),
            "remaining": (target.density_percent, target.density_std),
            f"sparse{suffix}": (target.sparse, target.sparse_std),
            f"difference{suffix}": (target.printed_difference, None),
            "parameters": (target.parameters_millions, None),
        }
        for name, (mean, sd) in values.items():
            if mean is not None:
                found[PRINTED, name] = Summary(mean, math.nan if sd is None else sd, 0, 0)
    first = targets[0]
    stated = "" if first.alpha is None else f"alpha {first.alpha:g}"
    label = ", ".join([*([stated] if stated else []), *(["quoted"] if first.origin == "quoted" else [])])
    return Line(first.model, first.method, "paper", label, values=found, status="printed")


def rules(name: str) -> list[str]:
    """What a reader of a table of the paper has to know."""
    return [
        SUMMARY,
        "Reading: which epoch. Last: summaries count at it, because the run's results do not choose it. Best accuracy: "
        "selected on the test set, as the authors' code does. Lowest density: the sparsest epoch of the run. The dense "
        "twin of the lowest density is read at the last epoch. The paper does not say which epoch it prints.",
        "Paper: as printed. It says neither how many runs there were nor what its ± is. Nearest: the alpha run here "
        f"whose remaining percentage at this reading is nearest to the printed one. {name}-verdicts has every alpha "
        "that was run at every reading, and ours against the paper's with intervals.",
        "Verdict: at the stated alpha, or at the nearest where the paper states none. Other verdicts are in brackets. "
        "The rule: docs/verdicts.md.",
    ]


def as_table(table: ResultTable) -> Table:
    """What a reader sees: the paper's row; ours at the stated alpha and at each reading's nearest."""
    several = len({line.method for line in table.lines}) > 1
    rows, before = list[Row](), ("", "")
    for line, epoch in _shown(table):
        model = printed.architecture(line.model) if line.model != before[0] else ""
        method = printed.method_name(line.method) if (line.model, line.method) != before else ""
        before = (line.model, line.method)
        nearest = "nearest" if line.basis.get(epoch) == "nearest" else ""
        source = ", ".join(filter(None, [line.source, line.label, nearest]))
        reading = [NAMES.get(epoch, "") if line.values else ""] if table.judged else []
        numbers = [_joined([cell(line, epoch, name) for name in names]) for names in table.quantities]
        verdict = [" / ".join(line.verdicts.get(epoch, ()))] if table.judged else []
        cells = (model, *([method] if several else []), source, *reading, *numbers, *verdict)
        rows.append(Row(cells, line.run_ids, line.dense_run_ids, starts=line.source == "paper" or bool(model)))
    heads = [(HEADS_TOP5 if len(names) > 1 else {}).get(names[0], HEADS[names[0]]) for names in table.quantities]
    labels = ["Architecture", *(["Method"] if several else []), "Source", *(["Reading"] if table.judged else [])]
    heads = [*labels, *heads, *(["Verdict"] if table.judged else [])]
    cut = [CUT] if any("cut]" in text for row in rows for text in row.cells) else []
    return Table(table.name, table.caption, tuple(heads), tuple(rows), (*table.notes, *cut), len(labels))


def _shown(table: ResultTable) -> list[tuple[Line, str]]:
    """(line, epoch) of each row: as printed, then ours at the stated alpha, then at the nearest ones."""
    if not table.judged:
        return [(line, COUNTED) for line in table.lines]
    groups: list[list[Line]] = []
    for line in table.lines:
        groups += [[]] if line.source == "paper" else []
        groups[-1].append(line)
    found = []
    for as_printed, *ours in groups:
        found.append((as_printed, PRINTED))
        for protocol in ("", *PROTOCOLS):
            own = [line for line in ours if line.protocol == protocol]
            found += [(line, COUNTED) for line in own if not line.values]
            found += [(line, epoch) for line in own for epoch in EPOCHS if line.basis.get(epoch) == "stated"]
            found += [(line, epoch) for epoch in EPOCHS for line in own if line.basis.get(epoch) == "nearest"]
    return found


def records(table: ResultTable) -> list[dict[str, Any]]:
    """Every number in full, one record per printed line and per alpha, the readings side by side.

    `verdict` is that at the last epoch.
    """
    names = [name for column in table.quantities for name in column]
    found = []
    for line in table.lines:
        known: dict[str, Any] = {
            "architecture": line.model, "method": line.method, "source": line.source, "setting": line.label,
            "status": line.status, "verdict": "; ".join(line.verdicts.get(COUNTED, ())),
        }  # fmt: skip
        if table.judged:
            known |= {f"{epoch}_verdict": "; ".join(line.verdicts.get(epoch, ())) for epoch in EPOCHS}
            known |= {f"{epoch}_basis": line.basis.get(epoch, "") for epoch in EPOCHS}
        numbers = {
            f"{epoch}_{name}_{part}": value
            for epoch in (PRINTED, *EPOCHS)
            for name in names
            for part, value in _numbers(line, epoch, name).items()
        }
        traced = {name: ";".join(getattr(line, name)) for name in ("run_ids", "dense_run_ids", "commits")}
        found.append(known | numbers | traced)
    return found


def cell(line: Line, epoch: str, name: str) -> str:
    """A number as a reader sees it: `97.90 ± 0.07 (n=5) [97.83, 97.97]`, `not run`, or empty."""
    if name == "parameters" and line.source == "ours":
        epoch = "last"
    value = line.values.get((epoch, name))
    signed = name.startswith("difference")
    if line.source == "paper":
        return "" if value is None else printed_number(value.mean, value.sd, signed=signed, exact=name == "remaining")
    if value is None:
        return "" if line.values and not name.startswith("dense") else "not run"
    if value.n == 0:
        lost = line.dense_lost if name.startswith("dense") else line.lost
        return "" if signed else f"{lost} (n=0/{value.expected})"
    if not signed:
        return percentage_and_interval(value)
    number = printed_number(value.mean, value.sd, signed=True)
    return f"{number} ({value.seeds}){limits(*t_interval(value), signed=True)}"


def _write_paper_table(results: Results, name: str, out: Path) -> Written:
    chosen = measured(name, results)
    judged = table_verdicts(name, chosen)
    table = paper_table(name, chosen, judged)
    return write_table(as_table(table), records(table), out, finding=finding(printed.number(name), judged))


def _write_dataset_table(results: Results, dataset: str, out: Path) -> Written:
    table = dataset_table(dataset, results.conditions)
    lost = left_out(c for c in results.conditions if c.dataset == dataset)
    return write_table(as_table(table), records(table), out, remark="" if table.lines else " ".join(lost))


def _joined(texts: list[str]) -> str:
    same = len(set(texts)) == 1 and (texts[0] == "not run" or "(n=0/" in texts[0])
    return texts[0] if same else " / ".join(text for text in texts if text)


def _numbers(line: Line, epoch: str, name: str) -> dict[str, float | int | None]:
    value = line.values.get((epoch, name))
    mean, sd = (None, None) if value is None else (value.mean, value.sd)
    if epoch == PRINTED:
        return {"mean": mean, "sd": sd}
    n, expected = (None, None) if value is None else (value.n, value.expected)
    interval = t_interval if name.startswith("difference") else percentage_interval
    low, high = (None, None) if value is None else interval(value)
    comparison = line.against.get((epoch, name), Comparison(math.nan, math.nan, math.nan))
    below, above = comparison.interval()
    against = {"against_paper": comparison.difference, "against_paper_low": below, "against_paper_high": above}
    return {"mean": mean, "sd": sd, "n": n, "expected": expected, "low": low, "high": high, **against}


def _accuracies(
    values: dict[tuple[str, str], Summary],
    against: dict[tuple[str, str], Comparison],
    condition: Condition,
    twin: Condition | None,
    epoch: str,
    metric: str,
    target: Target | None,
) -> None:
    suffix = _suffix(metric)
    sparse = condition.by_seed(ACCURACY[metric, epoch])
    column = ACCURACY[metric, dense_epoch(epoch)]
    dense = {} if twin is None else twin.by_seed(column)
    ours = {f"sparse{suffix}": (list(sparse.values()), len(condition.rows))}
    if twin is not None:
        expected = len({*condition.rows["seed"]} & {*twin.rows["seed"]})
        ours[f"dense{suffix}"] = list(dense.values()), len(twin.rows)
        ours[f"difference{suffix}"] = paired(sparse, dense), expected
    for name, (found, expected) in ours.items():
        values[epoch, name] = summarize(found, expected=expected)
    if target is None or target.sparse is None or target.dense is None:
        return
    stated = {"sparse": target.sparse, "dense": target.dense, "difference": target.sparse - target.dense}
    for name, (found, _) in ours.items():
        against[epoch, name] = against_fixed(found, stated[name.removesuffix(suffix) if suffix else name])


def _parameters(
    values: dict[tuple[str, str], Summary],
    against: dict[tuple[str, str], Comparison],
    condition: Condition,
    targets: Sequence[Target],
) -> None:
    """Remaining parameters in millions; results tables have them only of the last epoch."""
    values["last", "parameters"] = condition.summary("parameters_remaining", scale=1e-6)
    stated = next((target.parameters_millions for target in targets if target.parameters_millions), None)
    if stated is not None:
        counts = [1e-6 * count for count in condition.by_seed("parameters_remaining").values()]
        against["last", "parameters"] = against_fixed(counts, stated)


def _by_line(cells: Sequence[tuple[Target, list[Match]]]) -> list[list[tuple[Target, list[Match]]]]:
    """Top-1 and top-5 of one method and percentage are one line of Table 3."""
    lines: dict[tuple[object, ...], list[tuple[Target, list[Match]]]] = {}
    for target, matches in cells:
        lines.setdefault((target.model, target.method, target.density_percent), []).append((target, matches))
    return list(lines.values())


def _by_condition(group: Sequence[tuple[Target, list[Match]]]) -> list[list[Match]]:
    """The matches of each condition, in the order in which the conditions come first."""
    found: dict[int, list[Match]] = {}
    for _, matches in group:
        for match in matches:
            found.setdefault(id(match.condition), []).append(match)
    return list(found.values())


def _judged(line: Line, targets: Sequence[Target], matches: Sequence[Match], judged: Sequence[Verdict]) -> Line:
    """The line with the verdicts on its condition, in brackets where they do not decide."""
    verdicts: dict[str, tuple[str, ...]] = {}
    for target in targets:
        for v in judged:
            if v.target == target and v.match is not None and v.match.condition is matches[0].condition:
                text = v.verdict if v.decides else f"[{v.verdict}]"
                verdicts[v.epoch] = (*verdicts.get(v.epoch, ()), text)
    basis = {match.epoch: match.basis for match in matches}
    return replace(line, protocol=matches[0].protocol, basis=basis, verdicts=verdicts)


def _not_run(target: Target) -> Line:
    verdict = "no verdict (quoted)" if target.origin == "quoted" else "not run"
    return Line(target.model, target.method, "ours", "", status="not run", verdicts={COUNTED: (verdict,)})


def _suffix(metric: str) -> str:
    return "_top5" if metric == "top5" else ""


def _unshown(conditions: Sequence[Condition]) -> list[str]:
    count = sum(1 for c in conditions if len(c.rows) and not set(c.protocols) & set(PROTOCOLS))
    return [f"Not shown: {count} conditions that follow neither protocol."] if count else []


def _remarks(targets: Sequence[Target]) -> list[str]:
    notes: dict[str, list[str]] = {}
    for target in targets:
        if target.note:
            name = f"{printed.architecture(target.model)}, {printed.method_name(target.method)}"
            notes.setdefault(target.note, []).append(f"{name} at {target.density_percent:g} %")
    return [f"{'; '.join(dict.fromkeys(names))}: {note}." for note, names in notes.items()]
