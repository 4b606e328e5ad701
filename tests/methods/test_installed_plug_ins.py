"""Plug-ins of installed packages: found by their metadata, imported when they are used, refused by name."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from methods.plug_ins import PlugIns

GOOD = 'class Good:\n    """Good at what it does.\n\n    More.\n    """\n'
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package with entry points of the group `thing` on the import path, as pip leaves it."""
    before = set(sys.modules)

    def write(package: str, points: dict[str, str], *, version: str = "1.0", **modules: str) -> Path:
        folder = tmp_path / f"{package}-{version}"
        info = folder / f"{package}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        lines = "".join(f"{name} = {path}\n" for name, path in points.items())
        (info / "entry_points.txt").write_text(f"[things]\n{lines}")
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(folder)
        return folder

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def things() -> PlugIns:
    return PlugIns("thing", group="things", own={"ours": "project:Ours"}.get)


def test_names_are_known_without_importing_anything(install: Install) -> None:
    install("theirs", {"good": "their_good:Good", "bad": "their_bad:Bad"}, their_good=GOOD, their_bad="1 / 0")
    assert things().names() == ["bad", "good"]
    assert not {"their_good", "their_bad"} & set(sys.modules)


def test_what_cannot_be_imported_is_listed_with_its_problem_beside_the_others(install: Install) -> None:
    points = {"good": "their_good:Good", "bad": "their_bad:Bad", "gone": "their_good:Gone", "odd": "their_good:"}
    unspeakable = "class E(Exception):\n    def __str__(self): raise ValueError\nraise E"
    install("theirs", points | {"dumb": "dumb:D", "ends": "ends:E"}, their_good=GOOD, their_bad="1 / 0",
            dumb=unspeakable, ends="raise SystemExit('bye')")  # fmt: skip
    listed = things().describe()
    start = "cannot be used: thing"
    assert listed == {
        "good": "Good at what it does.",
        "bad": f"{start} 'bad' cannot be loaded from their_bad:Bad of theirs 1.0: division by zero",
        "gone": f"{start} 'gone' cannot be loaded from their_good:Gone of theirs 1.0: "
        "module 'their_good' has no attribute 'Gone'",
        "odd": f"{start} 'odd': their_good: of theirs 1.0 is not of the form 'package.module:Class'",
        "dumb": f"{start} 'dumb' cannot be loaded from dumb:D of theirs 1.0: E",
        "ends": f"{start} 'ends' cannot be loaded from ends:E of theirs 1.0: bye",
    }
    with pytest.raises(ValueError, match="thing 'bad' cannot be loaded"):
        things().load("bad")
    assert things().load("good").__name__ == "Good"


def test_a_name_of_the_project_is_not_replaced_and_the_attempt_is_listed(install: Install) -> None:
    install("theirs", {"ours": "their_good:Good", "a b": "their_good:Good"}, their_good=GOOD)
    own = things()
    assert own.names() == []
    assert (own.find("ours"), own.load("ours"), own.origin("ours")) == (None, None, "")
    assert own.describe() == {
        "'ours' of theirs 1.0": "cannot be used: thing 'ours': its name is that of project:Ours",
        "'a b' of theirs 1.0": "cannot be used: thing 'a b': its name must be 1 to 100 of the characters "
        "A-Z a-z 0-9 . _ -",
    }


def test_a_name_that_two_packages_have_is_refused_by_name(install: Install) -> None:
    for package in ("one", "two"):
        install(package, {"good": f"{package}_good:Good"}, **{f"{package}_good": GOOD})
    with pytest.raises(ValueError, match=r"thing 'good' is in several installed packages, two 1\.0 and one 1\.0: keep"):
        things().load("good")
    assert things().describe()["good"].startswith("cannot be used: thing 'good' is in several installed packages")


def test_an_installed_name_is_not_registered_for_something_else(install: Install) -> None:
    install("theirs", {"good": "their_good:Good"}, their_good=GOOD)
    own = things()
    own.register("good", "their_good:Good")
    with pytest.raises(ValueError, match=r"thing 'good' is their_good:Good already: choose another name"):
        own.register("good", "mine:Good")
    with pytest.raises(
        ValueError, match=r"thing 'good' is their_good:Good of theirs 1\.0 already: choose another name"
    ):
        things().register("good", "mine:Good")


def test_the_origin_is_the_package_with_its_version_and_the_file_that_was_loaded(install: Install) -> None:
    folder = install("theirs", {"good": "their_good:Good", "again": "shown:Good"}, version="2.1", their_good=GOOD,
                     shown="from their_good import Good")  # fmt: skip
    digest = hashlib.sha256(GOOD.encode()).hexdigest()
    own = things()
    assert own.origin("good") == own.origin("again") == f"theirs 2.1, their_good.py, SHA-256 {digest}"
    (folder / "their_good.py").write_text("something else")
    assert own.origin("good") == f"theirs 2.1, their_good.py, SHA-256 {digest}"


def test_the_origin_of_a_registered_name_is_its_file(install: Install) -> None:
    install("theirs", {}, their_own=GOOD)
    own = things()
    own.register("good", "their_own:Good")
    assert own.origin("good") == f"their_own.py, SHA-256 {hashlib.sha256(GOOD.encode()).hexdigest()}"
    sys.modules["no_file"] = types.ModuleType("no_file")
    vars(sys.modules["no_file"])["five"] = 5
    own.register("number", "no_file:five")
    assert own.origin("number") == ""


def test_metadata_is_read_once_for_an_import_path(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    def count(**wanted: Any) -> Any:
        reads.append(wanted)
        return read(**wanted)

    read = importlib.metadata.entry_points
    monkeypatch.setattr(importlib.metadata, "entry_points", count)
    install("theirs", {"good": "their_good:Good"}, their_good=GOOD)
    for own in (things(), things()):
        own.names(), own.find("good"), own.describe(), own.origin("good")
    assert reads == [{"group": "things"}]
    install("more", {"better": "better:Good"}, better=GOOD)
    assert things().names() == ["better", "good"]


def test_a_whole_module_is_a_plug_in_only_where_the_form_says_so(install: Install) -> None:
    install("theirs", {"good": "their_good"}, their_good='"""A module."""')
    assert "is not of the form" in things().describe()["good"]
    assert PlugIns("suite", group="things", own=lambda _: None, whole_module=True).describe() == {"good": "A module."}
