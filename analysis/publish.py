"""`publish`: tables, exhibits and page as one folder that a data hub or an archive can take."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import fcntl
import glob
import hashlib
import importlib.metadata
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from analysis.build import build
from analysis.data.read import HEADER, InputError, Tables, load
from analysis.output import card
from benchmark.results import COLUMNS, LAYERS, TRACES, write_csv

SUMS = "SHA256SUMS"
COPIED = ("LICENSE", "CITATION.cff")
EXHIBITS = "exhibits"
CHUNK_ROWS = 100_000
HERE, RENAME_EXCHANGE = -100, 2  # of Linux: AT_FDCWD of <fcntl.h>, and of <linux/fs.h>


def publish(tables: Tables, to: Path) -> list[str]:
    """Write the folder `to`. Returns the paths of its files inside it.

    The folder appears when it is complete. Equal tables give equal bytes. An earlier publication in
    `to` is replaced. Raises InputError where `to` holds other files, or changed ones.
    """
    try:
        to = to.resolve()
    except RuntimeError:
        raise InputError(f"--to {to} is a link that leads to itself: choose another name") from None
    _check_place(to)
    to.parent.mkdir(parents=True, exist_ok=True)
    with _beside(to) as made:
        new = made / "new"
        new.mkdir()
        _write(tables, new)
        _check_place(to)  # once more: writing takes a while
        _replace(to, new, made / "old")
    return _files(to)


@contextlib.contextmanager
def _beside(to: Path) -> Iterator[Path]:
    """A new folder beside `to`, removed at the end. What a killed process left there is removed too."""
    for left in to.parent.glob(f".{glob.escape(to.name)}.{'[0-9a-f]' * 32}.tmp"):
        with contextlib.suppress(OSError), _lock(left) as held:
            if held:
                shutil.rmtree(left)
    made = to.with_name(f".{to.name}.{uuid.uuid4().hex}.tmp")
    made.mkdir()
    try:
        with _lock(made):
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Lock a folder until its process ends; False where another has, or the file system has no locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    held = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held = False
    try:
        yield held
    finally:
        os.close(descriptor)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one system call. False where there is none: other systems, some disks."""
    exchange = getattr(ctypes.CDLL(None), "renameat2", None)
    names = (HERE, os.fsencode(one), HERE, os.fsencode(other))
    return exchange is not None and exchange(*names, RENAME_EXCHANGE) == 0


def _replace(to: Path, new: Path, old: Path) -> None:
    """Put the folder `new` in the place of `to`, which then is `new` or `old`."""
    if to.exists():
        if _exchanged(new, to):
            return
        to.rename(old)
    try:
        new.rename(to)
    except BaseException:  # Ctrl-C too
        if old.exists():
            old.rename(to)
        raise


def _write(tables: Tables, folder: Path) -> None:
    write_csv(folder / "results.csv", COLUMNS, _rows(tables))
    for name, columns in (("traces", TRACES), ("layers", LAYERS)):
        write_csv(folder / f"{name}.csv", columns, _records(tables, f"{name}.csv", columns))
    published = load([folder])
    build(published, folder / EXHIBITS)
    for name in COPIED:
        (folder / name).write_text(_project_file(name), encoding="utf-8")
    (folder / "README.md").write_text(card.text(published, _verdicts(folder)), encoding="utf-8")
    (folder / SUMS).write_bytes(_sums(folder, _files(folder)))


def _rows(tables: Tables) -> Iterator[Mapping[str, str]]:
    """One row per cell, sorted by run id, with the texts of the table that has the cell."""
    texts: dict[str, pd.DataFrame] = {}
    merged = ["suite", "protocol", "departs"]  # over all tables that have the cell, as `read.merge` does it
    for row in tables.results.sort_values("run_id")[["file", "line", *merged]].to_dict("records"):
        file = row["file"]
        if file not in texts:
            texts[file] = pd.read_csv(file, dtype=str, keep_default_na=False)
        yield {**texts[file].iloc[row["line"] - HEADER].to_dict(), **{name: row[name] for name in merged}}


def _records(tables: Tables, name: str, columns: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """The traces or layers of the cells, from the files beside the tables that have these cells."""
    found = tables.results.sort_values("run_id").groupby("file", sort=False)["run_id"]
    for file, run_ids in found:
        path, wanted = Path(str(file)).with_name(name), set(run_ids)
        if path.exists():
            for part in pd.read_csv(path, dtype=str, keep_default_na=False, chunksize=CHUNK_ROWS):  # as `load` reads it
                yield from part.loc[part["run_id"].isin(wanted), list(columns)].to_dict("records")


def _verdicts(folder: Path) -> list[str]:
    """The verdicts that count, on the numbers that the paper prints in Tables 1 to 3."""
    path = folder / EXHIBITS / "verdicts.csv"
    with path.open(newline="", encoding="utf-8") as opened:
        return [row["verdict"] for row in csv.DictReader(opened) if row["counts"] == "True"]


def _check_place(to: Path) -> None:
    """Raises InputError where writing the folder would delete somebody's files."""
    if not to.exists():
        return
    if not to.is_dir():
        raise InputError(f"--to {to} is no folder: choose another name")
    there = _files(to)
    if there and not _untouched(to, there):
        raise InputError(
            f"--to {to} holds other files than an unchanged publication: choose another folder, or move them away"
        )


def _untouched(folder: Path, files: Sequence[str]) -> bool:
    """Whether the folder holds exactly the files of its checksums, unchanged."""
    sums = folder / SUMS
    if not sums.is_file() or any((folder / name).is_symlink() or not (folder / name).is_file() for name in files):
        return False
    return sums.read_bytes() == _sums(folder, [name for name in files if name != SUMS])


def _sums(folder: Path, files: Iterable[str]) -> bytes:
    """The lines that `sha256sum -c` takes."""
    return "".join(f"{_sha256(folder / name)}  {name}\n" for name in files).encode()


def _files(folder: Path) -> list[str]:
    """The paths of the files and links inside the folder, sorted."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _project_file(name: str) -> str:
    """The text of LICENSE or CITATION.cff, from the checkout or the installed package."""
    path = Path(__file__).parents[1] / name
    if path.is_file():
        return path.read_text(encoding="utf-8")
    text = importlib.metadata.distribution("sparse-training-bench").read_text(f"licenses/{name}")
    if text is None:
        raise InputError(f"{name} of this project is not installed: run from a checkout, or install the package again")
    return text


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
