"""A follower of a cell: it trains with the leader, step by step, and writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark.data import DataError
from benchmark.spec import SpecError, from_dict
from benchmark.training.loop import train_epoch
from benchmark.training.prepare import begin, check_same
from benchmark.training.process_group import Group


class _EndedError(Exception):
    """The leader goes on with this cell no further."""


def follow(data_dir: Path, device: str, group: Group) -> None:
    """Take part in cells as the leader begins them, until the leader's process ends, and this one with it.

    What goes wrong here is told to the leader and raised.
    """
    while True:
        group.idle = True
        tree = group.receive()
        group.idle = False
        try:
            _cell(tree, data_dir, device, group)
        except _EndedError:
            continue
        except Exception as error:
            _tell(group, error)
            raise


def _cell(tree: dict[str, Any], data_dir: Path, device: str, group: Group) -> None:
    try:
        training = begin(from_dict(tree), data_dir, device, group)
    except (SpecError, DataError):
        _go_on(group)  # the leader met the same, unless the files of this machine are others
        raise
    _go_on(group)
    state = group.receive()
    if state is not None:
        training.load_state_dict(state)
    while training.epoch < training.epochs:
        train_epoch(training, lambda: _go_on(group))
        check_same(training, group)
        _go_on(group)


def _go_on(group: Group) -> None:
    if not group.goes_on():
        raise _EndedError


def _tell(group: Group, error: Exception) -> None:
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    assert group.lifeline is not None, "a follower has a leader"
    group.lifeline.last_words({"error": f"process {group.rank}: {text}", "code": getattr(error, "exit_code", None)})
