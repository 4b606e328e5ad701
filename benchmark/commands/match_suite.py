"""Writes the suite file of a search: the cells found, and baselines that keep exactly as many weights."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.commands.match_setting import Measured, Setting
from benchmark.run_folder.files import write_atomic
from benchmark.spec import Data, Model, Optimizer, RunSpec, SpecError, check_file_name
from methods.registry import method_class

WRITTEN_BY = "found by `python -m benchmark match`"
FILE = '''"""{title}, {written_by}."""

from __future__ import annotations

{imports}

DESCRIPTION = {title!r}
SETTING: dict[str, Any] = {{
{setting}
    "protocol": (),
}}
FOUND: dict[str, Any] = {found}
# By seed: kept weights / weights of the cell found. A method with a hyperparameter `density` keeps
# round(density * weights), so with this density it keeps exactly as many.
DENSITIES = {densities}
{baselines}

{register}
def suite() -> list[RunSpec]:
    specs = []
    for seed, density in DENSITIES.items():
        specs.append(cell({method!r}, seed=seed, **SETTING, **FOUND))
        specs += [cell(name, seed=seed, density=density, **SETTING, **given) for name, given in BASELINES.items()]
    return specs
'''
IMPORTS = """from typing import Any

from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import cell"""
REGISTER = """load_plugin({plugin})  # registers {method}

"""


def check(file: Path, setting: Setting, *, seeds: Sequence[int], baselines: Sequence[str]) -> None:
    """Raises SpecError for baselines without a density, and for a file that cannot be used.

    A file of another setting, or with other seeds or baselines, stays as it is.
    """
    for name in baselines:
        try:
            keeps = "density" in method_class(name).hyperparameter_names()
        except ValueError as error:
            raise SpecError(f"--with: {error}") from error
        if not keeps:
            raise SpecError(f"--with {name}: it has no hyperparameter 'density' that could be given a kept count")
    if file.suffix != ".py":
        raise SpecError(f"--to {file}: a suite file is named NAME.py")
    check_file_name(file.stem, "the name of the suite file")
    folder = next(folder for folder in file.absolute().parents if folder.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise SpecError(f"--to {file}: nothing can be written into {folder}")
    if file.exists() and not (file.is_file() and WRITTEN_BY in file.read_text(errors="replace").partition("\n")[0]):
        raise SpecError(f"--to {file} exists and is no file of this command: choose another name")
    if file.exists():
        text = file.read_text(errors="replace")
        known = all(part in text for part in (_lines(_setting(setting.base)), _baselines(setting, baselines) + "\n"))
        of_seeds = ", ".join(f"{seed}: [^,}}]+" for seed in seeds)
        if not known or re.search(f"^DENSITIES = {{{of_seeds}}}$", text, re.MULTILINE) is None:
            raise _other_cells(file)


def write(file: Path, setting: Setting, cells: Mapping[int, Measured], *, title: str, baselines: Sequence[str]) -> None:
    """Write the file. cells: those found, by seed, all done. Raises SpecError if it has others."""
    spec = next(iter(cells.values())).spec
    plugin, imports, register = setting.plugin, IMPORTS, ""
    if plugin is not None:
        imports = f"from pathlib import Path\n{imports}, load_plugin"
        loaded = f"Path({str(plugin)!r})" if isinstance(plugin, Path) else repr(plugin)
        register = REGISTER.format(plugin=loaded, method=spec.method["name"])
    found = {name: value for name, value in spec.method.items() if name not in ("name", "version")}
    text = FILE.format(
        title=title,
        written_by=WRITTEN_BY,
        imports=imports,
        setting=_lines(_setting(spec)),
        found=found | ({"step_records": spec.step_records} if spec.step_records else {}),
        densities={seed: cell.density for seed, cell in cells.items()},
        baselines=_baselines(setting, baselines),
        register=register,
        method=spec.method["name"],
    )
    if file.exists() and file.read_bytes() != text.encode():
        raise _other_cells(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, text.encode())


def _baselines(setting: Setting, names: Sequence[str]) -> str:
    given = {name: setting.baselines.get(name, {}) for name in names}
    return f"BASELINES: dict[str, dict[str, Any]] = {given}"


def _other_cells(file: Path) -> SpecError:
    return SpecError(f"{file} has other cells: give this search another file with --to; trained cells are kept")


def _lines(setting: Mapping[str, str]) -> str:
    return "\n".join(f'    "{name}": {text},' for name, text in setting.items())


def _setting(spec: RunSpec) -> dict[str, str]:
    """What all cells of the file share, as Python source. Fields at their default are left out."""
    parts = {name: _call(getattr(spec, name)) for name in ("data", "model", "optimizer")}
    return parts | ({"precision": repr(spec.precision)} if spec.precision != "float32" else {})


def _call(part: Data | Model | Optimizer) -> str:
    every = [field for field in dataclasses.fields(part) if getattr(part, field.name) != field.default]
    return f"{type(part).__name__}({', '.join(f'{field.name}={getattr(part, field.name)!r}' for field in every)})"
