"""Every exhibit that results tables can fill, written to one folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from analysis.data.conditions import Results
from analysis.data.read import InputError, Tables
from analysis.exhibits import (
    accuracy_density_and_flops,
    alpha_interpolation,
    compact_networks,
    estimators,
    field,
    figure1_2,
    figure3,
    figure4_to_6,
    figure7,
    gap,
    gap_networks,
    lstm_counting,
    narrow_vgg16,
    other_reproductions,
    paired_methods,
    pattern_consistency,
    reset_rules,
    rivals,
    table1_to_3,
    table_a2,
    threshold_resets,
    training_cost,
    validation,
    verdict_power,
    verdict_tables,
)
from analysis.exhibits.claims import table as claims
from analysis.exhibits.verdicts import deciding, verdict_rows
from analysis.output.exhibit import Maker, Written
from analysis.output.manifest import write_manifest
from analysis.output.page import write_page
from analysis.paper import printed
from benchmark.spec import nearest

OF_DATA_SET = ("", "-figure3", "-figure4", "-figure7", "-accuracy-density", "-accuracy-flops")
FILES = ("index", "manifest", "results", "traces", "layers")  # of the page, and of tables that --out may hold
MAKERS = (
    table1_to_3.makers,
    verdict_tables.makers,
    other_reproductions.makers,
    rivals.makers,
    table_a2.makers,
    figure1_2.makers,
    figure3.makers,
    figure4_to_6.makers,
    figure7.makers,
    threshold_resets.makers,
    reset_rules.EXHIBIT.makers,
    pattern_consistency.EXHIBIT.makers,
    accuracy_density_and_flops.makers,
    field.EXHIBIT.makers,
    paired_methods.EXHIBIT.makers,
    compact_networks.EXHIBIT.makers,
    alpha_interpolation.EXHIBIT.makers,
    estimators.EXHIBIT.makers,
    gap.EXHIBIT.makers,
    gap_networks.EXHIBIT.makers,
    validation.makers,
    lstm_counting.EXHIBIT.makers,
    training_cost.EXHIBIT.makers,
    verdict_power.makers,
    claims.makers,
    narrow_vgg16.makers,
)


def build(tables: Tables, out: Path, *, only: Sequence[str] = ()) -> list[Written]:
    """Write the exhibits, all or those named; of all of them also index.html and manifest.json.

    Raises InputError for an unknown name, for a data set whose files would replace others, and for
    a folder that holds links.
    """
    _check_data_sets(tables)
    results = Results(tables)
    makers = exhibits(results)
    unknown = [name for name in only if name not in makers]
    if unknown:
        raise InputError(f"--only {unknown[0]}: these results make no such exhibit: {nearest(unknown[0], makers)}")
    out.mkdir(parents=True, exist_ok=True)
    _check_no_links(out)
    written = [make(out) for name, make in makers.items() if not only or name in only]
    if not only:
        page = write_page(results, written, out, verdicts=verdicts_beside_runs(results))
        write_manifest(tables, written, [page], out)
    return written


def verdicts_beside_runs(results: Results) -> list[tuple[str, tuple[str, ...]]]:
    """Every verdict that counts, and the runs beside whose accuracy it stands: top-1 is what tables of runs show."""
    return [
        (v.verdict, v.match.condition.run_ids if v.match and v.target.metric == "top1" else ())
        for v in deciding(verdict_rows(results))
    ]


def _check_no_links(out: Path) -> None:
    """Raises InputError where the folder holds a link, maybe a stranger's: it can lead anywhere."""
    for entry in sorted(out.iterdir()):
        if entry.is_symlink():
            raise InputError(f"{entry} is a link, and exhibits are not written through links: remove it")


def exhibits(results: Results) -> dict[str, Maker]:
    """name -> what writes it: the paper's tables and figures by number, then the others."""
    found = {name: maker for makers in MAKERS for name, maker in makers(results).items()}
    return dict(sorted(found.items(), key=lambda item: _place(item[0])))


def _check_data_sets(tables: Tables) -> None:
    """Raises InputError where an exhibit of a data set has the name of another exhibit or file.

    Names that differ only in their capitals are the same, as they are on some file systems.
    """
    nothing = Results(Tables(*(table.iloc[:0] for table in (tables.results, tables.traces, tables.layers))))
    owners: dict[str, tuple[str, ...]] = {n.casefold(): printed.DATASETS for n in (*FILES, *exhibits(nothing))}
    rows = tables.results.drop_duplicates(["dataset", "model"]).sort_values(["dataset", "model"])
    for dataset, model, file, line in rows[["dataset", "model", "file", "line"]].itertuples(index=False):
        named = {f"{dataset}{end}": dataset for end in OF_DATA_SET if end or dataset not in printed.DATASETS}
        for name, owner in (named | {f"{dataset}-{model}-resets": f"{dataset} {model}"}).items():
            if owner not in owners.setdefault(name.casefold(), (owner,)):
                raise InputError(
                    f"{file}, row {line}: dataset {dataset!r}: its exhibit '{name}' would replace another file of "
                    "that name: give the data set another name"
                )


def _place(name: str) -> tuple[int, int, bool]:
    """Sorts what has a number in the paper by it, and leaves the others in their order.

    What stands beside a table or figure, such as its verdicts, follows it.
    """
    numbered = re.match(r"(table|figure)(\d+)", name)
    return (("table", "figure").index(numbered[1]), int(numbered[2]), "-" in name) if numbered else (2, 0, False)
