"""Options that several commands share, as typer's annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SuiteName = Annotated[str, typer.Option("--suite", help="A suite's name, or a FILE.py of your own.")]
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
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
NoMlflow = Annotated[bool, typer.Option("--no-mlflow", envvar="BENCH_NO_MLFLOW", help="Mirror nothing to MLflow.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
OUT, DATA = Path("runs"), Path("data")
