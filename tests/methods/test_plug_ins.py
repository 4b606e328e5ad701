"""Methods from outside: registered by name, and refused by name where they are broken."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pytest
from attached_model import Block, TwoPhases, attach

import methods
from methods import Method, registry
from methods.plug_ins import first_line


class NoReference(Method):
    name = "no_reference"
    version = 1
    density_promise = "dense"


class TextVersion(NoReference):
    reference = "none"
    version = "1"  # type: ignore[assignment]


class Annotated(Method):
    name = "annotated"
    version = 1
    reference = "none"
    density_promise = "dense"

    def __init__(
        self,
        *,
        layers: list[str] | None = None,
        sizes: tuple[int, ...] = (1,),
        mode: Literal["a", "b"] | None = None,
        anything: Any = None,
        bare=None,  # type: ignore[no-untyped-def]
        required: int,
    ) -> None:
        self.layers, self.sizes, self.mode, self.anything, self.bare = layers, sizes, mode, anything, bare
        self.required = required


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module `plugin_of_test` with methods in it, and a registry that forgets them afterwards."""
    module = types.ModuleType("plugin_of_test")
    members: Mapping[str, Any] = {each.__name__: each for each in (TwoPhases, NoReference, TextVersion, Annotated)}
    vars(module).update(members, five=5)
    monkeypatch.setitem(sys.modules, "plugin_of_test", module)
    with registry.temporary():
        yield


@pytest.mark.usefixtures("plugin")
def test_a_registered_method_is_available_by_name() -> None:
    methods.register("two_phases", "plugin_of_test:TwoPhases")
    methods.register("two_phases", "plugin_of_test:TwoPhases")
    assert "two_phases" in methods.available()
    assert methods.describe()["two_phases"] == "Dense, then pruned by magnitude with a fresh optimizer."
    assert methods.create("two_phases", sparse_steps=9).hyperparameters() == {"density": 0.5, "sparse_steps": 9}
    assert attach(Block(), "two_phases").total_steps == 9


@pytest.mark.usefixtures("plugin")
def test_a_taken_name_or_a_path_without_colon_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method 'set' is methods\.algorithms\.set:SET already: choose another name"):
        methods.register("set", "plugin_of_test:TwoPhases")
    with pytest.raises(ValueError, match=r"'plugin_of_test\.TwoPhases' is not of the form 'package\.module:Class'"):
        methods.register("mine", "plugin_of_test.TwoPhases")


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module:Thing", "cannot be loaded from no_such_module:Thing: No module named 'no_such_module'"),
        ("plugin_of_test:Missing", "cannot be loaded from plugin_of_test:Missing: .*no attribute 'Missing'"),
        ("plugin_of_test:five", "plugin_of_test:five is no subclass of methods.Method"),
        ("plugin_of_test:NoReference", "plugin_of_test:NoReference lacks the class attribute 'reference': write into"),
        ("plugin_of_test:TextVersion", "plugin_of_test:TextVersion has version = '1': it must be int, such as 1"),
    ],
)
def test_a_broken_plug_in_is_refused_by_name_and_listed_with_its_fault(path: str, message: str) -> None:
    methods.register("mine", path)
    with pytest.raises(ValueError, match=f"method 'mine'.*{message}"):
        methods.create("mine")
    assert "cannot be used: method 'mine'" in methods.describe()["mine"]


@pytest.mark.usefixtures("plugin")
def test_annotations_of_containers_and_literals_do_not_stand_in_the_way() -> None:
    methods.register("annotated", "plugin_of_test:Annotated")
    values = {"layers": ["a"], "sizes": (1, 2), "mode": "a", "anything": object(), "bare": 3, "required": 1}
    assert methods.create("annotated", **values).hyperparameters() == values
    with pytest.raises(ValueError, match="annotated: layers is 'a': it must be list or none"):
        methods.create("annotated", required=1, layers="a")
    with pytest.raises(ValueError, match=r"annotated: .*missing 1 required keyword-only argument: 'required'"):
        methods.create("annotated")


@pytest.mark.parametrize("name", methods.available())
def test_a_method_is_listed_with_the_first_line_of_its_docstring(name: str) -> None:
    assert methods.describe()[name] == first_line(registry.method_class(name))


def test_a_list_serves_for_a_tuple_as_json_has_no_other() -> None:
    made = methods.create("dsr", doubles_at=[0.5])
    assert made.hyperparameters()["doubles_at"] == (0.5,)
