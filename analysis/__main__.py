"""The command line of the analysis: which tables, and where the exhibits go."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from benchmark import terminal
from benchmark.run_folder import storage

if TYPE_CHECKING:
    from analysis.output.exhibit import Written

app = typer.Typer(
    name="python -m analysis",
    help="Rebuild the paper's tables and figures from results tables, and compare results tables.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
DEFAULT_RESULTS = (Path("paper_figures/results"), Path("runs"))
OUT = Path("paper_figures")


@app.callback()
def commands() -> None:
    """Rebuild the paper's tables and figures from results tables."""


@app.command()
def build(
    paths: Annotated[
        list[Path], typer.Argument(metavar="[PATH]...", help="The same as --results.", show_default=False)
    ] = [],  # noqa: B006
    results: Annotated[
        list[Path],
        typer.Option(
            metavar="PATH", help="A results table, or a folder that holds some; repeatable.", show_default=False
        ),
    ] = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="Where the exhibits are written.")] = OUT,
    only: Annotated[
        list[str], typer.Option(metavar="NAME,…", help="Only these exhibits; repeatable.", show_default=False)
    ] = [],  # noqa: B006
) -> None:
    """Write every exhibit. Tables are md, tex and csv; figures are pdf, png, svg and csv.

    Without --only, also write index.html, with all of them on one page, and manifest.json.
    The default of --results is paper_figures/results, and runs if it exists.
    """
    from analysis.build import build as build_exhibits
    from analysis.data.read import InputError, load

    found = _default_results([*results, *paths])
    names = [name.strip() for listed in only for name in listed.split(",") if name.strip()]
    if only and not names:
        raise InputError("--only names no exhibit: write --only table1,figure4")
    _print_exhibits(build_exhibits(load(found), out, only=names), out, each=bool(names))
    page = "left as they are, --only" if names else "every exhibit on one page, and hashes of the rows behind each"
    print(f"{out}/index.html, {out}/manifest.json: {page}")
    if out == OUT and (OUT / "results").exists():
        sources = ", ".join(map(str, found))
        print(f"{out} holds the published exhibits, which were now rebuilt from {sources}.", end=" ")
        print("git diff --stat shows what changed; --out DIR writes to another folder")


def _print_exhibits(made: Sequence[Written], out: Path, *, each: bool) -> None:
    """A line for each exhibit; without `each`, those that no run fills share one."""
    empty = [] if each else [written for written in made if written.is_empty]
    for written in (written for written in made if written not in empty):
        kinds = ",".join(path.suffix.removeprefix(".") for path in written.files)
        where = f"{out / written.name}.{{{kinds}}}" if written.files else "not written"
        terminal.say(f"{written.name}: {where}{f' ({written.remark})' if written.remark else ''}")
    if empty:
        terminal.say(f"without runs: {', '.join(written.name for written in empty)}")


@app.command()
def publish(
    to: Annotated[Path, typer.Option(help="The folder that is written.", show_default=False)],
    results: Annotated[
        list[Path],
        typer.Option(metavar="PATH", help="As in build; repeatable.", show_default=False),
    ] = [],  # noqa: B006
) -> None:
    """Write a folder for a data hub or an archive.

    It holds tables, exhibits, their page, a data-set card and checksums.
    --to is a new or empty folder, or an earlier publication, which is replaced.
    """
    from analysis.data.read import load
    from analysis.publish import publish as publish_folder

    files = publish_folder(load(_default_results(results)), to)
    print(f"{to}: {len(files)} files; to check them: cd {shlex.quote(str(to))} && sha256sum -c SHA256SUMS")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A results table, or a folder that holds some.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="What is compared with it.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Show what changed from A to B.

    Compares cells, statuses, numbers, machines and commits. The exit code is 0.
    """
    from analysis import compare as comparison
    from analysis.data.read import load

    found, counted = comparison.compare(load([a]), load([b]))
    if as_json:
        terminal.document_stream().write(comparison.document(found, counted))
    else:
        terminal.say(comparison.text(found, counted), end="")


def _default_results(given: list[Path]) -> list[Path]:
    """The paths of --results; without them, the committed tables and the default run folder."""
    return given or [path for path in DEFAULT_RESULTS if path.exists()] or [DEFAULT_RESULTS[0]]


def main() -> NoReturn:
    """Entry point. A user's mistake is one line on standard error and code 2; a full disk is code 1."""
    sys.exit(terminal.call(app, explain))


def explain(error: Exception) -> tuple[str, int]:
    """The message and the exit code for an error; raises it again if it is none of the user's or the machine's."""
    from analysis.data.read import InputError

    if isinstance(error, OSError):
        return storage.explain(error)
    if isinstance(error, UnicodeEncodeError):
        return "a path has characters that the encoding of this locale lacks: set PYTHONUTF8=1", 2
    if isinstance(error, InputError):
        return str(error), 2
    raise error


if __name__ == "__main__":
    main()
