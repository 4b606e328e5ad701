"""The tables of REPRODUCIBILITY.md and the counts of docs/not-run.md follow from the committed exhibits and rows.

`python tests/analysis/test_reproducibility_report.py` writes them.
"""

from __future__ import annotations

import csv
import functools
import json
import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from analysis.data.conditions import summarize
from analysis.exhibits.claims.table import ORDER
from analysis.exhibits.verdict_power import WANTED, powers
from analysis.output.numbers import percentage
from analysis.statistics.power import seeds_needed
from benchmark import models, results, suites
from benchmark.commands import filters
from benchmark.spec import Model, RunSpec
from benchmark.training import measure

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "REPRODUCIBILITY.md"
NOT_RUN = ROOT / "docs/not-run.md"
# In a line of its table: the cells of a command, those without a committed row, and the command.
COUNTS = re.compile(
    r"\| \d+ \| \d+ (?P<rest>\|[^|]*\| `run --suite (?P<suite>\w+)(?: --where model=(?P<models>[\w,-]+))?` \|)"
)
# Claims that nothing was run for yet: what runs them, by a word of the claim or by its section.
COMMANDS = (
    ("ImageNet", "--suite imagenet"),
    ("learning rate", "--suite cifar10 --where model=vgg16"),
    ("VGG-16", "--suite cifar10 --where model=vgg16"),
    ("wide residual", "--suite cifar10 --where model=wrn-16-8,wrn-16-10,wrn-28-8"),
    ("Resetting", "--suite resets --where model=lenet-300-100,lenet-5-caffe"),
    ("thresholds", "--suite thresholds"),
    ("l2", "--suite cifar10"),
    ("", "--suite cifar10"),
)
# Suites that have measured cells on which a claim rests, and the columns by which a command selects them.
SUITES = ("mnist", "resets", "thresholds", "estimators", "gap", "gap_networks", "cifar10_narrow")
FILTERS = ("model", "protocol", "method", "alpha")
SUSTAINED = 1e13  # FLOP/s of a GPU in training: an assumption, not a measurement
BACKWARD = 3  # a training step costs about three forward passes
EXAMPLES = {"cifar10": 50_000, "imagenet": 1_281_167}
INPUTS = {"cifar10": (3, 32, 32), "imagenet": (3, 224, 224)}


