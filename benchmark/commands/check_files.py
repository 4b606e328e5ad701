"""Files of a folder that somebody sent: which ones may be opened, and whether their hashes are right.

Links are not followed, and nothing is run, unpickled or written.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark import results
from benchmark.commands.check_rows import EXPORT
from benchmark.commands.published import FINISHED
from benchmark.commands.row_numbers import difference, number
from benchmark.messages import shown
from benchmark.results import COLUMNS, MARKER, MEASURED, FolderError, Row
from benchmark.run_folder.files import MOST_BYTES, examine, read_bytes
from benchmark.run_folder.result import examine_result

TABLES = ("results.csv", "traces.csv", "layers.csv")
SUMS, MANIFEST = "SHA256SUMS", "manifest.json"
SUM = re.compile(r"([0-9a-f]{64}) [ *]([^\\\0]+)")
LISTED = {"pages": {str: str}, "exhibits": {str: {"files": {str: str}}}, "rows": {str: {"results": str}}}
OF_RUN_FOLDER = ("cells", "logs", "mlartifacts", "ray", "slurm", ".mlflow-sync")  # only results and metrics are read
MOST_BYTES_OF_TEXT = 2**28  # of checksums and manifests, which are read whole


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file or one of its rows, and what to do, in one line."""

    file: str
    text: str
    row: int | None = None
    run_id: str = ""


@dataclass(frozen=True)
class Content:
    """files: regular files that may be opened. problems: why the others may not."""

    files: tuple[Path, ...]
    problems: tuple[Problem, ...]


def content(folder: Path) -> Content:
    """The files below a folder, without the cells of run folders."""
    files: list[Path] = []
    found: list[Problem] = []

    def unreadable(error: OSError) -> None:
        found.append(Problem(str(error.filename), f"{error.strerror}: make it readable"))

    for place, folders, names in os.walk(folder, onerror=unreadable):
        here = Path(place)
        if MARKER in names:
            folders[:] = [name for name in folders if name not in OF_RUN_FOLDER or (here / name).is_symlink()]
        folders.sort()
        found += [Problem(str(here / name), "is a folder: remove it") for name in folders if name in TABLES]
        for name in sorted([*names, *(name for name in folders if (here / name).is_symlink())]):
            if problem := _closed(here / name):
                found.append(Problem(str(here / name), problem))
            else:
                files.append(here / name)
    return Content(tuple(files), tuple(found))


def _closed(path: Path) -> str:
    """Why a file may not be opened; empty if it may."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return "is a link, which may lead anywhere, and is not followed: put the file itself in its place"
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file and is not opened: remove it"
    if status.st_size > MOST_BYTES:
        return f"claims {status.st_size} bytes and is not opened: remove it"
    return ""


def checksums(sums: Path, files: Sequence[Path]) -> Iterator[Problem]:
    """Compare SHA256SUMS with the files below its folder: each is listed once, with its hash."""
    try:
        lines = _small(sums).decode().splitlines()
    except ValueError as error:
        yield Problem(str(sums), f"cannot be read ({error}): write it again with sha256sum")
        return
    there = {path.relative_to(sums.parent).as_posix(): path for path in files if path.is_relative_to(sums.parent)}
    listed: set[str] = set()
    for row, line in enumerate(lines, 1):
        found = SUM.fullmatch(line)
        name = found[2].removeprefix("./") if found else ""
        if found is None or name in listed:
            yield Problem(str(sums), f"{shown(line)} is no checksum of another file: make it with sha256sum", row)
        elif name not in there:
            yield Problem(str(sums), f"{shown(name)} is not in the folder: add the file or remove the line", row)
        elif _sha256(there[name]) != found[1]:
            yield Problem(str(there[name]), f"is not the file of {SUMS}: it was changed, so get it again")
        listed.add(name)
    for name in sorted(there.keys() - listed - {sums.name}):
        yield Problem(str(there[name]), f"is not in {SUMS}: remove it, or write {SUMS} again")


def manifest(path: Path, rows: Mapping[str, Row]) -> Iterator[Problem]:
    """Compare manifest.json with the exhibits beside it, and with the rows of the folder's tables."""
    try:
        _small(path)
    except ValueError as error:
        yield Problem(str(path), f"cannot be read ({error}): build the exhibits again")
        return
    document, damage = examine(path, LISTED)
    if damage:
        yield Problem(str(path), f"{damage.removeprefix(f'{path} ')}: build the exhibits again")
        return
    hashes = dict(document["pages"])
    for exhibit in document["exhibits"].values():
        hashes |= exhibit["files"]
    for name, digest in sorted(hashes.items()):
        file = path.parent / name
        if Path(name).name != name or not file.is_file() or file.is_symlink() or _sha256(file) != digest:
            yield Problem(str(path), f"{shown(name)} is not the file that was built: build the exhibits again")
    for run_id, digests in sorted(document["rows"].items()) if rows else ():
        if run_id not in rows or _row_hash(rows[run_id]) != digests["results"]:
            yield Problem(str(path), f"the exhibits were built from another row of {shown(run_id)}: build them again")


