"""The command line: what runs, and where. Nothing here decides how a cell trains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from benchmark import terminal
from benchmark.commands import data_sets, options
from benchmark.commands.check import check as check_folder
from benchmark.commands.conformance import check_methods
from benchmark.commands.doctor import doctor as diagnose
from benchmark.commands.export import export as write_export
from benchmark.commands.export_checkpoint import export_checkpoint
from benchmark.commands.list_names import list_names
from benchmark.commands.match import Request
from benchmark.commands.match import match as find_density
from benchmark.commands.new import new as write_new
from benchmark.commands.options import DATA, OUT, DataDir, DoneIn, Json, Out, Seeds, Set, Where
from benchmark.commands.plan import plan as print_plan
from benchmark.commands.run import dry_run as print_dry_run
from benchmark.commands.run import run as run_cells
from benchmark.commands.selection import Selection, resolve_device
from benchmark.commands.show import show as show_cell
from benchmark.commands.status import status as print_status
from benchmark.commands.sync import sync as sync_folder
from benchmark.data import DataError
from benchmark.launch import choice as launch
from benchmark.launch import followers, process_ranks
from benchmark.launch.base import LaunchError
from benchmark.results import FolderError
from benchmark.run_folder import storage
from benchmark.run_folder.storage import NO_ANSWER, NO_SPACE, StorageError
from benchmark.spec import SpecError
from benchmark.speed.commands import app as speed_app
from benchmark.speed.start_up import MeasurementError
from benchmark.tracking.store import TrackingError
from benchmark.training.execution import Execution, masked_layers

app = typer.Typer(
    name="python -m benchmark",
    help="Run grids of sparse-training cells and read what they measured.",
    no_args_is_help=True,
    add_completion=Path(sys.argv[0]).name == "sparse-bench",  # shells complete a program, not `python -m benchmark`
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Fetch or check a data set.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


@app.command()
def run(
    suite: options.SuiteName = "digits",
    launcher: options.Launcher = "local",
    profile: options.Profile = None,
    ray_address: options.RayAddress = None,
    detach: options.Detach = False,
    workers: options.Workers = None,
    processes_per_cell: options.ProcessesPerCell = 1,
    ranks_from: options.Ranks = "auto",
    device: options.Device = "auto",
    data_dir: DataDir = DATA,
    out: Out = OUT,
    seeds: Seeds = None,
    where: Where = [],  # noqa: B006
    changes: Set = [],  # noqa: B006
    done_in: DoneIn = [],  # noqa: B006
    retry_failed: options.RetryFailed = False,
    accept_drift: options.AcceptDrift = False,
    execution: options.MaskedLayers = "dense",
    no_mlflow: options.NoMlflow = False,
    dry_run: options.DryRun = False,
    json_output: Json = False,
) -> None:
    """Train a suite's cells, or continue where an earlier run stopped."""
    selection = Selection(suite, seeds, tuple(where), tuple(changes), tuple(done_in))
    ranks = process_ranks.find(ranks_from)
    choice = launch.Choice(
        name=launcher, workers=workers, profile=profile, ray_address=ray_address, detach=detach, ranks=ranks
    )
    how = Execution(
        out=out,
        data_dir=data_dir,
        device=device,
        accept_drift=accept_drift,
        retry_failed=retry_failed,
        masked_layers=masked_layers(execution),
    )
    shared = launch.share(how, choice, processes=processes_per_cell)
    if ranks is not None and ranks.rank > 0:
        followers.become(ranks, resolve_device(device), idle=dry_run)
    if dry_run:
        print_dry_run(selection, shared, choice, json_output=json_output)
    else:
        raise typer.Exit(run_cells(selection, shared, choice, mlflow=not no_mlflow, json_output=json_output))


@app.command()
def plan(
    suite: options.SuiteName = "digits",
    workers: options.Workers = None,
    device: options.Device = "auto",
    data_dir: Annotated[Path, typer.Option(help="As in run; a plan reads no data.")] = DATA,
    out: Out = OUT,
    seeds: Seeds = None,
    where: Where = [],  # noqa: B006
    changes: Set = [],  # noqa: B006
    done_in: DoneIn = [],  # noqa: B006
    probe: options.Probe = False,
    json_output: Json = False,
) -> None:
    """How many cells, which are done, and an estimate of the time."""
    selection = Selection(suite, seeds, tuple(where), tuple(changes), tuple(done_in))
    print_plan(selection, out, workers=workers, device=device, json_output=json_output, probe=probe)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="suites, methods, models or data.")],
    name: Annotated[
        str | None, typer.Argument(help="Only this one; of a method also its hyperparameters.", show_default=False)
    ] = None,
    suite: options.PlugInSuite = None,
    json_output: Json = False,
) -> None:
    """List suites, methods, models or data sets, plug-ins among them."""
    list_names(what, name, suite, json_output)


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="method, model or suite.")],
    name: Annotated[str, typer.Argument(help="Its name, also of its file, such as my_method.")],
    folder: Annotated[Path, typer.Option(help="Where NAME.py and test_NAME.py are written.")] = Path(),
    json_output: Json = False,
) -> None:
    """Write a method, a model or a suite of your own, and its test. Both run as they are."""
    write_new(kind, name, folder, json_output)


@app.command()
def status(out: Out = OUT, where: Where = [], json_output: Json = False) -> None:  # noqa: B006
    """How far the cells of a run folder are."""
    print_status(out, where, json_output)


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(help="A run id, or the beginning of one.")],
    out: Out = OUT,
    json_output: Json = False,
) -> None:
    """One cell: its spec, environment, attempts and measurements."""
    show_cell(run_id, out, json_output)


