"""A follower of a cell: it trains with the leader, step by step, and writes nothing."""

from __future__ import annotations

from typing import Any

from benchmark.data import DataError
from benchmark.run_folder.storage import trouble
from benchmark.spec import RunSpec, SpecError, from_dict
from benchmark.training.blame import described
from benchmark.training.engine import Engine
from benchmark.training.execution import Execution
from benchmark.training.loop import train_epoch
from benchmark.training.prepare import check_same, prepare_training
from benchmark.training.process_group import Group


class _EndedError(Exception):
    """The leader does not go on with this cell."""


def follow(execution: Execution, group: Group) -> None:
    """Take part in the leader's cells until the leader's process ends, and this one with it.

    An error here is announced to the leader and raised.
    """
    while True:
        group.idle = True
        try:
            tree = group.receive()
        except RuntimeError:  # the leader's process has ended; `Peers` may notice that later than this wait
            return
        group.idle = False
        try:
            _train(tree, execution, group)
        except _EndedError:
            continue
        except Exception as error:
            _announce(group, trouble(error, execution.out) or error, from_dict(tree))
            raise


def _train(tree: dict[str, Any], execution: Execution, group: Group) -> None:
    try:
        spec = from_dict(tree)
        training = prepare_training(spec, execution, group, Engine(spec, execution.device, execution.masked_layers))
    except (SpecError, DataError):
        _go_on(group)  # the leader met the same error, unless this machine has other files
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


def _announce(group: Group, error: Exception, spec: RunSpec) -> None:
    assert group.peers is not None, "a follower has a leader"
    group.peers.announce(
        {"error": f"process {group.rank}: {described(error, spec)}", "code": getattr(error, "exit_code", None)}
    )
