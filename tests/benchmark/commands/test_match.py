"""`match`: the value that keeps a chosen density, what it cost, and why there is none."""

from __future__ import annotations

import csv
import json
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from grids import Bench, Finished, bits, rows
from hypothesis import given
from hypothesis import strategies as st

from benchmark import suites
from benchmark.commands.match_setting import Measured, Trial, setting_of
from benchmark.launch.choice import Choice
from benchmark.results import COLUMNS, MEASURED, write_csv
from benchmark.run_folder.attempts import Observer
from benchmark.run_folder.result import result_of
from benchmark.spec import Data, Model, Optimizer, RunSpec
from benchmark.suites import mnist
from benchmark.training.cell import execute
from benchmark.training.execution import Execution

SUITE = '''
"""A method whose density follows from its strength at once, so that cells take milliseconds."""
import torch
import methods
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell

DATA = Data(name="synthetic", shape=(1, 8, 8), train_limit=32, test_limit=32)
SGD = Optimizer(lr=0.05, momentum=0.9, batch_size=16, epochs=1)


class Dial(methods.Method):
    """Keeps 1 / (1 + 1000 * strength) of each layer, about: the generator moves it by some percent."""

    name = "dial"
    version = 1
    reference = "none"
    density_promise = "emergent"
    density_knob = methods.DensityKnob(name="strength", low=1e-6, high=10.0)

    def __init__(self, *, strength: float = 1e-3, floor: float = 0.0, falls_at: float = 10.0, breaks_at: float = 1e9):
        self.strength, self.floor, self.falls_at, self.breaks_at = strength, floor, falls_at, breaks_at

    def enter_phase(self, ctx):
        share = max(self.floor, 1 / (1 + 1e3 * self.strength)) if self.strength < self.falls_at else 0.001
        share *= 1 + 0.02 * float(torch.rand((), generator=ctx.generator))
        sizes = {name: weight.parameter.shape for name, weight in ctx.weights.items()}
        masks = {name: torch.rand(shape, generator=ctx.generator) < share for name, shape in sizes.items()}
        ctx.masks.set(masks)

    def after_step(self, ctx):
        if self.strength >= self.breaks_at:
            raise RuntimeError("too strong")


methods.register("dial", f"{__name__}:Dial")


def suite():
    given = dict(data=DATA, model=Model(name="lenet-300-100"), optimizer=SGD)
    return [
        cell("dense", **given),
        cell("dial", **given, strength=1e-3),
        cell("set", **given, density=0.3, update_every="1 step"),
    ]
'''


@pytest.fixture
def suite(tmp_path: Path) -> str:
    (tmp_path / "dials.py").write_text(SUITE)
    return str(tmp_path / "dials.py")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> list[str]:
    """Cells are trained in this process; the run ids, in the order of training."""
    trained: list[str] = []

    def dispatch(
        _: object, todo: Sequence[RunSpec], execution: Execution, choice: Choice, __: object, *, names: dict[str, str]
    ) -> tuple[int, dict[str, int]]:
        for spec in todo:
            assert f"={spec.method.get('strength', 5e-4):g} seed=" in names[spec.run_id]  # or alpha, of dst
            execute(spec, execution, observer=Observer(), report=lambda _: None, stop=threading.Event())
            trained.append(spec.run_id)
        return 0, {}

    monkeypatch.setattr("benchmark.commands.match.dispatch", dispatch)
    monkeypatch.setenv("BENCH_NO_MLFLOW", "1")
    return trained


def match(bench: Bench, suite: str, out: Path, *options: str | Path, density: str = "0.1") -> Finished:
    words = ("--suite", suite, "--model", "lenet-300-100", "--method", "dial", "--density", density, "--out", out)
    return bench("match", *words, *options)


def document(bench: Bench, suite: str, out: Path, *options: str | Path, density: str = "0.1") -> Any:
    return match(bench, suite, out, *options, "--json", density=density).json


