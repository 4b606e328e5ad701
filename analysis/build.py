"""Every exhibit that results tables can fill, written to one folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from analysis import claims, paper, paper_figures, threshold_shapes, verdict_tables
from analysis.exhibit import Maker, Results, Written, write_table
from analysis.manifest import write_manifest
from analysis.ours import ours
from analysis.read import InputError, Tables
from analysis.report import write_page
from analysis.settings import settings
from analysis.tables import left_out, suite_table
from benchmark.spec import nearest


def build(tables: Tables, out: Path, *, only: Sequence[str] = ()) -> list[Written]:
    """Write the exhibits, all or those named; of all of them also index.html and manifest.json.

    Raises InputError for a name that there is none of.
    """
    results = Results(tables, tuple(settings(tables.results)))
    makers = exhibits(results)
    unknown = [name for name in only if name not in makers]
    if unknown:
        raise InputError(f"--only {unknown[0]}: these results make no such exhibit: {nearest(unknown[0], makers)}")
    out.mkdir(parents=True, exist_ok=True)
    written = [make(out) for name, make in makers.items() if not only or name in only]
    if not only:
        verdicts = [v.verdict for v in verdict_tables.headlines(results)]
        page = write_page(results, written, out, verdicts=verdicts)
        write_manifest(tables, written, [page], out)
    return written


def exhibits(results: Results) -> dict[str, Maker]:
    """name -> what writes it: tables, then the figures."""
    return {
        **verdict_tables.makers(results),
        **threshold_shapes.makers(results),
        **_own_tables(results),
        **paper_figures.makers(results),
        **ours(results),
        **claims.makers(results),
    }


def _own_tables(results: Results) -> dict[str, Maker]:
    """One for each data set of which the paper has no table."""
    found: dict[str, Maker] = {}
    for dataset in sorted({s.dataset for s in results.settings} - set(paper.DATASETS)):
        found[dataset] = partial(_suite_table, results, dataset)
    return found


def _suite_table(results: Results, dataset: str, out: Path) -> Written:
    table = suite_table(dataset, results.settings)
    lost = left_out(s for s in results.settings if s.dataset == dataset)
    return write_table(table, out, remark="" if table.rows else " ".join(lost))
