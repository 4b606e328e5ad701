"""Files of the user's own: suites, and the methods that they register."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from benchmark.spec import SpecError


def load_file(path: Path) -> ModuleType:
    """Import a user's suite file; what it registers is registered. Raises SpecError naming the file."""
    spec = importlib.util.spec_from_file_location(f"user_suite_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SpecError(f"suite file {path} does not exist")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise SpecError(f"suite file {path}: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, "suite", None)):
        raise SpecError(f"suite file {path} defines no function suite()")
    return module