def test_a_density_is_found_and_the_cost_is_told(bench: Bench, here: list[str], suite: str, tmp_path: Path) -> None:
    found = document(bench, suite, tmp_path / "runs", "--tolerance", "0.03")
    assert found["exit_code"] == 0
    assert found["hyperparameter"] == "strength"
    assert found["value"] == pytest.approx(9e-3, rel=0.1)
    assert found["density"] == pytest.approx(0.1, rel=0.03)
    assert found["cells_trained"] == len(here) == 3 * len(found["values"]) <= 9
    assert found["cpu_seconds"] > 0
    densities = [value["density"] for value in found["values"]]
    assert densities == sorted(densities, reverse=True)
    own = rows(tmp_path / "runs")
    (best,) = [value for value in found["values"] if value["value"] == found["value"]]
    assert best["densities"] == [float(own[run_id]["density"]) for run_id in best["run_ids"]]
    assert sum(best["densities"]) / 3 == pytest.approx(found["density"])


def test_the_command_for_the_suite_file_reads_the_same_data(
    bench: Bench, here: list[str], suite: str, tmp_path: Path
) -> None:
    out, data_dir = tmp_path / "runs", tmp_path / "my data"
    command = f"python -m benchmark run --suite {out / 'match-lenet-300-100-dial-0.1.py'} --out {out}"
    for options, added in (
        ((), ""),
        (("--data-dir", "data"), ""),
        (("--data-dir", data_dir), f" --data-dir '{data_dir}'"),
    ):
        lines = match(bench, suite, out, *options).stdout.splitlines()
        (printed,) = [line.partition("train it with: ")[2] for line in lines if "train it with: " in line]
        assert printed == command + added


def test_the_same_command_again_trains_nothing(bench: Bench, here: list[str], suite: str, tmp_path: Path) -> None:
    first = document(bench, suite, tmp_path / "runs")
    here.clear()
    again = document(bench, suite, tmp_path / "runs")
    assert (again["value"], again["cells_trained"], here) == (first["value"], 0, [])


