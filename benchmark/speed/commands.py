"""The subcommands of `speed` and their options.

Without a subcommand, steps are measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.commands.options import DATA, OUT, DataDir, Device, Json, NoMlflow, PlugInSuite, Workers
from benchmark.spec import SpecError

app = typer.Typer(
    help="Measure a step, a grid, a start, a batch or a finished network.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
Model = Annotated[
    list[str], typer.Option(help="A model; repeatable. Some of the paper's by default.", show_default=False)
]
Method = Annotated[list[str], typer.Option(help="A method; repeatable.", show_default=False)]
Steps = Annotated[int, typer.Option(min=2, help="The most pairs to time for each line of the table.")]
Seconds = Annotated[float, typer.Option(min=0, help="About how long to time them.")]
Threads = Annotated[
    int, typer.Option(min=1, metavar="N", help="Threads of both steps, on a CPU. A suite's cells have 1.")
]
Pixels = Annotated[
    str, typer.Option("--data", help="own: the model's data set. synthetic: made-up data of the same size.")
]


@app.callback()
def speed(
    context: typer.Context,
    model: Model = [],  # noqa: B006
    method: Method = [],  # noqa: B006
    steps: Steps = 300,
    seconds: Seconds = 2.5,
    threads: Threads = 1,
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """What a step of each method costs beside a dense one, as `speed steps`; or what a subcommand
    measures.
    """
    if context.invoked_subcommand is None:
        measure_steps(model, method, steps, seconds, threads, device, json_output)
    elif given := [option.opts[0] for option in context.command.params if _is_given(context, option.name)]:
        raise SpecError(f"{' '.join(given)}: give the options of speed {context.invoked_subcommand} after its name")


def _is_given(context: typer.Context, name: str | None) -> bool:
    source = context.get_parameter_source(name or "")
    return source is not None and source.name == "COMMANDLINE"


@app.command("steps")
def measure_steps(
    model: Model = [],  # noqa: B006
    method: Method = [],  # noqa: B006
    steps: Steps = 300,
    seconds: Seconds = 2.5,
    threads: Threads = 1,
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """Time a step of each method beside a dense one: paired ratios."""
    from benchmark.speed import steps as paired  # imports torch, as the others do

    paired.speed(model, method, paired.Budget(steps, seconds), device, json_output, threads=threads)


@app.command("grid")
def measure_grid(
    model: Model = [],  # noqa: B006
    method: Method = [],  # noqa: B006
    epochs: Annotated[int, typer.Option(min=1, max=100_000, help="Epochs of each cell.")] = 2,
    workers: Workers = None,
    pixels: Pixels = "own",
    data_dir: DataDir = DATA,
    no_mlflow: NoMlflow = False,
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """Time whole cells in a grid of the local launcher. Start-up and steady state are apart."""
    from benchmark.speed import grids

    setup = grids.Setup(epochs, workers, device, data_dir, pixels, not no_mlflow)
    grids.grids(model, method, setup, json_output)


@app.command("start-up")
def measure_start_up(json_output: Json = False) -> None:
    """Time commands that train nothing. Each is a process of its own."""
    from benchmark.speed.start_up import start_up

    start_up(json_output)


@app.command("data-path")
def measure_data_path(
    model: Model = [],  # noqa: B006
    pixels: Pixels = "own",
    data_dir: DataDir = DATA,
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """Count the images per second that training gets. They are gathered and augmented."""
    from benchmark.speed import batches

    batches.data_path(model, pixels, data_dir, device, json_output)


@app.command("inference")
def measure_inference(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="A finished cell, or the beginning of its id.")],
    out: Annotated[Path, typer.Option(help="The run folder.")] = OUT,
    data_dir: DataDir = DATA,
    suite: PlugInSuite = None,
    steps: Steps = 300,
    seconds: Seconds = 2.5,
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """Measure a finished cell's network in five forms. Time and bytes are reported."""
    from benchmark.speed import inference
    from benchmark.speed.steps import Budget

    inference.inference(run_id, out, data_dir, suite, Budget(steps, seconds), device, json_output)


@app.command("sparse")
def measure_sparse(
    steps: Steps = 300,
    seconds: Seconds = 2.5,
    threads: Threads = 1,
    table: Annotated[
        Path | None, typer.Option(help="Also write the layers' ratios to this CSV file.", show_default=False)
    ] = None,
    json_output: Json = False,
) -> None:
    """Time steps with kept weights only beside masked and dense ones."""
    from benchmark.speed import sparse
    from benchmark.speed.steps import Budget

    sparse.sparse(Budget(steps, seconds), threads, table, json_output)
