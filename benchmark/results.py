"""The results tables of a run folder: columns, rows from disk, and writing. Imports no torch."""

from __future__ import annotations

import csv
import functools
import io
import math
import os
import re
import uuid
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.messages import one_line
from benchmark.run_folder import links
from benchmark.run_folder.attempts import damage, ended, folder_of, gone, job_of, numbers, turn
from benchmark.run_folder.files import examine, write_atomic, write_json
from benchmark.run_folder.links import FolderError as FolderError
from benchmark.run_folder.result import examine_result, metrics_of, records, result_of
from benchmark.run_folder.storage import NO_SPACE, DiskFullError
from benchmark.spec import SCHEMA_VERSION, RunSpec, SpecError, check_run_id, digest, from_dict, from_json, in_both

MARKER = "run-folder.json"
STATUSES = ("pending", "running", "done", "failed", "diverged", "cancelled")
IDENTITY = ("run_id", "suite", "dataset", "model", "method", "alpha", "density_target", "seed", "protocol", "status")
MEASURED = (
    "epochs",
    "test_accuracy",
    "test_top5_accuracy",
    "best_test_accuracy",
    "density_at_best_test_accuracy",
    "density",
    "nonzero_density",
    "min_density",
    "test_accuracy_at_min_density",
    "density_as_authors_count",
    "parameters_remaining",
    "threshold_resets",
    "mask_flips",
    "threshold_min",
    "threshold_max",
    "threshold_share_in_0_1",
    "weight_max",
    "q_min",
    "q_max",
    "train_flops",
    "inference_flops",
    "executed_flops",
    "train_seconds",
    "train_cpu_seconds",
)
TIMES = ("train_seconds", "train_cpu_seconds")  # measured, but may differ between two trainings of one cell
LATER = ("executed_flops",)  # cells that were trained before have none, and may be compared with ones that do
COLUMNS = (*IDENTITY, *MEASURED, "device", "departs", "error", "commit", "spec")
NEEDED = ("test_accuracy", "best_test_accuracy", "density_at_best_test_accuracy", "density")  # of a done cell
REQUIRED = (*IDENTITY, *NEEDED, "departs", "commit", "spec")  # a table of an earlier version may lack the others
OF_SPEC = ("dataset", "model", "method", "alpha", "density_target", "seed")  # columns that repeat what `spec` says
TRACES = ("run_id", "epoch", "step", "name", "value")
LAYERS = ("run_id", "parameter", "weights", "kept")
MEMBERSHIPS = ("suite", "protocol", "departs")
LISTED = {"run_id": str, "spec": dict, "protocol": [str], "departs": [str]}
EXPANSION = {"suite": str, "exhibits?": [str], "cells": [LISTED]}
RELIST = "the command that trained a cell, with the same suite, --seeds and --set, lists it again without training"
SEPARATOR = ";"
BEST_FIRST = ("done", "diverged", "failed", "cancelled", "running", "pending")  # which row of a cell counts
SEED = re.compile(r'(.*,"seed":)(0|[1-9][0-9]{0,18})([,}].*)', re.DOTALL)
DRIFT = "drift: "
SUITE_DRIFT = f"{DRIFT}suite: "  # the suite was changed after the cell began; the training was not
CSV_CHARACTERS = 2**20

Row = dict[str, Any]


@dataclass(frozen=True)
class Member:
    """A cell of a run folder, and the suites that list it."""

    spec: RunSpec
    suites: tuple[str, ...]