def run_folder(folder: Path, rows: Mapping[str, Row], lines: Container[str]) -> Iterator[Problem]:
    """Compare the results of a run folder's cells with their checksums, metrics and rows.

    rows: the good ones, by run id. lines: the run ids of all rows.
    """
    if any(_closed(path) for path in (folder / "suites").glob("*.json")):
        return  # `content` has reported them, and they are read together
    try:
        members = results.members(results.existing(folder))
    except FolderError as error:
        yield Problem(str(folder), str(error))
        return
    claimed = {run_id: row["status"] for run_id, row in rows.items() if row["status"] in FINISHED}
    for run_id, member in members.items():
        cell = folder / "cells" / run_id
        if cell.is_symlink() or cell.parent.is_symlink():
            yield Problem(str(cell), "is a link, which may lead anywhere: put the folder itself in its place")
            continue
        if closed := _unopened(cell):
            yield from closed
            continue
        result, damage = examine_result(cell / "result.json", run_id)
        if damage:
            yield Problem(str(cell / "result.json"), f"{damage.removeprefix(f'{cell}/')}: train the cell again")
        if result is None:
            continue
        claimed.pop(run_id, None)
        if not _has_hash(cell / "metrics.jsonl", result["metrics_sha256"]):
            yield Problem(str(cell / "metrics.jsonl"), "is not the one of its result.json: get the cell's folder again")
        own = {name: str(value) for name, value in results.row(folder, member).items()}
        if run_id not in lines:
            yield Problem(str(folder / "results.csv"), f"cell {run_id} is missing: {EXPORT}")
        elif run_id not in rows or difference(rows[run_id], own):
            yield Problem(str(folder / "results.csv"), f"cell {run_id} is not as its result.json has it: {EXPORT}")
    if lost := results.unlisted(folder, members):
        yield Problem(str(folder / "suites"), lost)
    for run_id, status in claimed.items():
        if not os.path.lexists(folder / "cells" / run_id / "result.json"):
            yield Problem(str(folder / "results.csv"), f"cell {run_id} is {status}, but has no result here: {EXPORT}")


def _unopened(cell: Path) -> list[Problem]:
    """The files of a cell that may not be opened."""
    there = [path for path in (cell / "result.json", cell / "metrics.jsonl") if os.path.lexists(path)]
    return [Problem(str(path), why) for path in there if (why := _closed(path))]


def _has_hash(path: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest() == digest
    except (OSError, ValueError):
        return False


def _row_hash(row: Row) -> str:
    """The hash as manifest.json documents it: one value per line, numbers as Python writes floats."""
    texts = dict(row)
    for name in ("alpha", "density_target", "seed", *MEASURED):
        value = number(row[name])
        texts[name] = "" if math.isnan(value) else str(value)
    return hashlib.sha256("".join(f"{texts[name]}\n" for name in COLUMNS).encode()).hexdigest()


def _small(path: Path) -> bytes:
    """The bytes of a small file. Raises ValueError for a larger or unreadable one."""
    if path.stat().st_size > MOST_BYTES_OF_TEXT:
        raise ValueError(f"it has {path.stat().st_size} bytes")
    return read_bytes(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
