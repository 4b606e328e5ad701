"""`export --checkpoint`: a finished cell's network as a folder that can be published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import models, results, suites
from benchmark.commands.output import emit
from benchmark.commands.selection import resolve_device
from benchmark.commands.show import find_cell
from benchmark.data import describe
from benchmark.results import Member, Row
from benchmark.spec import SpecError
from benchmark.terminal import say

if TYPE_CHECKING:
    from benchmark.training.loop import Training
    from methods import Card

EXAMPLES = 8  # test images that network.py and model.onnx are checked with
MEASURED = (
    ("test accuracy, last epoch", "test_accuracy", "{:.2f} %"),
    ("top-5 test accuracy, last epoch", "test_top5_accuracy", "{:.2f} %"),
    ("best test accuracy of any epoch (selected on the test set)", "best_test_accuracy", "{:.2f} %"),
    ("density: weights that the masks keep", "density", "{:.4f} %"),
    ("nonzero density", "nonzero_density", "{:.4f} %"),
    ("parameters remaining", "parameters_remaining", "{:.0f}"),
    ("FLOPs of a forward pass", "inference_flops", "{:.0f}"),
)


def export_checkpoint(run_id: str, out: Path, data_dir: Path, to: Path, suite: str | None, json_output: bool) -> None:
    """Write the network of a finished cell into the new folder `to` (`methods.save`).

    suite: what registers the cell's plug-ins. Raises SpecError for a cell that is unknown or not
    done, whose last checkpoint is gone or damaged, and where `to` cannot be used; DataError where
    the cell's data set is missing, which its training needs to be set up.
    """
    member = find_cell(run_id, out, suite)
    from benchmark.training.execution import Execution  # these import torch
    from benchmark.training.finished import trained
    from methods.release import files

    try:
        files.library()
        files.check_free(to)
    except ValueError as error:
        raise SpecError(str(error)) from error
    training, _ = trained(member.spec, Execution(out=out, data_dir=data_dir, device=resolve_device("auto")))
    left_out = _save(training, to, _card(member, results.row(out, member), _inputs(training)))
    names = sorted(path.name for path in to.iterdir())
    if json_output:
        emit({"run_id": member.spec.run_id, "to": str(to), "files": names, "left_out": left_out})
        return
    say(f"{to}: {', '.join(names)}; cell {member.spec.run_id}, {member.spec.label}")
    for name, why in left_out.items():
        say(f"{name} is left out: {why}")


def _save(training: Training, to: Path, card: Card) -> dict[str, str]:
    import methods
    from benchmark.training.measure import plain_copy

    spec, data = training.spec, training.data
    example, _ = next(iter(data.test_batches(EXAMPLES)))
    batch_size = spec.optimizer.batch_size
    try:
        return methods.save(
            plain_copy(training.model),
            to,
            masks=training.attached.masks(),
            example=example,
            network=models.describe_network(
                spec.model, in_shape=data.in_shape, classes=data.classes, batch_size=batch_size
            ),
            card=card,
        )
    except ValueError as error:
        raise SpecError(str(error)) from error


def _inputs(training: Training) -> str:
    """What the network takes: shape and scale of the inputs, and what the images are."""
    data, name = training.data, training.spec.data.name
    text = f"The network takes float32 [n, {', '.join(map(str, data.in_shape))}]"
    mean, deviation = (_written(getattr(data, moment, None)) for moment in ("mean", "std"))
    if mean and deviation:  # a plug-in's data may have none
        text += ": pixels divided by 255"
        if set(mean) != {"0"} or set(deviation) != {"1"}:
            text += f", minus {', '.join(mean)}, divided by {', '.join(deviation)} (by channel)"
    known = describe().get(name)
    return f"{text}. It returns {data.classes} logits." + (f" `{name}`: {known}." if known else "")


def _written(values: Any) -> list[str]:
    return [] if values is None else [f"{value:.6g}" for value in values.tolist()]


def _card(member: Member, row: Row, inputs: str) -> Card:
    from methods import Card

    spec, name = member.spec, member.spec.data.name
    accuracy = {
        "type": "accuracy",
        "name": "test accuracy, last epoch, in percent",
        "value": round(row["test_accuracy"], 2),
    }
    task = {"type": "image-classification"}
    index = {"task": task, "dataset": {"type": name, "name": name}, "metrics": [accuracy]}
    head = {
        "tags": ["sparse-training", "pruning", str(spec.method["name"])],
        "datasets": [name],
        "metrics": ["accuracy"],
        "pipeline_tag": "image-classification",
        "model-index": [{"name": spec.label, "results": [index]}],
    }
    return Card(title=f"{spec.label} on {name}", head=head, text=_text(member, row, inputs))


def _text(member: Member, row: Row, inputs: str) -> str:
    from methods.release.card import table

    spec = member.spec
    measured = [[what, _value(row, name, form)] for what, name, form in MEASURED]
    about = {
        "cell": spec.run_id,
        "suites": ", ".join(member.suites),
        "departs from its suites in": row["departs"],
        "commit": row["commit"],
        "trained on": row["device"],
    }
    lines = [
        f"`{spec.model.name}`, trained on `{spec.data.name}` with the sparse-training method `{spec.method['name']}` "
        "by `sparse-training-bench`. Its pruned weights are 0.",
        inputs,
        table(["measured", "value"], measured),
        "## Training",
        table(["about", "value"], [[name, f"`{value}`"] for name, value in about.items() if value]),
        f"The cell's spec:\n\n```json\n{json.dumps(spec.to_dict(), indent=1, sort_keys=True)}\n```",
    ]
    if (suite := _own_suite(member)) and not row["departs"]:
        command = f"python -m benchmark run --suite {suite} --seeds {spec.seed} --where run_id={spec.run_id}"
        lines.append(f"This command trains it again:\n\n```\n{command}\n```")
    return "\n\n".join(lines)


def _own_suite(member: Member) -> str:
    """The first suite of this package that has the cell at its seed; empty if only others do."""
    spec = member.spec
    for name in [name for name in member.suites if name in suites.NAMES]:  # a file may have such a name too
        if any(one.run_id == spec.run_id for one in suites.with_seeds(suites.load(name).specs, [spec.seed])):
            return name
    return ""


def _value(row: Mapping[str, Any], name: str, form: str) -> str:
    value = 100 * row[name] if name in ("density", "nonzero_density") else row[name]
    return form.format(value) if isinstance(value, (int, float)) else "not measured"