def test_a_search_that_was_interrupted_goes_on_with_the_same_value(
    bench: Bench, here: list[str], suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = document(bench, suite, tmp_path / "whole")
    import benchmark.commands.match as command

    undisturbed = command.dispatch

    def interrupted(cells: Any, todo: Sequence[RunSpec], *rest: Any, **named: Any) -> tuple[int, dict[str, int]]:
        undisturbed(cells, todo[:1], *rest, **named)
        return 130, {}

    monkeypatch.setattr(command, "dispatch", interrupted)
    for _ in range(4):
        stopped = match(bench, suite, tmp_path / "runs")
        assert stopped.code == 130
        assert "stopped; the same command goes on from here" in stopped.stdout
    monkeypatch.setattr(command, "dispatch", undisturbed)
    assert document(bench, suite, tmp_path / "runs")["value"] == whole["value"]
    assert bits(tmp_path / "runs") == bits(tmp_path / "whole")


def test_finished_cells_of_other_tables_are_read(bench: Bench, here: list[str], suite: str, tmp_path: Path) -> None:
    first = document(bench, suite, tmp_path / "first", "--tolerance", "0.03")
    here.clear()
    found = document(bench, suite, tmp_path / "second", "--tolerance", "0.03", "--done-in", tmp_path / "first")
    assert (found["value"], here) == (first["value"], [])
    near = document(bench, suite, tmp_path / "second", "--done-in", tmp_path / "first", density="0.2")
    assert near["cells_trained"] == 3
    other = document(bench, suite, tmp_path / "third", "--done-in", tmp_path / "first", "--set", "optimizer.epochs=2")
    assert other["values"][0]["run_ids"] != first["values"][0]["run_ids"], "another setting: nothing is reused"


@pytest.mark.parametrize(
    "changed", [{"density": "27.2"}, {"threshold_resets": "inf"}, {"threshold_resets": "nan"}, {"density": "1e999"}]
)
def test_rows_of_other_tables_whose_numbers_make_no_sense_are_trained_again(
    changed: dict[str, str], bench: Bench, here: list[str], suite: str, tmp_path: Path
) -> None:
    document(bench, suite, tmp_path / "first", "--probes", "1")
    with (tmp_path / "first/results.csv").open(newline="") as file:
        write_csv(tmp_path / "theirs.csv", COLUMNS, [row | changed for row in csv.DictReader(file)])
    here.clear()
    again = match(bench, suite, tmp_path / "second", "--probes", "1", "--done-in", tmp_path / "theirs.csv")
    assert (again.stderr, len(here)) == ("", 3)


def test_cells_that_diverged_in_other_tables_are_not_trained_again(
    bench: Bench, here: list[str], suite: str, tmp_path: Path
) -> None:
    first = document(bench, suite, tmp_path / "first", "--probes", "1")["values"][0]
    lost = {**dict.fromkeys(MEASURED, ""), "status": "diverged", "epochs": "1"}
    with (tmp_path / "first/results.csv").open(newline="") as file:
        write_csv(tmp_path / "theirs.csv", COLUMNS, [row | lost for row in csv.DictReader(file)])
    here.clear()
    found = match(bench, suite, tmp_path / "second", "--probes", "1", "--done-in", tmp_path / "theirs.csv", "--json")
    (again,) = (one for one in found.json["values"] if one["value"] == first["value"])
    assert (again["run_ids"], again["trained"]) == (first["run_ids"], 0)
    assert again["trouble"].startswith("3 of 3 cells diverged")
    assert not {*again["run_ids"]} & {*here}


def test_seeds_that_are_finished_are_not_trained_again(
    bench: Bench, here: list[str], suite: str, tmp_path: Path
) -> None:
    document(bench, suite, tmp_path / "runs", "--seeds", "1", "--probes", "1")
    found = document(bench, suite, tmp_path / "runs", "--seeds", "0-2", "--probes", "1")
    assert found["cells_trained"] == 2
    assert found["values"][0]["run_ids"][1] == here[0]


def test_the_suite_file_has_the_cells_and_baselines_of_equal_counts(
    bench: Bench, here: list[str], suite: str, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    found = document(bench, suite, out, "--with", "static,set")
    file = out / "match-lenet-300-100-dial-0.1.py"
    assert found["suite"] == str(file)
    planned = bench("plan", "--suite", file, "--out", out, "--json").json
    (best,) = [value for value in found["values"] if value["value"] == found["value"]]
    assert sorted(planned["done"]) == sorted(best["run_ids"])
    assert len(planned["to_run"]) == 6
    specs = suites.load(str(file)).specs
    for spec in specs:
        execute(
            spec, Execution(out=out, data_dir=out), observer=Observer(), report=lambda _: None, stop=threading.Event()
        )
    for seed in range(3):
        cells = [spec for spec in specs if spec.seed == seed]
        assert [spec.method["name"] for spec in cells] == ["dial", "static", "set"]
        assert len({_kept(out, spec) for spec in cells}) == 1
        assert cells[2].method["update_every"] == "1 step", "as the suite has it"


def test_the_suite_file_has_what_was_changed(bench: Bench, here: list[str], suite: str, tmp_path: Path) -> None:
    changes = ("--set", "precision=bfloat16", "--set", "data.shape=[1,6,6]", "--set", "method.floor=0.01")
    found = document(bench, suite, tmp_path / "runs", "--seeds", "0", *changes, "--to", tmp_path / "found.py")
    specs = suites.load(str(tmp_path / "found.py")).specs
    assert [[spec.run_id] for spec in specs] == [v["run_ids"] for v in found["values"] if v["value"] == found["value"]]
    again = document(bench, suite, tmp_path / "runs", "--seeds", "0", *changes, "--to", tmp_path / "found.py")
    assert again["suite"] == found["suite"], "its own file is written again"


def test_a_suite_file_with_other_cells_stays(bench: Bench, here: list[str], suite: str, tmp_path: Path) -> None:
    options = ("--tolerance", "0.1")
    first = Path(document(bench, suite, tmp_path / "runs", "--seeds", "0", *options)["suite"])
    before = first.read_text()
    here.clear()
    other = match(bench, suite, tmp_path / "runs", "--seeds", "0", *options, "--set", "optimizer.epochs=2")
    assert (other.code, here) == (2, [])
    assert f"{first} has other cells: give this search another file with --to" in other.error
    for changes in (("--seeds", "0-1"), ("--seeds", "1"), ("--seeds", "0", "--with", "static")):
        other = match(bench, suite, tmp_path / "runs", *changes, *options)
        assert (other.code, here, other.stdout) == (2, [], "")
        assert f"{first} has other cells" in other.error
    others = ("--seeds", "0", "--density", "0.2", "--to", first)
    more = match(bench, suite, tmp_path / "runs", *others, *options)
    assert (more.code, f"{first} has other cells" in more.error) == (2, True)
    assert " keeps " in more.stdout, "what was found is printed all the same"
    assert "cells trained" in more.stdout
    assert "suite file:" not in more.stdout
    again = document(bench, suite, tmp_path / "runs", *others, *options)
    assert (again["exit_code"], again["suite"], again["value"] > 0) == (2, None, True)
    assert f"{first} has other cells" in again["reason"]
    assert first.read_text() == before
    here.clear()
    named = document(bench, suite, tmp_path / "runs", *others, *options, "--to", tmp_path / "more.py")
    assert (named["suite"], here) == (str(tmp_path / "more.py"), [])


def _kept(out: Path, spec: RunSpec) -> int:
    result = result_of(out / "cells" / spec.run_id)
    assert result is not None
    return sum(layer["kept"] for layer in result["layers"].values())


@given(st.data())
def test_a_measured_density_gives_back_its_kept_count(data: st.DataObject) -> None:
    weights = data.draw(st.integers(1, 2**40))
    kept = data.draw(st.integers(0, weights))
    assert round(float(repr(kept / weights)) * weights) == kept


def test_a_floor_is_told_with_the_values_beside_it(bench: Bench, here: list[str], suite: str, tmp_path: Path) -> None:
    finished = match(bench, suite, tmp_path / "runs", "--set", "method.floor=0.3")
    assert finished.code == 1
    (line,) = [line for line in finished.stdout.splitlines() if line.startswith("no strength was found")]
    assert "for 10 % (9.5 to 10.5 %), mean over seeds 0-2: the density stops changing" in line
    assert line.count("30.") == 2
    assert not list((tmp_path / "runs").glob("*.py"))


def test_a_jump_is_told_with_the_values_beside_it(bench: Bench, here: list[str], suite: str, tmp_path: Path) -> None:
    options = ("--set", "method.falls_at=0.005", "--probes", "20", "--seeds", "0")
    found = document(bench, suite, tmp_path / "runs", *options)
    assert found["exit_code"] == 1
    assert (found["value"], found["suite"]) == (None, None)
    assert found["reason"] == "the density jumps over it"
    low, high = found["between"]
    assert low < 5e-3 <= high


def test_too_few_values_are_told(bench: Bench, here: list[str], suite: str, tmp_path: Path) -> None:
    finished = match(bench, suite, tmp_path / "runs", "--probes", "1", density="0.01")
    assert finished.code == 1
    assert "1 new value did not reach it" in finished.stdout
    assert len(here) == 3


def test_a_cell_that_fails_ends_the_search(bench: Bench, here: list[str], suite: str, tmp_path: Path) -> None:
    finished = match(bench, suite, tmp_path / "runs", "--set", "method.breaks_at=0.002")
    assert finished.code == 1
    assert "3 cells did not end, the first: lenet-300-100 dial seed=0: failed" in finished.stdout
    assert "RuntimeError: too strong" in finished.stdout
    again = document(bench, suite, tmp_path / "runs", "--set", "method.breaks_at=0.002")
    assert (again["exit_code"], again["cells_trained"]) == (1, 0)


def test_cells_that_are_refused_end_the_search_with_their_code(
    bench: Bench, suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.commands.match.dispatch", lambda *_, **__: (0, {"the data is damaged": 3}))
    finished = match(bench, suite, tmp_path / "runs", "--no-mlflow")
    assert (finished.code, finished.stderr.strip()) == (3, "error: the data is damaged")
    found = document(bench, suite, tmp_path / "runs", "--no-mlflow")
    assert (found["exit_code"], found["value"], found["reason"]) == (3, None, "the data is damaged")


def test_missing_data_is_told_before_any_training(bench: Bench, tmp_path: Path) -> None:
    words = ("--model", "lenet-300-100", "--method", "dst", "--density", "0.05")
    finished = bench("match", *words, "--out", tmp_path / "runs", "--data-dir", tmp_path, "--no-mlflow")
    assert finished.code == 3
    assert "mnist" in finished.stderr


def test_a_method_that_the_suite_lacks_has_its_defaults(
    bench: Bench, here: list[str], suite: str, tmp_path: Path
) -> None:
    words = ("--suite", suite, "--model", "lenet-300-100", "--method", "dst", "--seeds", "0", "--probes", "1", "--json")
    found = bench("match", *words, "--density", "0.1", "--out", tmp_path / "runs").json
    assert found["values"][0]["value"] == 5e-4
    spec = json.loads((tmp_path / "runs/cells" / here[0] / "spec.json").read_text())
    assert spec["method"]["name"] == "dst"
    assert spec["optimizer"]["batch_size"] == 16


def test_cells_that_record_more_belong_to_the_same_setting(bench: Bench, tmp_path: Path) -> None:
    done_in = Path(__file__).resolve().parents[3] / "paper_figures/results"
    words = ("--model", "lenet-300-100", "--method", "dst", "--density", "0.084", "--done-in", done_in)
    found = bench("match", *words, "--probes", "0", "--out", tmp_path / "runs", "--json").json
    assert (found["value"], found["cells_trained"]) == (5e-4, 0)
    (spec, *_) = suites.load(found["suite"]).specs
    assert spec.step_records == 1, "the committed cell"
    assert spec.run_id in found["values"][0]["run_ids"]
    setting = setting_of("mnist", model="lenet-300-100", method="dst", where=(), changes=(), out=tmp_path / "runs")
    assert setting.cell(6.6e-4, 1).run_id == mnist.lenet("lenet-300-100", "dst", 1, alpha=6.6e-4).run_id
    (reset,) = [value for value in found["values"] if value["value"] == 2e-3]
    assert reset["density"] is None
    assert reset["trouble"] == "seeds end between 1.09 and 61.1 %, thresholds were reset in 3 of 3 cells"


SPEC = RunSpec(data=Data(name="digits"), model=Model(name="lstm-a"), optimizer=Optimizer(), method={"name": "dst"})


def trial(*densities: float | None, resets: int = 0) -> Trial:
    return Trial(1e-3, {seed: Measured(SPEC, density, resets, 1.0) for seed, density in enumerate(densities)})


def test_a_mean_that_is_the_density_of_no_cell_is_none() -> None:
    assert trial(0.02, 0.03, 0.04).density == pytest.approx(0.03)
    assert trial(0.0, 0.0).density == 0.0
    assert trial(0.61, 0.0116, 0.0109).density is None
    assert trial(0.61, 0.0116).trouble == "seeds end between 1.16 and 61 %"
    assert trial(0.02, None, resets=1).density is None
    assert trial(0.02, None, resets=1).trouble == "1 of 2 cells diverged, thresholds were reset in 2 of 2 cells"
    assert trial(None, None).density is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--density", "5"], "--density is 5: it must lie between 0 and 1, such as 0.05 for 5 %"),
        (["--tolerance", "0"], "--tolerance is 0: it must lie between 0 and 1"),
        (["--method", "dts"], "unknown method 'dts': did you mean 'dst'?"),
        (["--method", "static"], "static keeps the density that it is given: run it with --set density=VALUE"),
        (["--method", "dense"], "dense names no hyperparameter that moves its density (`density_knob` of its class)"),
        (["--model", "vgg16"], "no cell has that value; present: lenet-300-100"),
        (["--model", "lstm-a"], "differ in model.initialization, model.hidden_state: choose one with --where"),
        (["--with", "static,dense"], "--with dense: it has no hyperparameter 'density'"),
        (["--with", "sttaic"], "--with: unknown method 'sttaic': did you mean 'static'?"),
        (["--to", "found.txt"], "--to found.txt: a suite file is named NAME.py"),
        (["--to", f"{__file__}/found.py"], "test_match.py/found.py: nothing can be written into"),
        (["--to", __file__], "exists and is no file of this command: choose another name"),
        (["--set", "method.alhpa=1"], "no cell's method has 'alhpa': did you mean 'alpha'?"),
        (["--seeds", "x"], "--seeds x: write numbers and ranges"),
        (["--launcher", "slurm"], "--launcher slurm needs --profile"),
        (["--done-in", "nowhere"], "--done-in nowhere does not exist"),
        (["--suite", "mnits"], "unknown suite 'mnits'"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_a_users_mistake_is_one_line_and_nothing_is_trained(
    options: list[str], message: str, bench: Bench, tmp_path: Path
) -> None:
    words = ["--model", "lenet-300-100", "--method", "dst", "--density", "0.05", "--out", str(tmp_path / "runs")]
    finished = bench("match", *words, *options)
    assert finished.code == 2
    assert message in finished.error
    assert not (tmp_path / "runs/cells").exists()


@pytest.mark.parametrize("knob", ['"strength"', 'methods.DensityKnob(name="force", low=1, high=2)'])
def test_a_knob_that_is_none_is_told(knob: str, bench: Bench, suite: str, tmp_path: Path) -> None:
    text = SUITE.replace('methods.DensityKnob(name="strength", low=1e-6, high=10.0)', knob)
    Path(suite).write_text(text)
    finished = match(bench, suite, tmp_path / "runs")
    assert finished.code == 2
    assert "dial: its density_knob is no methods.DensityKnob of a hyperparameter" in finished.error


def test_several_processes_of_one_command_are_refused(
    bench: Bench, suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    assert "start it without torchrun" in match(bench, suite, tmp_path / "runs").error


@pytest.mark.slow
def test_alpha_of_dst_is_found_on_digits_by_worker_processes(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    words = ("--suite", "digits", "--model", "lenet-300-100", "--method", "dst", "--density", "0.05", "--out", out)
    finished = bench("match", *words, "--with", "static")
    assert finished.code == 0, finished.stdout
    assert "wanted: 5 % (4.75 to 5.25 %), mean over seeds 0-2" in finished.stdout
    shutil.rmtree(out / "suites")  # the cells are the memory, whoever lists them
    file = out / "match-lenet-300-100-dst-0.05.py"
    assert bench("run", "--suite", file, "--out", out, "--where", "method=dst").code == 0
    assert 0.0475 <= sum(float(row["density"]) for row in rows(out).values()) / 3 <= 0.0525


def test_the_help_says_what_its_options_mean_to_a_search(bench: Bench) -> None:
    text = " ".join(bench("match", "--help").stdout.split())
    assert "Read finished cells from these results tables too, and train none of them again; repeatable." in text
    assert "Which of the suite's cells the setting is taken from; repeatable." in text
    assert "Skip cells" not in text
    assert "Only these cells" not in text
