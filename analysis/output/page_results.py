"""The page's table of all results: one row per condition, and one per number that the paper prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from analysis.data.conditions import Condition, Results, settings
from analysis.output.numbers import CUT, centre_and_ends, percentage, percentage_limits, printed_number
from analysis.output.table import Row, Table
from analysis.paper import printed

HEADS = (
    "Network", "Method", "Setting", "Epochs", "Source", "Seeds", "Weights kept (%)", "Test accuracy (%)",
    "95 % interval", "Verdict",
)  # fmt: skip
OPTIONAL = ("Source", "Verdict")  # columns that are left out where all rows have the same text
NOTES = (
    "Ours: mean ± standard deviation over the seeds that are done, last epoch, and Student's t interval of the mean. "
    "A percentage whose standard deviation exceeds a third of its mean is shown as median [minimum, maximum].",
    "Seeds: 2/3 means that 2 of the 3 seeds in these tables are done. A condition without a finished seed has no row.",
    "Epochs: all that were trained, also in the method's own phases. Setting: alpha, density or other "
    "hyperparameters. Where rows share all of these, one row is the reference; the others name how they differ.",
    CUT,
)


def results_table(results: Results, verdicts: Mapping[str, str]) -> Table:
    """Every condition with results, by network, the densest first. verdicts: by run id."""
    found: dict[tuple[str, tuple[int, str], str], list[tuple[float, float, Row]]] = {}
    shown = [c for c in results.conditions if len(c.done)]
    names = settings(shown)
    for c in shown:
        place = (c.dataset, printed.rank(c.architecture), c.model)
        found.setdefault(place, list(_printed(c))).append(_measured(c, names[c.key], verdicts))
    rows = [row for _, members in sorted(found.items()) for *_, row in sorted(members, key=lambda m: m[:2])]
    columns = [i for i, head in enumerate(HEADS) if head not in OPTIONAL or len({row.cells[i] for row in rows}) > 1]
    kept = tuple(Row(tuple(row.cells[i] for i in columns), row.run_ids) for row in rows)
    heads = tuple(HEADS[i] for i in columns)
    return Table("results", "Mean over seeds, last epoch", heads, kept, NOTES, labels=heads.index("Seeds"))


def _measured(c: Condition, setting: str, verdicts: Mapping[str, str]) -> tuple[float, float, Row]:
    """The two numbers that its row is sorted by, and the row.

    They are falling density, then falling accuracy; for a dense network, rising epochs.
    """
    density, accuracy = c.summary("density", scale=100), c.summary("test_accuracy")
    cells = (
        _named(c), printed.method_name(c.method), setting, str(c.epochs), "ours",
        accuracy.seeds.removeprefix("n="), "100" if c.method == "dense" else percentage(density),
        percentage(accuracy) if accuracy.n else "", percentage_limits(accuracy).strip(), verdicts.get(c.run_ids[0], ""),
    )  # fmt: skip
    second = float(c.epochs) if c.method == "dense" else -accuracy.mean if accuracy.n else 0.0
    return -centre_and_ends(density)[0], second, Row(cells, c.run_ids)


def _printed(c: Condition) -> Iterator[tuple[float, float, Row]]:
    """The numbers that the paper prints for the network, as `_measured` returns ours."""
    for target in printed.measured(c.dataset, c.model):
        density, accuracy = target.density_percent or 0.0, target.sparse or 0.0
        stated = "" if target.alpha is None else f", alpha {target.alpha:g}"
        cells = (
            _named(c), printed.method_name(target.method), f"{printed.number(target.exhibit)}{stated}", "", "paper", "",
            printed_number(density, target.density_std), printed_number(accuracy, target.sparse_std), "", "",
        )  # fmt: skip
        yield -density, -accuracy, Row(cells)


def _named(c: Condition) -> str:
    name = printed.architecture(c.architecture)
    widths = "" if c.widths is None else f" {'-'.join(map(str, c.widths))}"
    return f"{name}{widths}, {c.dataset.upper() if c.dataset in printed.DATASETS else c.dataset}"
