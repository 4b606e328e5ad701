"""`doctor --method`: the promises of methods, checked on small networks, and the table of all methods."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from rich.table import Table

import methods
from benchmark import results, suites
from benchmark.commands import published
from benchmark.commands.output import console, emit, say, show
from benchmark.spec import SpecError, check_names, nearest, unknown
from benchmark.training import checkout, environment

if TYPE_CHECKING:
    from methods import Method
    from methods.conformance import Finding

FILE = "conformance.csv"
ABOUT = ("method", "version")
MADE = ("commit", "torch", "machine")
WORST_LAST = ("not applicable", "kept", "broken")
Findings = Sequence["Finding"]


def check_methods(wanted: str, level: str, to: Path | None, json_output: bool) -> int:
    """Check the promises of methods and print the findings; the exit code, 1 if one is broken.

    wanted: a name, `all`, or FILE.py[:Class]. to: a folder whose conformance.csv gets one row per
    method. Raises SpecError for an unknown name, for a file without a method, and where `to` has
    somebody else's file of that name.
    """
    check_names([level], ("fast", "full"), "--level")
    if to is not None and level != "full":
        raise SpecError("--to adds rows of all checks: use it with --level full")
    if to is not None:
        _earlier(to / FILE)  # before the checks, which take minutes
    screen = console(json_output=json_output)
    found: dict[str, Findings] = {}
    rows = []
    for name, method in _wanted(wanted).items():
        found[name] = methods.conformance.examine(method, cast(Literal["fast", "full"], level))
        for finding in found[name]:
            if finding.result == "broken":
                say(screen, f"{name} breaks a promise: {finding.line}")
        if to is not None:
            rows.append(row(name, method, found[name]))
            add(rows[-1:], to)
    code = 1 if any(finding.result == "broken" for each in found.values() for finding in each) else 0
    if json_output:
        emit({"level": level, "methods": {n: [vars(f) for f in each] for n, each in found.items()}, "exit_code": code})
    else:
        show(screen, _one(*found.values()) if len(found) == 1 else _several(found))
    return code


def _wanted(wanted: str) -> Mapping[str, str | type[Method]]:
    if found := re.fullmatch(r"(.+\.py)(?::(.+))?", wanted):
        return _of_file(Path(found[1]), found[2] or "")
    known = methods.available()
    if wanted == "all":
        return {each: each for each in known}
    if wanted not in known:
        raise unknown("method", wanted, [*known, "all"], form="FILE.py or FILE.py:Class")
    return {wanted: wanted}


def _of_file(file: Path, name: str) -> dict[str, str | type[Method]]:
    """The named class of a file, or all methods that it defines except base classes of others."""
    module = suites.load_file(file.resolve(), defines_suite=False)
    own = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, methods.Method) and value.__module__ == module.__name__
    }
    if not own:
        raise SpecError(f"{file} defines no method: no subclass of methods.Method")
    if name and name not in own:
        hint = nearest(name, own)
        raise SpecError(f"{file} defines no method class '{name}': {hint}; give FILE.py:Class, or FILE.py for all")
    inherited = {base for value in own.values() for base in value.__mro__[1:]}
    whole = {key for key, value in own.items() if hasattr(value, "name") or value not in inherited}
    return {key: value for key, value in own.items() if key == name or (not name and key in whole)}


def columns() -> list[str]:
    """The columns of conformance.csv: the method, each check of level full, the environment."""
    return [*ABOUT, *map(_column, methods.conformance.check_names("full")), *MADE]


def _column(check: str) -> str:
    return check.removeprefix("check_")


def row(name: str, method: str | type[Method], findings: Findings) -> dict[str, Any]:
    """The worst result of each check over the networks; empty for checks that could not run."""
    from methods.registry import method_class

    cls = method_class(method) if isinstance(method, str) else method
    source = checkout.commit()
    worst = {_column(check): result for check, result, _ in _by_check(findings)}
    return {
        "method": name,
        "version": getattr(cls, "version", ""),
        **worst,
        "commit": f"{source['commit']}{'-dirty' if source['dirty'] else ''}",
        "torch": importlib.metadata.version("torch"),
        "machine": environment.cpu_name(),
    }


def _by_check(findings: Findings) -> Iterator[tuple[str, str, str]]:
    """Each check with its worst result, in the order of WORST_LAST, and the reason."""
    for check in dict.fromkeys(finding.check for finding in findings):
        mine = [finding for finding in findings if finding.check == check]
        worst = max(mine, key=lambda finding: WORST_LAST.index(finding.result))
        on = f"on {worst.network}: " if worst.network and worst.result == "broken" else ""
        yield check, worst.result, on + worst.text


def add(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write rows into the folder's conformance.csv, in place of earlier rows of the same methods.

    Raises SpecError, and writes nothing, if that file is no such table.
    """
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    new = {row["method"] for row in rows}
    table = [*(old for old in _earlier(path) if old["method"] not in new), *rows]
    table.sort(key=lambda each: str(each["method"]))
    results.write_csv(path, columns(), [{name: each.get(name, "") for name in columns()} for each in table])


def _earlier(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a conformance.csv, which may lack the checks that came later; none where there is no file.

    Raises SpecError for any other file.
    """
    if not path.exists():
        return []
    try:
        return list(published.rows(path, columns(), needed=[*ABOUT, *MADE]))
    except SpecError as error:
        raise SpecError(f"{error}; move it away, or choose another folder for --to") from error


def _one(findings: Findings) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("promise", "result", ""):
        table.add_column(name, no_wrap=name != "", overflow="fold")
    for check, result, why in _by_check(findings):
        table.add_row(_column(check), result, why)
    return table


def _several(found: Mapping[str, Findings]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for name in ("kept", "not applicable", "broken"):
        table.add_column(name, justify="right")
    for method, findings in found.items():
        worst = [result for _, result, _ in _by_check(findings)]
        table.add_row(method, *(str(worst.count(name)) for name in ("kept", "not applicable", "broken")))
    return table
