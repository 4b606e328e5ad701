"""The paper's result tables in its layout: dense baseline, remaining percentage, sparse accuracy, difference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from analysis import paper
from analysis.epochs import ACCURACY, DENSITY, dense_epoch, headline, read_at
from analysis.paper import Target
from analysis.paper_matching import Match, as_stated, follows_protocol, of_table, printed_and_ours, wording
from analysis.settings import Setting, Summary, dense_twin, summarize
from analysis.stats import Comparison, against_fixed, paired
from analysis.verdicts import Verdict, table_verdicts

__all__ = ["Row", "Table", "follows_protocol", "measured_row", "paper_table", "suite_table"]

COLUMNS = (("dense",), ("remaining",), ("sparse",), ("difference",))
TOP5 = (("dense", "dense_top5"), ("remaining",), ("sparse", "sparse_top5"), ("difference", "difference_top5"))
PRINTED = "printed"


@dataclass(frozen=True)
class Row:
    """One line of a table: as printed (source "paper") or as measured (source "ours").

    values: (epoch, quantity) -> Summary; percentages, and millions of parameters; absent where not
    printed or not run; a printed row's epoch is "printed", and its `n` 0: the paper states none.
    against: (epoch, quantity) -> ours minus the paper's; of `remaining` the logarithm of ours / the
    paper's. shown: the epoch that Markdown and LaTeX have. setting: how the line is labelled.
    """

    model: str
    method: str
    source: str
    setting: str
    shown: str = PRINTED
    values: dict[tuple[str, str], Summary] = field(default_factory=dict)
    against: dict[tuple[str, str], Comparison] = field(default_factory=dict)
    run_ids: tuple[str, ...] = ()
    dense_run_ids: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    status: str = ""
    verdicts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """columns: the quantities of each column, several to be joined by a slash. judged: has a column of verdicts."""

    name: str
    caption: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...] = COLUMNS
    judged: bool = False


def paper_table(name: str, settings: Sequence[Setting], verdicts: Sequence[Verdict] | None = None) -> Table:
    """A table of the paper: each printed row, below it ours (epochs.measured), as stated and at the nearest alpha.

    verdicts: table_verdicts of the same settings, where they are known already.
    """
    chosen = as_stated(name, settings)
    judged = table_verdicts(name, settings) if verdicts is None else verdicts
    rows: list[Row] = []
    for group in _by_line(printed_and_ours(name, chosen)):
        targets = [target for target, _ in group]
        rows.append(printed_row(targets))
        lines = [list(line) for line in zip(*(matches for _, matches in group), strict=True)]
        if not lines:
            rows.append(_not_run(targets[0]))
        for line in lines:
            row = measured_row(line[0].setting, dense_twin(line[0].setting, chosen), line[0].label, targets)
            rows.append(_judged(row, targets, line, judged))
    title = f"{paper.CAPTIONS[name]}: as printed ({paper.PRINTED[name]}), and measured here"
    top5 = any(target.metric == "top5" for target in paper.targets(name))
    columns = (*TOP5, ("parameters",)) if top5 else COLUMNS
    own = of_table(name, settings)
    notes = (*rules(name), *left_out(own), *_unshown(own), *_remarks(paper.targets(name)))
    return Table(name, title, tuple(rows), notes, columns, judged=True)


def suite_table(dataset: str, settings: Sequence[Setting]) -> Table:
    """The same layout for a data set that the paper has no table of: every sparse setting, ours alone, last epoch."""
    own = [s for s in settings if s.dataset == dataset]
    rows = [measured_row(s, dense_twin(s, own), wording(s)) for s in own if s.method != "dense" and len(s.rows)]
    caption = f"Not in the paper: the data set {dataset}, in the layout of the paper's Table 2; last epoch"
    return Table(dataset, caption, tuple(rows), (SUMMARY, *left_out(own)))


def measured_row(setting: Setting, twin: Setting | None, label: str, targets: Sequence[Target] = ()) -> Row:
    """Ours at every epoch; against the printed numbers of these targets, a metric each."""
    values: dict[tuple[str, str], Summary] = {}
    against: dict[tuple[str, str], Comparison] = {}
    for epoch in read_at(setting):
        values[epoch, "remaining"] = setting.summary(DENSITY[epoch], scale=100)
        for target in targets:
            if target.density_percent:
                ratios = [math.log(v / target.density_percent) for v in _percent(setting, epoch) if v > 0]
                against[epoch, "remaining"] = against_fixed(ratios, 0.0)
        for metric in [target.metric for target in targets] or ["top1"]:
            printed = next((target for target in targets if target.metric == metric), None)
            _accuracies(values, against, setting, twin, epoch, metric, printed)
    _parameters(values, against, setting, targets)
    done = [] if twin is None else list(twin.done["run_id"])
    commits = {*setting.done["commit"], *([] if twin is None else twin.done["commit"])}
    n, expected = len(setting.done), len(setting.rows)
    status = "measured" if n == expected else f"n={n}/{expected}" if n else f"not run (n=0/{expected})"
    shown = headline(setting.model) if targets else "last"
    return Row(
        setting.model, setting.method, "ours", label, shown, values, against,
        tuple(setting.done["run_id"]), tuple(done), tuple(sorted(commits)), status,
    )  # fmt: skip


def printed_row(targets: Sequence[Target]) -> Row:
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
    return Row(first.model, first.method, "paper", label, values=found, status="printed")


def left_out(settings: Iterable[Setting]) -> list[str]:
    """A note for every setting with cells that are in no mean: diverged, failed, cancelled, departing or drifted."""
    notes = []
    for setting in settings:
        counts = {**setting.lost(), **setting.departures()}
        if counts:
            what = ", ".join(f"{count} {status}" for status, count in counts.items())
            name = " ".join(filter(None, [setting.model, setting.method, wording(setting)]))
            notes.append(f"Left out of every mean: {name}: {what}.")
    return notes


SUMMARY = (
    "Ours: mean ± sample standard deviation over n seeds, and the 95 % t interval of the mean; n=2/3 means that 2 of "
    "the 3 seeds in the suite are done. The difference is over the seeds that both have."
)


def rules(name: str) -> list[str]:
    """What a reader of a table of the paper has to know."""
    return [
        SUMMARY,
        "Headline: the epoch of best test accuracy, selected on the test set as the authors' code does; LSTM: the last "
        f"epoch. The last and the lowest-density epochs: {name}-verdicts.",
        "Ours minus paper: with the 95 % interval, the printed mean taken as fixed; of the remaining percentage the "
        "ratio (geometric mean). The paper's difference is then that of its printed accuracies.",
        "Paper: as printed; it says neither over how many runs nor what its ± is. Nearest remaining: the alpha run "
        "here whose last epoch's remaining percentage comes nearest to the printed one.",
        "Verdict: on the stated alpha, on the nearest where the paper states none; others stand beside it, in "
        "brackets. The rule: docs/verdicts.md.",
    ]


def _accuracies(
    values: dict[tuple[str, str], Summary],
    against: dict[tuple[str, str], Comparison],
    setting: Setting,
    twin: Setting | None,
    epoch: str,
    metric: str,
    target: Target | None,
) -> None:
    suffix = _suffix(metric)
    sparse = setting.by_seed(ACCURACY[metric, epoch])
    column = ACCURACY[metric, dense_epoch(setting.model, epoch)]
    dense = {} if twin is None else twin.by_seed(column)
    measured = {f"sparse{suffix}": (list(sparse.values()), len(setting.rows))}
    if twin is not None:
        expected = len({*setting.rows["seed"], *twin.rows["seed"]})
        measured[f"dense{suffix}"] = list(dense.values()), len(twin.rows)
        measured[f"difference{suffix}"] = paired(sparse, dense), expected
    for name, (found, expected) in measured.items():
        values[epoch, name] = summarize(found, expected=expected)
    if target is None or target.sparse is None or target.dense is None:
        return
    printed = {"sparse": target.sparse, "dense": target.dense, "difference": target.sparse - target.dense}
    for name, (found, _) in measured.items():
        against[epoch, name] = against_fixed(found, printed[name.removesuffix(suffix) if suffix else name])


def _parameters(
    values: dict[tuple[str, str], Summary],
    against: dict[tuple[str, str], Comparison],
    setting: Setting,
    targets: Sequence[Target],
) -> None:
    """Remaining parameters in millions: of the last epoch alone, as the results tables have them."""
    values["last", "parameters"] = setting.summary("parameters_remaining", scale=1e-6)
    printed = next((target.parameters_millions for target in targets if target.parameters_millions), None)
    if printed is not None:
        counts = [1e-6 * count for count in setting.by_seed("parameters_remaining").values()]
        against["last", "parameters"] = against_fixed(counts, printed)


def _by_line(cells: Sequence[tuple[Target, list[Match]]]) -> list[list[tuple[Target, list[Match]]]]:
    """Top-1 and top-5 of one method and percentage are one line of Table 3."""
    lines: dict[tuple[object, ...], list[tuple[Target, list[Match]]]] = {}
    for target, matches in cells:
        lines.setdefault((target.model, target.method, target.density_percent), []).append((target, matches))
    return list(lines.values())


def _judged(row: Row, targets: Sequence[Target], line: Sequence[Match], judged: Sequence[Verdict]) -> Row:
    found = []
    for target, match in zip(targets, line, strict=True):
        own = [v for v in judged if v.target == target and v.is_headline and v.match is not None]
        verdict = next((v for v in own if v.match and v.match.setting is match.setting), None)
        if verdict is not None:
            found.append(verdict.verdict if verdict.decides else f"[{verdict.verdict}]")
    return Row(**{**vars(row), "verdicts": tuple(found)})


def _not_run(target: Target) -> Row:
    verdict = "no verdict (quoted)" if target.origin == "quoted" else "not run"
    return Row(target.model, target.method, "ours", "", headline(target.model), status="not run", verdicts=(verdict,))


def _percent(setting: Setting, epoch: str) -> list[float]:
    return [100 * value for value in setting.by_seed(DENSITY[epoch]).values()]


def _suffix(metric: str) -> str:
    return "_top5" if metric == "top5" else ""


def _unshown(settings: Sequence[Setting]) -> list[str]:
    count = sum(1 for s in settings if len(s.rows) and not set(s.protocols) & {"paper", "official"})
    return [f"Not shown: {count} settings that follow neither protocol."] if count else []


def _remarks(printed: Sequence[Target]) -> list[str]:
    notes: dict[str, list[str]] = {}
    for target in printed:
        if target.note:
            name = f"{paper.ARCHITECTURES[target.model]}, {paper.METHODS[target.method]}"
            notes.setdefault(target.note, []).append(f"{name} at {target.density_percent:g} %")
    return [f"{'; '.join(dict.fromkeys(names))}: {note}." for note, names in notes.items()]