def prepare(out: Path) -> None:
    """Make a run folder ready for writing.

    Raises FolderError or DiskFullError with what is wrong and what to do.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        check(out)
        if not (out / MARKER).exists():
            write_json(out / MARKER, {"schema": SCHEMA_VERSION})
        probe = out / f".probe-{uuid.uuid4().hex}"  # a name for which nobody can have left a link
        probe.write_bytes(b"x")
        links.check_hard_links(probe)
        probe.unlink()
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFullError(out) from error
        raise FolderError(f"--out {out} cannot be written ({error.strerror}): choose another folder") from error


def check(out: Path) -> None:
    """Raises FolderError unless the folder is empty or a run folder of this schema version.

    Also where its marker is damaged, and where something that we write in it is a link.
    """
    occupied = out.exists() and (not out.is_dir() or any(not name.startswith(".") for name in os.listdir(out)))
    marker, damage = examine(
        out / MARKER, {"schema": int}
    )  # after that look, as another process may be creating the folder
    if damage:
        raise FolderError(
            f'{damage}: choose another folder, or mend the file, which holds {{"schema": {SCHEMA_VERSION}}}'
        )
    if marker is None:
        if occupied:
            raise FolderError(f"--out {out} is not a run folder and not empty: choose another folder")
    elif marker["schema"] != SCHEMA_VERSION:
        raise FolderError(
            f"--out {out} has schema version {marker['schema']}, this program writes {SCHEMA_VERSION}: "
            "choose another folder, or the release that made it"
        )
    links.check(out)


def existing(out: Path) -> Path:
    """The folder, for reading. Raises FolderError if it is no run folder."""
    if not os.path.lexists(out / MARKER):
        raise FolderError(f"{out} is no run folder: give --out, or make one with 'python -m benchmark run'")
    check(out)
    return out


def remember(out: Path, name: str, exhibits: Sequence[str], specs: Iterable[RunSpec]) -> None:
    """Add cells to the suite's list DIR/suites/NAME.json, which status, show and export read.

    A cell that is listed already takes the protocol that the suite gives it now, unless it departs now
    and did not before. Of two processes at once the second waits.
    """
    path = out / "suites" / f"{name}.json"
    with list_turn(out):
        before = expansion(path)["cells"] if path.exists() else []
        cells = {entry["run_id"]: entry for entry in before}
        for spec in specs:
            known = cells.get(spec.run_id)
            if known is None or known["departs"] or not spec.departs:
                memberships = {"protocol": list(spec.protocol), "departs": list(spec.departs)}
                cells[spec.run_id] = {"run_id": spec.run_id, **memberships, "spec": spec.to_dict()}
        listed = list(cells.values())
        if listed != before:
            write_json(path, {"schema": SCHEMA_VERSION, "suite": name, "exhibits": list(exhibits), "cells": listed})


def list_turn(out: Path) -> AbstractContextManager[object]:
    """One process at a time changes the lists of a folder's suites."""
    return turn(out / "suites" / ".turn")


def expansion(path: Path) -> dict[str, Any]:
    """What `remember` wrote. Raises FolderError if it is damaged."""
    document, problem = examine(path, EXPANSION)
    if document is not None and document["suite"] != path.stem:
        problem = f"{path} is the list of another suite"
    if document is None or problem:
        raise FolderError(f"{problem or f'{path} is gone'}: move it away; {RELIST}")
    return dict(document)


def _listed(entry: Mapping[str, Any], path: Path) -> RunSpec:
    """The cell of one entry of a suite's list. Raises FolderError if its spec is not that of its run id."""
    try:
        spec = from_dict(entry["spec"], protocol=entry["protocol"], departs=entry["departs"])
        problem = "" if spec.run_id == entry["run_id"] else "its spec is another cell's"
    except (ValueError, TypeError, AttributeError, OverflowError) as error:  # SpecError is a ValueError
        problem = one_line(str(error))
    if problem:
        name = one_line(entry["run_id"])[:12]
        raise FolderError(f"{path} is damaged, cell {name}: {problem}; move it away; {RELIST}")
    return spec


def members(out: Path) -> dict[str, Member]:
    """Every cell that a suite of this folder lists, by run id, with its memberships of all lists.

    Raises FolderError for a damaged list.
    """
    found: dict[str, Member] = {}
    for path in sorted((out / "suites").glob("*.json")):
        if path.name.startswith("._"):  # macOS keeps a file's attributes beside it on foreign file systems
            continue
        document = expansion(path)
        for entry in document["cells"]:
            spec, before = _listed(entry, path), found.get(entry["run_id"])
            if before is None:
                found[spec.run_id] = Member(spec, (path.stem,))
            else:
                found[spec.run_id] = Member(in_both(before.spec, spec), (*before.suites, path.stem))
    return found


