"""The paper's result tables in its layout: dense baseline, remaining percentage, sparse accuracy, difference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from analysis import paper
from analysis.paper import Target
from analysis.settings import Setting, Summary, dense_twin, summarize

QUANTITIES = ("dense", "remaining", "sparse", "difference")
EPOCHS = ("headline", "last")
RATES = {"table2": 0.1}  # the initial learning rate that a table is about, where the paper's cells have several


@dataclass(frozen=True)
class Row:
    """One line of a table: as printed (source "paper") or as measured (source "ours").

    values: (epoch, quantity) -> Summary, percentages; absent where not printed or not run. An
    `n` of 0 is as printed: the paper states none. spans: how the line is labelled.
    """

    model: str
    method: str
    source: str
    setting: str
    values: dict[tuple[str, str], Summary] = field(default_factory=dict)
    run_ids: tuple[str, ...] = ()
    dense_run_ids: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    status: str = ""


@dataclass(frozen=True)
class Table:
    name: str
    caption: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def paper_table(name: str, settings: Sequence[Setting]) -> Table:
    """A table of the paper: each printed row, and below it ours at the stated setting and the nearest one."""
    printed = paper.targets(name)
    datasets = {target.dataset for target in printed}
    rate = RATES.get(name)
    own = [s for s in settings if s.dataset in datasets and s.model in {t.model for t in printed}]
    as_stated = [s for s in own if follows_protocol(s) and (rate is None or s.spec["optimizer"]["lr"] == rate)]
    rows: list[Row] = []
    used: list[Setting] = []
    for target in printed:
        rows.append(printed_row(target))
        chosen = matching(target, as_stated)
        for setting, label in chosen:
            twin = dense_twin(setting, as_stated)
            rows.append(measured_row(setting, twin, label))
            used += [setting] if twin is None else [setting, twin]
        if not chosen:
            rows.append(Row(target.model, target.method, "ours", "", status="not run"))
    title = f"{paper.CAPTIONS[name]}: as printed ({paper.PRINTED[name]}), and measured here"
    return Table(name, title, tuple(rows), (*_rules(), *left_out(own), *_unshown(own), *_remarks(printed)))


def suite_table(dataset: str, settings: Sequence[Setting]) -> Table:
    """The same layout for a data set that the paper has no table of: every sparse setting, ours alone."""
    own = [s for s in settings if s.dataset == dataset]
    rows = [measured_row(s, dense_twin(s, own), _wording(s)) for s in own if s.method != "dense" and len(s.rows)]
    caption = f"Not in the paper: the data set {dataset}, in the layout of the paper's Table 2"
    return Table(dataset, caption, tuple(rows), (*_rules(printed=False), *left_out(own)))


def matching(target: Target, settings: Sequence[Setting]) -> list[tuple[Setting, str]]:
    """Which of ours stand beside a printed row, and how they are labelled.

    In each protocol: the stated alpha or density, and, for methods with an alpha, the one whose
    remaining percentage comes nearest to the printed one, on a log scale.
    """
    same = [s for s in settings if (s.model, s.method) == (target.model, target.method) and len(s.rows)]
    chosen: dict[int, tuple[Setting, str]] = {}
    for protocol in ("paper", "official"):
        of = [s for s in same if s.protocols[0] == protocol]
        suffix = ", official protocol" if protocol == "official" else ""
        for s in of:
            stated = _close(s.alpha, target.alpha) or _close(s.density, (target.density_percent or 0) / 100)
            if stated:
                chosen[id(s)] = s, _wording(s) + suffix
        nearest = _nearest(target, [s for s in of if s.alpha is not None])
        if nearest is not None:
            chosen.setdefault(id(nearest), (nearest, f"{_wording(nearest)}, nearest remaining{suffix}"))
    return list(chosen.values())


def headline_epoch(model: str) -> str:
    """The epoch that a model's headline is read at, fixed in advance: best test accuracy; LSTM: last."""
    return "last" if model.startswith("lstm") else "best"


def measured_row(setting: Setting, twin: Setting | None, label: str) -> Row:
    last = {"accuracy": "test_accuracy", "density": "density"}
    best = {"accuracy": "best_test_accuracy", "density": "density_at_best_test_accuracy"}
    values: dict[tuple[str, str], Summary] = {}
    for epoch, columns in (("headline", best if headline_epoch(setting.model) == "best" else last), ("last", last)):
        values[epoch, "sparse"] = setting.summary(columns["accuracy"])
        values[epoch, "remaining"] = setting.summary(columns["density"], scale=100)
        if twin is not None:
            values[epoch, "dense"] = twin.summary(columns["accuracy"])
            values[epoch, "difference"] = paired_difference(setting, twin, columns["accuracy"])
    done = [] if twin is None else list(twin.done["run_id"])
    commits = {*setting.done["commit"], *([] if twin is None else twin.done["commit"])}
    n, expected = len(setting.done), len(setting.rows)
    status = "measured" if n == expected else f"n={n}/{expected}" if n else f"not run (n=0/{expected})"
    return Row(
        setting.model, setting.method, "ours", label, values,
        tuple(setting.done["run_id"]), tuple(done), tuple(sorted(commits)), status,
    )  # fmt: skip


