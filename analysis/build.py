"""Every exhibit that results tables can fill, written to one folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import figures, paper
from analysis.exhibit import Maker, Results, Written, write_figure, write_table
from analysis.histories import history, pattern, wide
from analysis.ours import ours
from analysis.read import InputError, Tables
from analysis.settings import Setting, dense_twin, settings
from analysis.tables import follows_protocol, paper_table, suite_table

PAPER_EXHIBITS = ("table1", "table2", "figure4", "figure5", "figure7")
PATTERN_ALPHAS = (1e-6, 5e-6, 1e-5)  # ours: the paper does not print figure 7's
NOT_PAPER = "not the paper's"


def build(tables: Tables, out: Path, *, only: Sequence[str] = ()) -> list[Written]:
    """Write the exhibits, all or those named. Raises InputError for a name that there is none of."""
    results = Results(tables, tuple(settings(tables.results)))
    makers = exhibits(results)
    unknown = [name for name in only if name not in makers]
    if unknown:
        raise InputError(f"--only {unknown[0]}: unknown exhibit; valid: {', '.join(makers)}")
    out.mkdir(parents=True, exist_ok=True)
    return [make(out) for name, make in makers.items() if not only or name in only]


def exhibits(results: Results) -> dict[str, Maker]:
    """name -> what writes it: the paper's, then one set a data set of which the paper has no table."""
    found: dict[str, Maker] = {
        "table1": lambda out: write_table(paper_table("table1", results.settings), out),
        "table2": lambda out: write_table(paper_table("table2", results.settings), out),
        "figure4": lambda out: _figure4(results, out),
        "figure5": lambda out: _figure5(results, out),
        "figure7": lambda out: _figure7(results, out),
    }
    found |= ours(results)
    for dataset in sorted({s.dataset for s in results.settings} - set(paper.DATASETS)):
        found[dataset] = lambda out, dataset=dataset: write_table(suite_table(dataset, results.settings), out)  # type: ignore[misc]
        found[f"{dataset}-figure4"] = lambda out, dataset=dataset: _own_figure4(results, dataset, out)  # type: ignore[misc]
        found[f"{dataset}-figure7"] = lambda out, dataset=dataset: _own_figure7(results, dataset, out)  # type: ignore[misc]
    return found


def _figure4(results: Results, out: Path) -> Written:
    chosen = _paper_settings(results, "mnist", "lenet-300-100", alpha=5e-4)
    return _curves(results, "figure4", chosen, figures.by_step_and_epoch, paper.CAPTIONS["figure4"], out)


def _figure5(results: Results, out: Path) -> Written:
    chosen = _paper_settings(results, "cifar10", "vgg16", alpha=5e-6, lr=0.1)
    return _curves(results, "figure5", chosen, figures.by_epoch, paper.CAPTIONS["figure5"], out)


def _figure7(results: Results, out: Path) -> Written:
    every = _paper_settings(results, "cifar10", "vgg16", lr=0.1)
    chosen = [s for s in every if s.alpha in PATTERN_ALPHAS] or every
    remark = "the alphas are ours, the paper's text does not name them; bars: mean, dots: seeds"
    return _pattern(results, "figure7", chosen, f"{paper.CAPTIONS['figure7']}\n{remark}", out)


def _own_figure4(results: Results, dataset: str, out: Path) -> Written:
    every = sorted(_emergent(results, dataset), key=lambda s: s.model != "lenet-300-100")
    name = f"{every[0].model}, DST, alpha = {every[0].alpha:g}" if every else ""
    title = f"{dataset} ({NOT_PAPER} data), layout of Figure 4: {name}"
    return _curves(results, f"{dataset}-figure4", every, figures.by_step_and_epoch, title, out)


def _own_figure7(results: Results, dataset: str, out: Path) -> Written:
    title = f"{dataset} ({NOT_PAPER} data), layout of Figure 7: sparse pattern of DST; bars: mean, dots: seeds"
    return _pattern(results, f"{dataset}-figure7", _emergent(results, dataset), title, out)


def _emergent(results: Results, dataset: str) -> list[Setting]:
    return [s for s in results.settings if s.dataset == dataset and s.method == "dst" and len(s.done)]


def _paper_settings(
    results: Results, dataset: str, model: str, *, alpha: float | None = None, lr: float | None = None
) -> list[Setting]:
    """DST's settings with runs; those of the paper's protocol first."""
    found = [
        s
        for s in results.settings
        if (s.dataset, s.model, s.method) == (dataset, model, "dst")
        and follows_protocol(s)
        and len(s.done)
        and (alpha is None or s.alpha == alpha)
        and (lr is None or s.spec["optimizer"]["lr"] == lr)
    ]
    return [s for s in found if "paper" in s.protocols] or found


def _curves(
    results: Results,
    name: str,
    chosen: Sequence[Setting],
    draw: Callable[[pd.DataFrame, str], Any],
    title: str,
    out: Path,
) -> Written:
    if not chosen:
        return Written(name=name, title=title, remark="not run")
    sparse, dense = chosen[0], dense_twin(chosen[0], results.settings)
    data = history(results.tables, sparse, dense)
    if not (data["name"] == "density").any():
        return Written(name=name, title=title, remark="no traces.csv beside the results of its runs")
    drawn = draw(data, f"{title}\n{_seeds(sparse)}")
    return write_figure(name, wide(data), drawn, out, title=title, run_ids=list(data["run_id"]))


def _pattern(results: Results, name: str, chosen: Sequence[Setting], title: str, out: Path) -> Written:
    if not chosen:
        return Written(name=name, title=title, remark="not run")
    data = pattern(results.tables, chosen)
    if data.empty:
        return Written(name=name, title=title, remark="no layers.csv beside the results of its runs")
    drawn = figures.sparse_pattern(data, title)
    return write_figure(name, data, drawn, out, title=title.partition("\n")[0], run_ids=list(data["run_id"]))


def _seeds(setting: Setting) -> str:
    n, expected = len(setting.done), len(setting.rows)
    count = f"n={n}" if n == expected else f"n={n}/{expected}"
    return f"{count}; thin lines: seeds, bold lines: their mean"
