"""The verb `speed`: which measurement was asked for, and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.options import DATA, OUT, DataDir, Device, Json, NoMlflow, Workers
from benchmark.spec import SpecError
from benchmark.start_up import start_up

SPEED_OPTIONS = {
    "": {"model", "method", "steps", "seconds", "threads", "device"},
    "--grid": {
        "grid",
        "model",
        "method",
        "epochs",
        "workers",
        "pixels",
        "data_dir",
        "no_mlflow",
        "device",
    },
    "--start-up": {"commands"},
    "--data-path": {"batches", "model", "pixels", "data_dir", "device"},
    "--inference": {"inference", "out", "data_dir", "steps", "seconds", "device"},
}


def _measurement(context: typer.Context) -> str:
    """Which of SPEED_OPTIONS was asked for. Raises SpecError for two, and for an option that it has no use for."""
    given = {option.name: option.opts[0] for option in context.command.params if _is_given(context, option.name)}
    asked = [name for name in SPEED_OPTIONS if name in given.values()]
    if len(asked) > 1:
        raise SpecError(f"{' and '.join(asked)} are different measurements: give one")
    wanted = asked[0] if asked else ""
    useless = [option for name, option in given.items() if name not in SPEED_OPTIONS[wanted] | {"json_output"}]
    if useless:
        raise SpecError(f"{' '.join(['speed', *asked])} has no use for {', '.join(useless)}: leave it out")
    return wanted


def _is_given(context: typer.Context, name: str | None) -> bool:
    source = context.get_parameter_source(name or "")
    return source is not None and source.name == "COMMANDLINE"


def speed(
    context: typer.Context,
    model: Annotated[
        list[str],
        typer.Option(
            help="A model; repeatable. Three of MNIST by default, of --data-path lenet-300-100 and vgg16.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    method: Annotated[
        list[str],
        typer.Option(help="A method; repeatable. All by default, of --grid dense and dst.", show_default=False),
    ] = [],  # noqa: B006
    steps: Annotated[
        int, typer.Option(min=2, help="The most pairs of steps to time, for each model and method.")
    ] = 300,
    seconds: Annotated[float, typer.Option(min=0, help="About how long to time them.")] = 2.5,
    threads: Annotated[
        int, typer.Option(min=1, metavar="N", help="Of both steps, on a CPU. Cells of a suite have one.")
    ] = 1,
    grid: Annotated[bool, typer.Option("--grid", help="Time whole cells through the local launcher instead.")] = False,
    epochs: Annotated[int, typer.Option(min=1, help="--grid: of each cell.")] = 2,
    workers: Workers = None,
    pixels: Annotated[
        str,
        typer.Option("--data", help="--grid, --data-path: own, the model's data set; synthetic, made up in its size."),
    ] = "own",
    data_dir: DataDir = DATA,
    no_mlflow: NoMlflow = False,
    commands: Annotated[
        bool, typer.Option("--start-up", help="Time commands that train nothing instead, as processes.")
    ] = False,
    batches: Annotated[
        bool, typer.Option("--data-path", help="Time the batches that training draws instead: images a second.")
    ] = False,
    device: Device = "auto",
    inference: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Time a finished cell's network instead: what sparsity buys.")
    ] = None,
    out: Annotated[Path, typer.Option(help="--inference: the run folder.")] = OUT,
    json_output: Json = False,
) -> None:
    """What a step of each method costs beside a dense one, as paired ratios; or grids, starting up, data, inference."""
    wanted = _measurement(context)
    if wanted == "--start-up":
        return start_up(json_output)
    from benchmark import data_path, grid_speed  # here, as they import torch
    from benchmark import inference as deployed
    from benchmark import speed as paired

    if wanted == "--grid":
        setup = grid_speed.Setup(epochs, workers, device, data_dir, pixels, not no_mlflow)
        return grid_speed.grids(model, method, setup, json_output)
    if wanted == "--data-path":
        return data_path.data_path(model, pixels, data_dir, device, json_output)
    budget = paired.Budget(steps, seconds)
    if inference is None:
        return paired.speed(model, method, budget, device, json_output, threads=threads)
    return deployed.inference(inference, out, data_dir, budget, device, json_output)
