"""`data fetch` and `data verify`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmark import data, suites
from benchmark.commands.output import emit
from benchmark.data import DataError
from benchmark.messages import describe
from benchmark.spec import SpecError
from benchmark.terminal import say


class BrokenPlugInError(DataError):
    """A data set's plug-in raised something else than a DataError."""


def fetch(name: str, data_dir: Path, suite: str | None, json_output: bool) -> None:
    """Download a data set, then check it. suite: what registers it, if it is a plug-in."""
    if suite is not None:
        suites.load_module(suite)
    with _broken_by_name(name):
        data.fetch(name, data_dir)
    verify(name, data_dir, None, json_output)


def verify(name: str, data_dir: Path, suite: str | None, json_output: bool) -> None:
    """Print one line per file if all are good. Raises DataError for the first that is not."""
    if suite is not None:
        suites.load_module(suite)
    with _broken_by_name(name):
        lines = data.verify(name, data_dir)
    if json_output:
        emit({"name": name, "data_dir": str(data_dir), "files": lines})
    else:
        say("\n".join(lines))


def check(names: Iterable[str], data_dir: Path) -> None:
    """Raises DataError unless the data of these names are there and good.

    A plug-in that breaks stops no other cells: its own cells fail and say why.
    """
    for name in names:
        with contextlib.suppress(BrokenPlugInError), _broken_by_name(name):
            data.verify(name, data_dir)


@contextlib.contextmanager
def _broken_by_name(name: str) -> Iterator[None]:
    """Raises BrokenPlugInError in place of whatever unexpected a plug-in raises."""
    try:
        yield
    except (DataError, SpecError):
        raise
    except Exception as error:
        if name not in data.plug_ins.names():
            raise
        raise BrokenPlugInError(f"data set '{name}': {describe(error)}") from error
