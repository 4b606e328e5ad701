"""Options that several commands share, as typer's annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark import suites
from benchmark.launch import choice

SuiteName = Annotated[
    str,
    typer.Option(
        "--suite", help="A suite's name, or a FILE.py of your own.", autocompletion=lambda: suites.available()
    ),
]
PlugInSuite = Annotated[
    str | None, typer.Option("--suite", help="A FILE.py, or an installed suite, whose plug-ins are loaded first.")
]
Out = Annotated[Path, typer.Option(help="The run folder.")]
DataDir = Annotated[Path, typer.Option(help="Where data sets lie.")]
Where = Annotated[list[str], typer.Option(metavar="FIELD=v,w", help="Only these cells; repeatable.")]
Set = Annotated[
    list[str], typer.Option("--set", metavar="FIELD=VALUE", help="Changes the specs, so new cells; repeatable.")
]
DoneIn = Annotated[
    list[Path],
    typer.Option("--done-in", metavar="PATH", help="Skip cells that these results tables have done; repeatable."),
]
Seeds = Annotated[str | None, typer.Option(help="Seeds in place of the suite's, such as 0-4 or 0,2.")]
Workers = Annotated[int | None, typer.Option(min=1, max=1024, help="Worker processes; by default one per core or GPU.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", autocompletion=lambda: ["auto", "cpu", "cuda"])]
NoMlflow = Annotated[bool, typer.Option("--no-mlflow", envvar="BENCH_NO_MLFLOW", help="Mirror nothing to MLflow.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Launcher = Annotated[
    str, typer.Option(help="Where cells execute: local, ray or slurm.", autocompletion=lambda: list(choice.NAMES))
]
Profile = Annotated[Path | None, typer.Option(help="slurm: the cluster's profile, a FILE.toml.")]
RayAddress = Annotated[str | None, typer.Option(help="ray: a running cluster's address; local without.")]
Detach = Annotated[bool, typer.Option(help="slurm: return once the jobs are submitted.")]
ProcessesPerCell = Annotated[
    int, typer.Option(min=1, max=1024, metavar="N", help="Processes that train one cell together, on N GPUs.")
]
Ranks = Annotated[
    str, typer.Option("--ranks", help="auto: of torchrun, if any. slurm: srun's tasks train each cell together.")
]
RetryFailed = Annotated[bool, typer.Option(help="Run failed cells once more.")]
MaskedLayers = Annotated[
    str,
    typer.Option(
        "--execution",
        help="How masked layers compute on a CPU: dense; sparse, with only their kept weights; auto, where it pays.",
        autocompletion=lambda: ["dense", "sparse", "auto"],
    ),
]
AcceptDrift = Annotated[bool, typer.Option(help="Resume in a changed environment; the rows say so.")]
DryRun = Annotated[bool, typer.Option(help="Say what would run, and run nothing.")]
Probe = Annotated[bool, typer.Option("--probe", help="Time a few steps of each kind of cell that never finished here.")]
ModelName = Annotated[str, typer.Option("--model", help="The model.")]
MethodName = Annotated[str, typer.Option("--method", help="The method.")]
Density = Annotated[float, typer.Option("--density", help="The share of weights to keep, such as 0.05.")]
Tolerance = Annotated[float, typer.Option(help="How far the density may be off, as a share of it.")]
Probes = Annotated[int, typer.Option(min=0, max=100, help="Values to train at most; 0 only reads finished cells.")]
Baselines = Annotated[
    str, typer.Option("--with", metavar="METHOD,…", help="Baselines of equal kept counts, for the suite file.")
]
SettingSuite = Annotated[
    str,
    typer.Option("--suite", help="Whose cells give the setting: data, optimizer and the rest. A name or a FILE.py."),
]
SettingWhere = Annotated[
    list[str],
    typer.Option(
        "--where", metavar="FIELD=v,w", help="Which of the suite's cells the setting is taken from; repeatable."
    ),
]
SettingSet = Annotated[
    list[str], typer.Option("--set", metavar="FIELD=VALUE", help="Changes the setting, so new cells; repeatable.")
]
ReadFrom = Annotated[
    list[Path],
    typer.Option(
        "--done-in",
        metavar="PATH",
        help="Read finished cells from these results tables too, and train none of them again; repeatable.",
    ),
]
To = Annotated[Path | None, typer.Option("--to", metavar="FILE.py", help="The suite file; by default in --out.")]
OUT, DATA = Path("runs"), Path("data")
CheckedMethod = Annotated[
    str | None,
    typer.Option("--method", metavar="NAME|FILE.py[:Class]|all", help="Check that a method keeps its promises."),
]
Level = Annotated[str, typer.Option(help="With --method: fast, or full, which needs a compiler and takes minutes.")]
Checkpoint = Annotated[
    str | None,
    typer.Option("--checkpoint", metavar="RUN_ID", help="Write this finished cell's network into the new folder --to."),
]
ConformanceTo = Annotated[
    Path | None, typer.Option("--to", metavar="FOLDER", help="With --method: write rows into its conformance.csv.")
]
Beside = Annotated[
    list[Path],
    typer.Option(metavar="PATH", help="Our tables, by default paper_figures/results if it exists; repeatable."),
]
