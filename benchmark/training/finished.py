"""A finished cell's training, from its last checkpoint."""

from __future__ import annotations

import sys
from typing import Any

from benchmark import results
from benchmark.messages import printable
from benchmark.run_folder import checkpoint
from benchmark.run_folder.attempts import folder_of, numbers
from benchmark.run_folder.result import result_of
from benchmark.spec import RunSpec, SpecError
from benchmark.training.engine import Engine
from benchmark.training.execution import Execution
from benchmark.training.loop import Training, digest
from benchmark.training.prepare import prepare_training
from benchmark.training.process_group import Group


def _warn(text: str) -> None:
    print(f"warning: {printable(text)}", file=sys.stderr)


def trained(spec: RunSpec, execution: Execution) -> tuple[Training, dict[str, Any]]:
    """A done cell's training as it ended, and its result.

    Raises SpecError if the cell is not done, or its last state is no longer there.
    """
    cell = execution.cell(spec.run_id)
    result = result_of(cell)
    status = result["status"] if result else results.unfinished(cell)[0]
    if result is None or status != "done":
        raise SpecError(
            f"cell {spec.run_id} is {status}: only a network that is trained to its end can be measured or exported"
        )
    folders = [folder_of(cell, number) for number in numbers(cell)]
    found = checkpoint.latest(folders, run_id=spec.run_id, warn=_warn)
    if found is None:
        raise SpecError(f"cell {spec.run_id} has no good checkpoint left in {cell}: delete that folder and run again")
    training = prepare_training(spec, execution, Group(), Engine(spec, execution.device, execution.masked_layers))
    training.load_state_dict(found.state)
    state = digest(training.model, found.state["optimizer"], found.state["attached"])  # as its execution wrote it
    if state != result.get("state_sha256"):
        raise SpecError(f"cell {spec.run_id}: its checkpoint is not its last state: delete {cell} and run again")
    return training, result