def exhibit(name: str) -> list[dict[str, str]]:
    with (ROOT / "paper_figures" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@functools.cache
def measured() -> dict[str, dict[str, str]]:
    """The committed rows by run id."""
    rows: dict[str, dict[str, str]] = {}
    for table in sorted((ROOT / "paper_figures/results").glob("*/results.csv")):
        with table.open(newline="", encoding="utf-8") as file:
            rows |= {row["run_id"]: row for row in csv.DictReader(file) if row["status"] == "done"}
    return rows


def hours(rows: list[dict[str, str]]) -> float:
    """CPU hours where a row has them, otherwise the hours that the training took on one thread."""
    return sum(float(row.get("train_cpu_seconds") or row["train_seconds"]) for row in rows) / 3600


def of(run_ids: str) -> list[dict[str, str]]:
    return [measured()[run_id] for run_id in run_ids.split(";") if run_id]


def line(*cells: object) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |\n"


def commands(rows: list[dict[str, str]]) -> tuple[str, int]:
    """What trains these cells again, and few others; and how many cells that is.

    Each network has a command, and others for what the first leaves. Networks with the same command
    share it.
    """
    networks: dict[str, list[str]] = {}
    trained: set[str] = set()
    for model in dict.fromkeys(row["model"] for row in rows):
        left = {row["run_id"] for row in rows if row["model"] == model}
        chosen: list[Offer] = []
        while left:
            best = max(offers(left), key=lambda offer: 2 * len(offer.cells & left) - len(offer.cells))
            chosen = [offer for offer in chosen if not offer.cells <= best.cells] + [best]
            left -= best.cells
        for offer in chosen:
            networks.setdefault(offer.text.replace(f"model={model}", "model={}"), []).append(model)
            trained |= offer.cells
    return ", ".join(text.format(",".join(names)) for text, names in networks.items()), len(trained)


@dataclass(frozen=True)
class Offer:
    """A command and the cells that it trains."""

    text: str
    cells: set[str]


def offers(left: set[str]) -> Iterator[Offer]:
    """For each suite with some of these cells, a command with its own seeds and one with the cells' seeds."""
    seeds = sorted(int(measured()[run_id]["seed"]) for run_id in left)
    for name in SUITES:
        others = range(seeds[0], seeds[-1] + 1)
        for table, given in ((cells_of(name), ""), (cells_of(name, others), f" --seeds {seeds[0]}-{seeds[-1]}")):
            text = f"run --suite {name}"
            for field in FILTERS:
                every = {value(row, field) for _, row in table}
                wanted = {value(row, field) for spec, row in table if spec.run_id in left}
                if wanted and wanted != every and not any(results.SEPARATOR in found for found in wanted):
                    where = f"{field}={','.join(sorted(wanted, key=float if field == 'alpha' else str))}"
                    table, text = filters.select(table, [where]), f"{text} --where {where}"
            ids = {spec.run_id for spec, _ in table}
            if ids & left:
                yield Offer(f"`{text}{given}`", ids)


@functools.cache
def cells_of(suite: str, seeds: range | None = None) -> list[tuple[RunSpec, results.Row]]:
    """A suite's cells, or those that it has at other seeds, with their rows."""
    specs = suites.load(suite).specs
    some = specs if seeds is None else suites.with_seeds(specs, seeds)
    return [(spec, results.pending_row(spec, (suite,))) for spec in some]


def value(row: results.Row, field: str) -> str:
    """What `--where` calls the cell's value."""
    found = row[field]
    return f"{found:.12g}" if isinstance(found, float) else str(found or "nan")


def printed_numbers() -> str:
    """Table 1's four numbers at the stated alpha, last epoch."""
    text = line("Table 1, DST", "printed", "measured", "seeds", "hours", "verdict", "seeds that would settle it")
    text += line(*["---"] * 7)
    needed = {row["model"]: row["seeds_for_80_corrected"] for row in exhibit("verdict-power")}
    with (ROOT / "analysis/paper/targets.csv").open(newline="", encoding="utf-8") as file:
        targets = {row["model"]: row for row in csv.DictReader(file) if row["exhibit"] == "table1"}
    ours = {
        row["architecture"]: row
        for row in exhibit("table1")
        if row["source"] == "ours" and row["last_basis"] == "stated"
    }
    for model, target in targets.items():
        said = (
            f"{target['sparse']} ± {target['sparse_std']} % at {target['density_percent']} ± {target['density_std']} %"
        )
        row = ours.get(model)
        if row is None:
            text += line(model, said, "-", 0, "-", "not run", needed[model])
            continue
        cells = of(row["run_ids"])
        accuracy, density = (
            percentage(summarize([scale * float(cell[column]) for cell in cells], expected=len(cells)))
            for column, scale in (("test_accuracy", 1), ("density", 100))
        )
        settled = (
            "-"
            if "inconclusive" not in row["last_verdict"]
            else f"{needed[model]} if they vary as printed, {as_ours(model, cells)} as ours do"
        )
        text += line(
            model, said, f"{accuracy} % at {density} %", len(cells), f"{hours(cells):.1f}",
            row["last_verdict"], settled,
        )  # fmt: skip
    return text


def as_ours(model: str, cells: list[dict[str, str]]) -> str:
    """How many seeds would settle the number if they vary as the measured ones do."""
    power = next(power for power in powers() if power.target.model == model)
    sds = (
        statistics.stdev(float(cell["test_accuracy"]) for cell in cells),
        statistics.stdev(math.log(float(cell["density"])) for cell in cells),
    )
    found = seeds_needed(sds, power.margins, power=WANTED, level=power.levels[-1])
    return "over 100" if found is None else str(found)


def claims() -> str:
    """Each claim with its result, cost and command."""
    text = line("claim", "section", "result", "runs", "hours", "command", "cells")
    text += line(*["---"] * 7)
    for row in exhibit("claims"):
        rows = of(row["run_ids"])
        if rows:
            done = (len(rows), f"{hours(rows):.1f}", *commands(rows))
        elif row["result"] == "not run":
            missing = next(given for word, given in COMMANDS if word in row["claim"])
            done = (0, "-", f"`run {missing}`", "-")
        else:
            done = (0, "-", "none: counted from the architectures", "-")
        text += line(row["claim"], row["section"].replace("ours: ", "*ours*: "), row["result"], *done)
    return text


def counts() -> str:
    """How many claims have which result."""
    rows = exhibit("claims")
    found = Counter(row["result"] for row in rows)
    counted = sum(not row["run_ids"] for row in rows if row["result"] == "supported")
    results_of = [f"{found[word]} {word}" for word in ORDER]
    results_of[ORDER.index("supported")] += f" ({counted} by counting parameters, without a training)"
    return f"Of {len(rows)} claims, one of them ours: {', '.join(results_of)}.\n"


def machines() -> str:
    """The committed rows by processor and network."""
    found: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in measured().values():
        widths = json.loads(row["spec"])["model"].get("widths")
        found[row["device"], row["model"] + (", other widths" if widths else "")].append(row)
    text = line("processor", "network", "cells", "hours") + line(*["---"] * 4)
    for (device, model), rows in sorted(found.items()):
        text += line("not recorded" if device == "cpu" else device, model, len(rows), f"{hours(rows):.1f}")
    every = [row for rows in found.values() for row in rows]
    return text + line("all", "", len(every), f"{hours(every):.1f}")


def missing() -> str:
    """What Tables 2 and 3 would cost on a GPU."""
    text = line("network", "data", "cells", "forward GFLOPs per example", "epochs", "hours per cell", "hours")
    text += line(*["---"] * 7)
    for suite, shape in INPUTS.items():
        cells = Counter((spec.model.name, spec.optimizer.epochs) for spec in suites.load(suite).specs)
        for (model, epochs), count in cells.items():
            network = models.create(
                Model(name=model), in_shape=shape, classes=1000 if suite == "imagenet" else 10, seed=0
            ).eval()
            forward = sum(measure.forward_flops(network, shape).values())
            cell = BACKWARD * forward * EXAMPLES[suite] * epochs / SUSTAINED / 3600
            text += line(model, suite, count, f"{forward / 1e9:.2f}", epochs, f"{cell:.1f}", f"{cell * count:,.0f}")
    return text


TABLES: dict[str, Callable[[], str]] = {
    "printed": printed_numbers, "counts": counts, "claims": claims, "machines": machines, "missing": missing,
}  # fmt: skip


def page(text: str) -> str:
    """The page with each table made anew, between its comments."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        assert text.count(begin) == text.count(end) == 1, name
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{make()}\n{end}{rest.partition(end)[2]}"
    return text


def not_run(text: str) -> str:
    """docs/not-run.md with its counts made anew."""

    def counts(found: re.Match[str]) -> str:
        chosen = found["models"]
        own = [s for s in suites.load(found["suite"]).specs if not chosen or s.model.name in chosen.split(",")]
        return f"| {len(own)} | {sum(spec.run_id not in measured() for spec in own)} {found['rest']}"

    return COUNTS.sub(counts, text)


def test_the_cells_that_are_not_run_are_counted() -> None:
    text = NOT_RUN.read_text(encoding="utf-8")
    assert len(COUNTS.findall(text)) == 15
    assert text == not_run(text), "python tests/analysis/test_reproducibility_report.py writes these counts"


@pytest.mark.slow
def test_the_tables_are_those_of_the_committed_exhibits_and_rows() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "python tests/analysis/test_reproducibility_report.py writes these tables"


def test_every_claim_that_is_not_run_names_cells_that_exist() -> None:
    for row in exhibit("claims"):
        if row["result"] == "not run" and not row["run_ids"]:
            found = re.search(r"--suite (\w+)", next(given for word, given in COMMANDS if word in row["claim"]))
            assert found is not None
            assert found[1] in suites.available()


if __name__ == "__main__":
    for path, make in ((PAGE, page), (NOT_RUN, not_run)):
        path.write_text(make(path.read_text(encoding="utf-8")), encoding="utf-8")