@app.command()
def match(
    model: options.ModelName,
    method: options.MethodName,
    density: options.Density,
    tolerance: options.Tolerance = 0.05,
    seeds: Annotated[str, typer.Option(help="The density is the mean over these seeds.")] = "0-2",
    probes: options.Probes = 8,
    baselines: options.Baselines = "",
    to: options.To = None,
    suite: options.SettingSuite = "mnist",
    launcher: options.Launcher = "local",
    profile: options.Profile = None,
    ray_address: options.RayAddress = None,
    workers: options.Workers = None,
    processes_per_cell: options.ProcessesPerCell = 1,
    device: options.Device = "auto",
    data_dir: DataDir = DATA,
    out: Out = OUT,
    where: options.SettingWhere = [],  # noqa: B006
    changes: options.SettingSet = [],  # noqa: B006
    done_in: options.ReadFrom = [],  # noqa: B006
    retry_failed: options.RetryFailed = False,
    accept_drift: options.AcceptDrift = False,
    no_mlflow: options.NoMlflow = False,
    json_output: Json = False,
) -> None:
    """Find the value of a hyperparameter that gives a chosen density. For dst, it is alpha."""
    request = Request(
        suite=suite, model=model, method=method, density=density, tolerance=tolerance, seeds=seeds, probes=probes,
        where=tuple(where), changes=tuple(changes), done_in=tuple(done_in),
        baselines=tuple(baselines.split(",")) if baselines else (), to=to,
    )  # fmt: skip
    choice = launch.Choice(name=launcher, workers=workers, profile=profile, ray_address=ray_address)
    how = Execution(out=out, data_dir=data_dir, device=device, accept_drift=accept_drift, retry_failed=retry_failed)
    execution = launch.share(how, choice, processes=processes_per_cell)
    raise typer.Exit(find_density(request, execution, choice, mlflow=not no_mlflow, json_output=json_output))


@app.command()
def sync(
    out: Out = OUT,
    patience: Annotated[
        float, typer.Option(min=1, max=86_400, metavar="SECONDS", help="How long to wait for one answer.")
    ] = 60,
    json_output: Json = False,
) -> None:
    """Bring MLflow up to date with a run folder. Running it twice changes nothing."""
    sync_folder(out, patience, json_output)


@app.command()
def export(
    out: Out = OUT,
    source: Annotated[str, typer.Option("--from", help="folders, or mlflow: only from MLflow.")] = "folders",
    to: Annotated[Path | None, typer.Option(help="Add the rows to the tables in this folder.")] = None,
    where: Where = [],  # noqa: B006
    checkpoint: options.Checkpoint = None,
    data_dir: DataDir = DATA,
    suite: options.PlugInSuite = None,
    json_output: Json = False,
) -> None:
    """Write the tables again, from the run folder or from MLflow.

    With --checkpoint, write the network of a finished cell into a new folder.
    """
    if checkpoint is None:
        if suite is not None:
            raise SpecError("--suite is an option of --checkpoint: it loads the plug-ins of that cell")
        write_export(out, source, to, where, json_output)
    else:
        if source != "folders" or where or to is None:
            raise SpecError("--checkpoint takes --to DIR, a new folder, and neither --from nor --where")
        export_checkpoint(checkpoint, out, data_dir, to, suite, json_output)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What was sent: tables, or a run folder.")],
    beside: options.Beside = [],  # noqa: B006
    json_output: Json = False,
) -> None:
    """Check results that somebody sent.

    Reads their schema, hashes and suites, whether they are plausible, and the same cells in ours.
    """
    raise typer.Exit(check_folder(folder, beside, json_output))


@data_app.command()
def fetch(name: str, data_dir: DataDir = DATA, suite: options.PlugInSuite = None, json_output: Json = False) -> None:
    """Download a data set and check it."""
    data_sets.fetch(name, data_dir, suite, json_output)


@data_app.command()
def verify(name: str, data_dir: DataDir = DATA, suite: options.PlugInSuite = None, json_output: Json = False) -> None:
    """Check a data set's files against their checksums."""
    data_sets.verify(name, data_dir, suite, json_output)


@app.command()
def doctor(
    out: Out = OUT,
    data_dir: DataDir = DATA,
    method: options.CheckedMethod = None,
    level: options.Level = "fast",
    to: options.ConformanceTo = None,
    json_output: Json = False,
) -> None:
    """Report what this machine has, and what a run would miss.

    With --method, check whether a method keeps its promises.
    """
    if method is not None:
        raise typer.Exit(check_methods(method, level, to, json_output))
    raise typer.Exit(diagnose(out, data_dir, json_output))


app.add_typer(speed_app, name="speed")


def main() -> NoReturn:
    """Entry point: a user's mistake is one line on standard error and the documented exit code."""
    sys.exit(terminal.call(app, explain))


def explain(error: Exception) -> tuple[str, int]:
    """The message and the exit code for an error of the user or the machine; raises any other again."""
    if isinstance(error, (SpecError, FolderError, LaunchError)):
        return str(error), 2
    if isinstance(error, DataError):
        return str(error), 3
    if isinstance(error, (StorageError, TrackingError, MeasurementError)):
        return str(error), 1
    if isinstance(error, OSError) and (error.filename is not None or error.errno in (*NO_SPACE, *NO_ANSWER)):
        return storage.explain(error)
    raise error
