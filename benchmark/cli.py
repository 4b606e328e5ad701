"""The command line: what and where; nothing here decides how a cell trains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from benchmark import launch, ranks, verbs, views
from benchmark.doctor import doctor as diagnose
from benchmark.files import NO_SPACE, DiskFullError
from benchmark.launch import followers
from benchmark.launch.base import LaunchError
from benchmark.mlflow_store import TrackingError
from benchmark.options import (
    DATA,
    OUT,
    DataDir,
    Device,
    Json,
    NoMlflow,
    Out,
    Seeds,
    Set,
    SuiteName,
    Where,
    Workers,
)
from benchmark.results import FolderError
from benchmark.selection import Selection, resolve_device
from benchmark.spec import SpecError
from benchmark.speed_cli import speed
from benchmark.start_up import MeasurementError

app = typer.Typer(
    name="python -m benchmark",
    help="Run grids of sparse-training cells and read what they measured.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Fetch or check a data set.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")


@app.command()
def run(
    suite: SuiteName = "digits",
    launcher: Annotated[str, typer.Option(help="Where cells execute: local, ray or slurm.")] = "local",
    profile: Annotated[Path | None, typer.Option(help="slurm: the cluster's profile, a FILE.toml.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="ray: a running cluster's address; local without.")] = None,
    detach: Annotated[bool, typer.Option(help="slurm: return once the jobs are submitted.")] = False,
    workers: Workers = None,
    processes_per_cell: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes that train one cell together, on N GPUs.")
    ] = 1,
    ranks_from: Annotated[
        str, typer.Option("--ranks", help="auto: of torchrun, if any. slurm: srun's tasks train each cell together.")
    ] = "auto",
    device: Device = "auto",
    data_dir: DataDir = DATA,
    out: Out = OUT,
    seeds: Seeds = None,
    where: Where = [],  # noqa: B006
    changes: Set = [],  # noqa: B006
    retry_failed: Annotated[bool, typer.Option(help="Run failed cells once more.")] = False,
    accept_drift: Annotated[bool, typer.Option(help="Resume in a changed environment; the rows say so.")] = False,
    no_mlflow: NoMlflow = False,
    dry_run: Annotated[bool, typer.Option(help="Say what would run, and run nothing.")] = False,
    json_output: Json = False,
) -> None:
    """Train a suite's cells; the same command again goes on where it stopped."""
    selection = Selection(suite, seeds, tuple(where), tuple(changes))
    found = ranks.find(ranks_from)
    if found is not None and processes_per_cell not in (1, found.size):
        raise SpecError(f"--processes-per-cell {processes_per_cell}: {found.size} processes were started already")
    choice = launch.Choice(
        name=launcher,
        workers=workers,
        profile=profile,
        ray_address=ray_address,
        detach=detach,
        processes=found.size if found else processes_per_cell,
        ranks=found,
    )
    launch.check(choice)
    if choice.ranks is not None and choice.ranks.rank > 0:
        followers.become(choice.ranks, resolve_device(device), idle=dry_run)
    grid = verbs.Grid(out, data_dir, device, choice, retry_failed, accept_drift, mlflow=not no_mlflow)
    if dry_run:
        script = verbs.sbatch_script(selection, grid) if launcher == "slurm" else None
        verbs.plan(selection, out, workers, "cpu", json_output, retry_failed=retry_failed, script=script)
        return
    raise typer.Exit(verbs.run(selection, grid, json_output))


@app.command()
def plan(
    suite: SuiteName = "digits",
    workers: Workers = None,
    device: Device = "auto",
    data_dir: Annotated[Path, typer.Option(help="As of run; a plan reads no data.")] = DATA,
    out: Out = OUT,
    seeds: Seeds = None,
    where: Where = [],  # noqa: B006
    changes: Set = [],  # noqa: B006
    json_output: Json = False,
) -> None:
    """How many cells, which are done, and an estimate of the time."""
    verbs.plan(Selection(suite, seeds, tuple(where), tuple(changes)), out, workers, device, json_output)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="suites, methods, models or data.")], json_output: Json = False
) -> None:
    """What there is by name: suites, methods, models or data."""
    views.list_names(what, json_output)


@app.command()
def status(out: Out = OUT, where: Where = [], json_output: Json = False) -> None:  # noqa: B006
    """How far the cells of a run folder are."""
    views.status(out, where, json_output)


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(help="A run id, or the beginning of one.")],
    out: Out = OUT,
    json_output: Json = False,
) -> None:
    """One cell: its spec, environment, attempts and measurements."""
    views.show(run_id, out, json_output)


@app.command()
def sync(
    out: Out = OUT,
    patience: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long to wait for one answer.")] = 60,
    json_output: Json = False,
) -> None:
    """Bring MLflow up to date with a run folder; twice changes nothing."""
    views.sync(out, patience, json_output)


@app.command()
def export(
    out: Out = OUT,
    source: Annotated[str, typer.Option("--from", help="folders, or mlflow: from MLflow alone.")] = "folders",
    to: Annotated[Path | None, typer.Option(help="Write them here, not into the run folder.")] = None,
    where: Where = [],  # noqa: B006
    json_output: Json = False,
) -> None:
    """Write the tables anew, from the run folder or from its MLflow mirror."""
    views.export(out, source, to, where, json_output)


@data_app.command()
def fetch(name: str, data_dir: DataDir = DATA, json_output: Json = False) -> None:
    """Download a data set and check it."""
    views.data_fetch(name, data_dir, json_output)


@data_app.command()
def verify(name: str, data_dir: DataDir = DATA, json_output: Json = False) -> None:
    """Check a data set's files against their checksums."""
    views.data_verify(name, data_dir, json_output)


@app.command()
def doctor(out: Out = OUT, data_dir: DataDir = DATA, json_output: Json = False) -> None:
    """What this machine has, and what a run would miss."""
    raise typer.Exit(diagnose(out, data_dir, json_output))


app.command()(speed)


def main() -> NoReturn:
    """Entry point: a user's mistake is one line on standard error and the documented exit code."""
    from benchmark.data import DataError

    try:
        app()
    except (SpecError, FolderError, LaunchError) as error:
        _fail(str(error), 2)
    except DataError as error:
        _fail(str(error), 3)
    except (DiskFullError, TrackingError, MeasurementError) as error:
        _fail(str(error), 1)
    except OSError as error:
        if error.errno in NO_SPACE:
            _fail(str(DiskFullError(error.filename)), 1)
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}", 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    if "--json" in sys.argv:
        views.emit({"error": message, "exit_code": code})
    sys.exit(code)
