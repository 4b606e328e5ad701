"""`new`: a file for a method, a model or a suite of the user's own, and its test."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
import sys
from pathlib import Path

import methods
from benchmark import models, suites
from benchmark.commands.output import emit
from benchmark.spec import SpecError, check_names

TEMPLATES = Path(__file__).with_name("templates")
TAKEN = {"method": methods.available, "model": models.available, "suite": suites.available}


def new(kind: str, name: str, folder: Path, json_output: bool) -> None:
    """Write NAME.py and test_NAME.py into the folder, and print how to run them.

    kind: method, model or suite. Raises SpecError for a name that is taken or cannot name a module,
    and if one of the files exists.
    """
    check_names([kind], TAKEN, "kind")
    _check_name(kind, name)
    files = {folder / f"{name}.py": f"{kind}.py", folder / f"test_{name}.py": f"{kind}_test.py"}
    for path in files:
        if path.exists() or path.is_symlink():
            raise SpecError(f"{path} is there already: choose another name or --folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path, template in files.items():
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        with path.open("x", encoding="utf-8") as opened:
            opened.write(text.replace("my_name", name).replace("MyName", _class_name(name)))
    file, test = (shlex.quote(str(path)) for path in files)
    commands = [f"python -m pytest {test}", f"python -m benchmark run --suite {file}"]
    if json_output:
        emit({"kind": kind, "name": name, "files": [str(path) for path in files], "commands": commands})
        return
    print(f"wrote {file} and {test}; next:")
    print("\n".join(f"  {command}" for command in commands))


def _check_name(kind: str, name: str) -> None:
    if not name.isidentifier() or not name.isascii() or name.startswith("_") or keyword.iskeyword(name):
        raise SpecError(f"{name!r:.120} is no name of a Python module: use letters, digits and _, such as my_{kind}")
    if name in TAKEN[kind]():
        raise SpecError(f"there is a {kind} '{name}' already: choose another name")
    found = importlib.util.find_spec(name)
    if name in sys.stdlib_module_names or found is not None:
        where = f"; it is in {found.origin}" if found is not None and found.has_location else ""
        raise SpecError(f"there is a module '{name}' already, which the file would hide: choose another name{where}")
    if re.search(rf"\b{_class_name(name)}\b", (TEMPLATES / f"{kind}.py").read_text(encoding="utf-8")):
        raise SpecError(f"the class of '{name}' would be {_class_name(name)}, which the file uses: choose another name")


def _class_name(name: str) -> str:
    """MyName of my_name."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))
