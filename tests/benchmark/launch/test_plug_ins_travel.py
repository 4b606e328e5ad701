"""What workers get of plug-ins: the suite's file, or the module of an installed suite, loaded there again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark import results, suites
from benchmark.commands.run import for_workers
from benchmark.launch.choice import Choice
from benchmark.launch.local import LocalLauncher
from benchmark.launch.ray_tune.trial import unseen
from benchmark.spec import Data, Model, Optimizer, SpecError
from benchmark.suites import cell
from benchmark.training.execution import Execution

CPU = "time_minutes = 10\n"


@pytest.fixture
def choices(tmp_path: Path) -> list[Choice]:
    profile = tmp_path / "ours.toml"
    profile.write_text(CPU)
    return [Choice(), Choice(name="slurm", profile=profile), Choice(name="ray", ray_address="127.0.0.1:1")]


@pytest.mark.parametrize("plugin", [Path("mine.py"), "their_package.suite"])
def test_every_launcher_hands_over_the_suites_file_or_module(plugin: Path | str, choices: list[Choice]) -> None:
    """All of them send `Execution.to_dict` as it goes through JSON, with absolute paths."""
    for choice in choices:
        sent = for_workers(Execution(out=Path("runs"), data_dir=Path("data"), device="cpu"), choice, plugin).absolute()
        (received,) = Execution.from_dict(json.loads(json.dumps(sent.to_dict()))).plugins
        assert received == (plugin.resolve() if isinstance(plugin, Path) else plugin)


def test_a_suite_of_the_package_hands_over_nothing(choices: list[Choice]) -> None:
    plugin = suites.load("digits").plugin
    for choice in choices:
        assert for_workers(Execution(out=Path("runs"), data_dir=Path("data")), choice, plugin).plugins == ()


def test_a_module_is_no_file_that_a_worker_of_ray_has_to_see(tmp_path: Path) -> None:
    execution = Execution(out=tmp_path, data_dir=tmp_path, plugins=("their_package.suite", tmp_path / "gone.py"))
    assert f"does not see {tmp_path / 'gone.py'}: --suite must lie on storage" in str(unseen(execution, tmp_path))
    assert unseen(Execution(out=tmp_path, data_dir=tmp_path, plugins=("their_package.suite",)), tmp_path) is None


def test_a_module_that_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_broken_suite.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        SpecError, match="module their_broken_suite of the suite cannot be loaded here: division by zero"
    ):
        suites.load_plugin("their_broken_suite")


def test_an_installed_suite_names_its_module_and_a_file_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pip leaves it: a package with an entry point of the group of suites."""
    text = "from benchmark.suites import digits\n\n\ndef suite():\n    return digits.suite()[:1]\n"
    (tmp_path / "their_small_suite.py").write_text(text)
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sparse_training.suites]\nsmall = their_small_suite\n")
    monkeypatch.syspath_prepend(tmp_path)
    installed, file = suites.load("small"), suites.load(str(tmp_path / "their_small_suite.py"))
    assert (installed.name, installed.plugin) == ("small", "their_small_suite")
    assert (file.name, file.plugin) == ("their_small_suite", tmp_path / "their_small_suite.py")
    assert installed.specs == file.specs
    assert "small" in suites.describe()


def test_cells_are_refused_by_name_where_the_module_is_not_installed(tmp_path: Path) -> None:
    """The worker lives on, and each of its cells says why; before, it died three times for each."""
    results.prepare(tmp_path)
    data = Data(name="synthetic", shape=(1, 8, 8), train_limit=16, test_limit=8)
    specs = [
        cell("dense", data=data, model=Model(name="lenet-300-100"), optimizer=Optimizer(batch_size=16), seed=seed)
        for seed in range(2)
    ]
    launcher = LocalLauncher(Execution(out=tmp_path, data_dir=tmp_path, plugins=("no_such_module",)), workers=1)
    launcher.submit(specs)
    ends = [event.payload for event in launcher.events() if event.kind == "end"]
    error = "module no_such_module of the suite cannot be loaded here: No module named 'no_such_module'"
    assert ends == [{"status": "refused", "error": error, "code": 2}] * 2