def unlisted(out: Path, listed: Container[str]) -> str:
    """What to say of cells with a result that no suite lists, as where a list was lost; empty without any."""
    there = [path.parent.name for path in (out / "cells").glob("*/result.json")]
    missing = sorted(run_id for run_id in there if run_id not in listed)
    if not missing:
        return ""
    cells = "1 cell has" if len(missing) == 1 else f"{len(missing)} cells have"
    return (
        f"{cells} a result in {out / 'cells'}, but {'is' if len(missing) == 1 else 'are'} in no suite's list, so "
        f"that 'export' leaves out {missing[0]}{'' if len(missing) == 1 else ' and others'}: {RELIST}"
    )


def row(out: Path, member: Member, *, dead_jobs: Collection[str] = ()) -> Row:
    """The results row of one cell, from its files; dead_jobs: cluster jobs that are known to have ended."""
    cell = out / "cells" / member.spec.run_id
    result, problem = examine_result(cell / "result.json", member.spec.run_id)
    status, error = (result["status"], result["error"]) if result else unfinished(cell, dead_jobs)
    if problem and not error:
        error = f"{problem.removeprefix(f'{cell}/')}: the cell will be run again"
    found = pending_row(member.spec, member.suites) | {"status": status, "error": error}
    if result is None:
        return found
    environment = result["environment"]
    drift = [f"{DRIFT}{change}" for change in environment.get("drift", [])]
    commit = environment["commit"] or "unknown"
    return {
        **found,
        **{name: _number(result["measured"].get(name)) for name in MEASURED},
        "device": environment["device_name"],
        "departs": SEPARATOR.join([*member.spec.departs, *drift]),
        "commit": commit + ("-dirty" if environment["dirty"] else ""),
    }


def union(names: Iterable[str], *, backwards: bool = False) -> str:
    """The names in several columns that join names, each once; backwards puts protocol paper first."""
    found = {name for text in names for name in text.split(SEPARATOR) if name}
    return SEPARATOR.join(sorted(found, reverse=backwards))


def pending_row(spec: RunSpec, suites: Sequence[str]) -> Row:
    """The row of a cell about which only the spec is known."""
    known = {
        "run_id": spec.run_id,
        "suite": SEPARATOR.join(suites),
        "dataset": spec.data.name,
        "model": spec.model.name,
        "method": spec.method["name"],
        "alpha": _number(spec.method.get("alpha")),
        "density_target": _number(spec.density),
        "seed": spec.seed,
        "protocol": SEPARATOR.join(spec.protocol),
        "status": "pending",
        "departs": SEPARATOR.join(spec.departs),
        "error": "",
        "spec": spec.canonical_json,
    }
    return {name: known.get(name, "") for name in COLUMNS}


def check_row(entry: Mapping[str, Any]) -> None:
    """Check a row of a results table, which somebody else may have written.

    entry: the columns as text or as numbers; empty is "" or NaN. Raises SpecError, in one line,
    where the spec is none or not the one of its run_id, or where a column disagrees with the spec.
    """
    check_run_id(entry["run_id"])
    text = str(entry["spec"])
    own = _of_spec(text)
    if (found := digest(text)) != entry["run_id"]:
        raise SpecError(f"spec hashes to {found}, not to the run_id {entry['run_id']}: one of the two was changed")
    for name in OF_SPEC:
        if not _same(entry[name], own[name]):
            raise SpecError(f"{name} is {entry[name]!r:.120}, but its spec says {own[name]!r:.120}")


def _of_spec(text: str) -> Row:
    """The columns that a spec decides. Raises SpecError if it is none.

    Specs that differ only in the seed are parsed once. In canonical JSON nothing but `step_records`
    comes after the seed, so the last `,"seed":` of the text is the spec's own.
    """
    found = SEED.fullmatch(text)
    if found is None or int(found[2]) >= 2**63:
        return _parsed(text)
    return _parsed(f"{found[1]}0{found[3]}") | {"seed": int(found[2])}


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> Row:
    row = pending_row(from_json(text), ())
    return {name: row[name] for name in OF_SPEC}


def _same(given: Any, own: Any) -> bool:
    """Whether a value of a table, maybe as text, is the own one, a number or text."""
    if isinstance(own, str):
        return bool(given == own or (own == "" and given != given))
    try:
        return math.isclose(float(given), own, rel_tol=1e-12)
    except (ValueError, TypeError):
        return False