def paired_difference(setting: Setting, twin: Setting, column: str) -> Summary:
    """Sparse minus dense over the seeds that are done in both."""
    sparse, dense = (s.done.set_index("seed")[column] for s in (setting, twin))
    both = sparse.index.intersection(dense.index)
    return summarize(list(sparse[both] - dense[both]), expected=len({*setting.rows["seed"], *twin.rows["seed"]}))


def printed_row(target: Target) -> Row:
    values = {
        "dense": (target.dense, target.dense_std),
        "remaining": (target.density_percent, target.density_std),
        "sparse": (target.sparse, target.sparse_std),
        "difference": (target.printed_difference, None),
    }
    found = {
        ("headline", name): Summary(mean, math.nan if sd is None else sd, 0, 0)
        for name, (mean, sd) in values.items()
        if mean is not None
    }
    stated = "" if target.alpha is None else f"alpha {target.alpha:g}"
    label = ", ".join([*([stated] if stated else []), *(["quoted"] if target.origin == "quoted" else [])])
    return Row(target.model, target.method, "paper", label, found, status="printed")


def left_out(settings: Iterable[Setting]) -> list[str]:
    """A note for every setting with cells that are in no mean: diverged, failed, cancelled or departing."""
    notes = []
    for setting in settings:
        departing = {"departing from the suite": setting.departing - setting.drifted}
        departing["gone on with in another environment or suite (drift)"] = setting.drifted
        counts = {status: count for status, count in {**setting.lost(), **departing}.items() if count}
        if counts:
            what = ", ".join(f"{count} {status}" for status, count in counts.items())
            name = " ".join(filter(None, [setting.model, setting.method, _wording(setting)]))
            notes.append(f"Left out of every mean: {name}: {what}.")
    return notes


def follows_protocol(setting: Setting) -> bool:
    """Whether a setting follows one of the protocols on the whole data, with DST as the paper runs it."""
    limited = any(setting.spec["data"].get(key) is not None for key in ("train_limit", "test_limit", "validation"))
    method = setting.spec["method"]
    variant = method.get("threshold", "vector") != "vector" or method.get("estimator", "long_tailed") != "long_tailed"
    return not limited and not variant and bool(set(setting.protocols) & {"paper", "official"})


def _nearest(target: Target, settings: Sequence[Setting]) -> Setting | None:
    wanted = target.density_percent
    found = [(100 * setting.done["density"].mean(), setting) for setting in settings if len(setting.done)]
    away = [(abs(math.log(has / wanted)), setting) for has, setting in found if wanted and has > 0]
    return min(away, key=lambda pair: pair[0])[1] if away else None


def _close(ours: float | None, stated: float | None) -> bool:
    return ours is not None and stated is not None and math.isclose(ours, stated, rel_tol=1e-6)


def _wording(setting: Setting) -> str:
    if setting.alpha is not None:
        return f"alpha {setting.alpha:g}"
    return "" if setting.density is None else f"density {setting.density:g}"


def _rules(*, printed: bool = True) -> list[str]:
    rules = [
        "Ours: mean ± sample standard deviation over n seeds; n=2/3 means that 2 of the 3 seeds in the suite are done. "
        "The difference is the mean over the seeds that both have.",
        "Headline: the epoch of best test accuracy, selected on the test set as the authors' code does; "
        "LSTM: the last epoch.",
    ]
    unsaid = "Paper: as printed; it says neither over how many runs nor what its ± is. Nearest remaining: "
    nearest = "the alpha run here whose last epoch's remaining percentage comes nearest to the printed one."
    return [*rules, unsaid + nearest] if printed else rules


def _unshown(settings: Sequence[Setting]) -> list[str]:
    count = sum(1 for s in settings if len(s.rows) and not set(s.protocols) & {"paper", "official"})
    return [f"Not shown: {count} settings that follow neither protocol."] if count else []


def _remarks(printed: Sequence[Target]) -> list[str]:
    notes: dict[str, list[str]] = {}
    for target in printed:
        if target.note:
            name = f"{paper.ARCHITECTURES[target.model]}, {paper.METHODS[target.method]}"
            notes.setdefault(target.note, []).append(f"{name} at {target.density_percent:g} %")
    return [f"{'; '.join(names)}: {note}." for note, names in notes.items()]
