"""The registry finds methods by their files, without importing them, and forgets what was temporary."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import methods
from methods import registry
from methods.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
MADE_UP = '''
import no_such_module

class Helper:
    """Not the method."""

    name = "helper"

class MadeUp(no_such_module.Method):
    """Prunes nothing at all.

    More lines.
    """

    name = "made_up"
'''


def test_a_file_in_the_folder_is_a_method_and_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "made_up.py").write_text(MADE_UP)
    (tmp_path / "_private.py").write_text("")
    own = Registry(tmp_path)
    assert own.available() == ["made_up"]
    assert own.describe() == {"made_up": "Prunes nothing at all."}
    with pytest.raises(ValueError, match=r"method 'made_up' is methods\.algorithms\.made_up:MadeUp already"):
        own.register("made_up", "other:Class")


def test_a_file_without_the_method_of_its_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "made_up.py").write_text("name = 'made_up'\n")
    with pytest.raises(ValueError, match=r"made_up\.py defines no class with name = 'made_up'"):
        Registry(tmp_path).create("made_up")


@pytest.mark.parametrize("name", ["../mine", "/mine", "..", "", "my method", "mine\n", "n" * 101])
def test_a_name_that_is_no_name_of_a_file_is_not_registered(name: str) -> None:
    own = Registry()
    with pytest.raises(ValueError, match=r"its name must be 1 to 100 of the characters A-Z a-z 0-9 \. _ -"):
        own.register(name, "some.module:Class")
    assert name not in own.available()


def test_registries_are_independent_and_temporary_names_are_forgotten() -> None:
    own = Registry()
    own.register("mine", "some.module:Class")
    assert own.available() == sorted([*Registry().available(), "mine"])
    with registry.temporary():
        methods.register("mine", "another.module:Class")
        assert "mine" in methods.available()
    assert "mine" not in methods.available()


def test_names_and_descriptions_need_no_torch() -> None:
    code = "import sys, methods; methods.available(); methods.describe(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_classes_of_all_methods_need_no_compiler() -> None:
    """It takes a second, and each command that lists the cells of a suite would wait for it."""
    listed = "import sys; from methods import registry; print(*map(registry.method_class, registry.available()))"
    code = f"{listed}; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "VariationalDropout" in done.stdout
    assert done.stdout.endswith("\nFalse\n")


def test_what_is_imported_late_is_listed_and_its_module_needs_no_torch_for_that() -> None:
    code = "import sys, methods; print(*sorted({*methods.__all__} - {*dir(methods)}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert {"attach", "finalize", "conformance", "Method", "create"} <= {*dir(methods)}
    assert all(getattr(methods, name) is not None for name in dir(methods) if name in methods.__all__)


@pytest.mark.parametrize("name", ["masking", "granularity", "grown_state", "weight_gradient", "pruned_gradients"])
def test_a_misspelt_choice_of_a_class_is_refused_with_the_valid_ones(name: str) -> None:
    misspelt = type("Misspelt", (registry.method_class("static"),), {name: "foward"})
    with pytest.raises(ValueError, match=rf"method Misspelt has {name} = 'foward'; valid: \w+, \w+"):
        methods.attach(nn.Linear(4, 4), misspelt(density=0.5), total_steps=1, steps_per_epoch=1)