def unfinished(cell: Path, dead_jobs: Collection[str] = ()) -> tuple[str, str]:
    """(status, error) of a cell without a result: pending, running or failed."""
    attempts = numbers(cell)
    if not attempts:
        return "pending", ""
    last = folder_of(cell, attempts[-1])
    end, problem = ended(last), damage(last).removeprefix(f"{cell}/")
    if end is not None:
        return (end["status"] if end["status"] in ("failed", "cancelled") else "pending"), end["error"]
    over = gone(last) or os.path.lexists(last / "end.json") or job_of(last) in dead_jobs
    return ("pending" if over else "running"), problem


def cells(out: Path, *, dead_jobs: Collection[str] = ()) -> list[tuple[RunSpec, Row]]:
    """Every cell that the folder's suites list, and its row."""
    return [(member.spec, row(out, member, dead_jobs=dead_jobs)) for member in members(out).values()]


def rows(out: Path) -> list[Row]:
    """The rows of every cell that the folder's suites list."""
    return [entry for _, entry in cells(out)]


def write_tables(out: Path) -> list[Row]:
    """Write results.csv and .parquet, traces.csv and layers.csv into the run folder; the rows."""
    found = rows(out)
    write_rows(found, out, out)
    return found


def write_rows(found: Sequence[Row], out: Path, to: Path) -> None:
    """The tables of these rows into a folder; `out` has the cells' records and layers."""
    to.mkdir(parents=True, exist_ok=True)
    write_csv(to / "results.csv", COLUMNS, found)
    write_parquet(to / "results.parquet", found)
    done = [entry["run_id"] for entry in found if entry["status"] in ("done", "diverged")]
    write_csv(to / "traces.csv", TRACES, traces(out, done))
    write_csv(to / "layers.csv", LAYERS, layers(out, done))


def traces(out: Path, run_ids: Iterable[str]) -> Iterator[Row]:
    """Every recorded value in long form; `step` is empty for values recorded once per epoch."""
    for run_id in run_ids:
        cell = out / "cells" / run_id
        for record in read_records(cell, result_of(cell) or {}):
            step = "" if "train_seconds" in record else record["step"]
            for name, value in record.items():
                if name not in ("epoch", "step", "diverged") and value is not None:
                    yield {"run_id": run_id, "epoch": record["epoch"], "step": step, "name": name, "value": value}


def metrics(cell: Path, result: Mapping[str, Any]) -> bytes:
    """The metrics of a cell's result, restored if another attempt or an accident left other ones.

    Raises FolderError if the attempt that the result names has lost them too, and if they would
    have to be restored through a link.
    """
    found = metrics_of(cell, result)
    if found is None:
        raise FolderError(f"{cell / 'metrics.jsonl'} is not the one of its result.json: move {cell} away and run again")
    path, content = found
    if path.parent != cell:
        links.refuse(cell)
        write_atomic(cell / "metrics.jsonl", content)
    return content


def read_records(cell: Path, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of a cell's result. Raises FolderError as `metrics`, and if one is damaged."""
    content = metrics(cell, result)
    try:
        return list(records(content, cell / "metrics.jsonl"))
    except ValueError as error:
        raise FolderError(f"{error}: move {cell} away and run again") from error


def layers(out: Path, run_ids: Iterable[str]) -> Iterator[Row]:
    for run_id in run_ids:
        result = result_of(out / "cells" / run_id) or {"layers": {}}
        for name, counts in result["layers"].items():
            yield {"run_id": run_id, "parameter": name, "weights": counts["weights"], "kept": counts["kept"]}


def write_csv(path: Path, columns: Sequence[str], table: Iterable[Mapping[str, Any]]) -> None:
    write_atomic(path, _csv(columns, table))


def _csv(columns: Sequence[str], table: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """A table in pieces, as the traces of a large grid may not fit in memory."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow(row)
        if text.tell() > CSV_CHARACTERS:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode()


def write_parquet(path: Path, table: Sequence[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    texts = {*IDENTITY, "device", "departs", "error", "commit", "spec"} - {"alpha", "density_target", "seed"}
    schema = pa.schema([(name, pa.string() if name in texts else pa.float64()) for name in COLUMNS])
    typed = [{n: v if n in texts else (None if v == "" else float(v)) for n, v in entry.items()} for entry in table]
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(typed, schema=schema), buffer)
    write_atomic(path, buffer.getvalue())


def _number(value: Any) -> Any:
    return "" if value is None else value
