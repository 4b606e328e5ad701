"""`export --checkpoint`: a finished cell's network in a folder, and refusals; without ONNX."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from grids import Bench
from one_cell import PLUG_IN, Runner, flip_a_bit, make_spec, runner, sparse_cell

import methods
from benchmark import models, results, suites
from benchmark.commands import export_checkpoint
from benchmark.results import Member
from benchmark.run_folder.files import sealed, write_json
from benchmark.run_folder.result import result_of
from benchmark.spec import Data, Model
from benchmark.training.finished import trained
from benchmark.training.measure import accuracy

pytestmark = pytest.mark.usefixtures("one_thread", "_without_onnx")


@pytest.fixture
def _without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is installed it would take seconds."""
    monkeypatch.setattr("methods.release.onnx_program.NEEDED", ("a_package_that_is_not_there",))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Runner:
    """A cell with dead neurons, to be read only."""
    return sparse_cell(tmp_path_factory.mktemp("done"), "set")


def export(bench: Bench, cell: Runner, to: Path, *options: str | Path) -> Any:
    return bench("export", "--checkpoint", cell.spec.run_id, "--to", to, "--out", cell.execution.out, *options)


@pytest.mark.parametrize("chosen", ["sparse", "auto"])
def test_a_cell_is_exported_however_its_masked_layers_were_computed(
    chosen: Any, done: Runner, bench: Bench, tmp_path: Path
) -> None:
    cell = sparse_cell(tmp_path / "runs", "set", masked_layers=chosen)
    finished = export(bench, cell, tmp_path / "network")
    assert (finished.code, finished.stderr) == (0, "")


@pytest.mark.parametrize("form", ["dense", "csr", "compact"])
def test_the_network_that_is_loaded_has_the_cards_accuracy(
    form: Any, done: Runner, bench: Bench, tmp_path: Path
) -> None:
    finished = export(bench, done, tmp_path / "network")
    assert (finished.code, finished.stderr) == (0, "")
    assert finished.stdout.splitlines()[0].endswith(f"release.json; cell {done.spec.run_id}, {done.spec.label}")
    assert finished.stdout.splitlines()[1].startswith(
        "model.onnx is left out: a_package_that_is_not_there not installed"
    )
    network = methods.load(tmp_path / "network", form=form)
    training, result = trained(done.spec, done.execution)
    measured = result["measured"]["test_accuracy"]
    assert accuracy(network, training.data).top1_percent == pytest.approx(measured)
    assert f"| test accuracy, last epoch | {measured:.2f} % |" in (tmp_path / "network/README.md").read_text()
    masks = training.attached.masks()
    assert all(torch.equal(mask, masks[name]) for name, mask in methods.load_masks(tmp_path / "network").items())
    sizes = [network.get_parameter(name).shape == mask.shape for name, mask in masks.items()]
    assert all(sizes) == (form != "compact")


def test_the_card_names_the_cell(done: Runner, bench: Bench, tmp_path: Path) -> None:
    document = export(bench, done, tmp_path / "network", "--json").json
    assert document["run_id"] == done.spec.run_id
    assert set(document["files"]) == {path.name for path in (tmp_path / "network").iterdir()}
    assert list(document["left_out"]) == ["model.onnx"]
    _, head, body = (tmp_path / "network/README.md").read_text().split("---\n", 2)
    (index,) = yaml.safe_load(head)["model-index"]
    row = results.row(done.execution.out, results.members(done.execution.out)[done.spec.run_id])
    assert index["results"][0]["metrics"][0]["value"] == round(row["test_accuracy"], 2)
    assert "The network takes float32 [n, 1, 8, 8]: pixels divided by 255. It returns 10 logits. `synthetic`: " in body
    assert f"| density: weights that the masks keep | {100 * row['density']:.4f} % |" in body
    assert f"`{row['commit']}`" in body
    assert "trains it again" not in body, "suite tiny is a file"
    (spec,) = re.findall(r"```json\n(.*?)```", body, re.S)
    assert json.loads(spec) == json.loads(done.spec.canonical_json)


def test_the_cards_command_selects_the_cell_or_is_left_out(done: Runner, bench: Bench, tmp_path: Path) -> None:
    row = results.row(done.execution.out, results.members(done.execution.out)[done.spec.run_id])
    (spec,) = suites.with_seeds(suites.load("digits").specs[:1], [77])
    text = export_checkpoint._text(Member(spec, ("match", "digits")), row, "")
    (command,) = re.findall(r"python -m benchmark (run .*)", text)
    plan = bench(*shlex.split(command), "--dry-run", "--out", tmp_path, "--json").json
    assert [one["run_id"] for one in plan["to_run"]] == [spec.run_id]
    for member in (Member(spec, ("match",)), Member(done.spec, ("digits",))):  # the latter is a user's digits.py
        assert "trains it again" not in export_checkpoint._text(member, row, "")


def test_the_cards_lines_run_as_printed(
    done: Runner, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ones in a process that cannot import this project."""
    export(bench, done, tmp_path / "network")
    plain, ours = re.findall(r"```python\n(.*?)```", (tmp_path / "network/README.md").read_text(), re.S)
    check = "\nimport torch\nassert model(torch.zeros(3, 1, 8, 8)).shape == (3, 10) and not model.training\n"
    hidden = "import sys\nsys.modules['methods'] = sys.modules['benchmark'] = None\n"
    code = hidden + plain + check
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "network", capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    monkeypatch.chdir(tmp_path / "network")
    exec(ours + check, {})


def test_the_pages_block_loads_what_the_pages_command_wrote(
    done: Runner, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs/checkpoints.md").read_text()
    command = re.findall(r"^python -m benchmark (export .*)$", page, re.M)[0]
    ours = re.findall(r"```python\n(.*?)```", page, re.S)[1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(done.execution.out)
    assert bench(*command.replace("3f54", done.spec.run_id[:4]).split()).code == 0
    names: dict[str, Any] = {}
    exec(ours, names)
    assert names["model"](torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_exporting_twice_changes_nothing(done: Runner, bench: Bench, tmp_path: Path) -> None:
    first = export(bench, done, tmp_path / "network")
    before = {path.name: path.read_bytes() for path in (tmp_path / "network").iterdir()}
    again = export(bench, done, tmp_path / "network")
    assert (again.code, again.stdout) == (0, first.stdout)
    assert {path.name: path.read_bytes() for path in (tmp_path / "network").iterdir()} == before


@pytest.mark.parametrize("name", [*models.CATALOGUE])
def test_every_model_is_built_from_its_description_without_memory(name: str) -> None:
    """And then has the shapes of the model that is trained."""
    shape = (3, 64, 64) if name == "resnet50" else (3, 32, 32)
    spec = Model(name=name, widths=(30, 20) if name == "lenet-300-100" else None)
    description = {"in_shape": shape, "classes": 7, "batch_size": 4}
    builder, arguments = models.describe_network(spec, **description)
    with torch.device("meta"):
        built = models.released(json.loads(json.dumps(arguments)))
        expected = models.create(spec, in_shape=shape, classes=7, seed=3, batch_size=4)
    assert builder == "benchmark"
    assert all(value.is_meta for value in built.state_dict().values())
    assert {n: v.shape for n, v in built.state_dict().items()} == {n: v.shape for n, v in expected.state_dict().items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "lenet"}}, "unknown model 'lenet': did you mean"),
        ({"model": {"name": "os.system"}}, "unknown model 'os.system'"),
        ({"model": {"name": ["lenet-300-100"]}}, "model.name is"),
        ({"model": {"name": "lenet-300-100", "widths": [-1, 4]}}, "are no sizes"),
        ({"model": {"name": "lenet-300-100", "widths": [10**6, 10**6]}}, "its network takes"),
        ({"in_shape": [10**30]}, "cannot be built"),
        ({"classes": True}, "are no sizes"),
        ({"more": 1}, "unknown argument 'more'"),
        ({"in_shape": "abc"}, "in_shape no list"),
    ],
)
def test_a_strangers_description_is_refused(
    changes: dict[str, Any], message: str, done: Runner, bench: Bench, tmp_path: Path
) -> None:
    export(bench, done, tmp_path / "network")
    file = tmp_path / "network/release.json"
    document = json.loads(file.read_text())
    document["network"]["arguments"] |= changes
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message) as raised:
        methods.load(tmp_path / "network")
    assert str(file) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_network_that_carries_its_state_is_exported_whole(tmp_path: Path, bench: Bench) -> None:
    carried = Model(name="lstm-a", hidden_state="carried")
    spec = dataclasses.replace(make_spec(epochs=1), model=carried, step_records=None)
    cell = runner(tmp_path / "runs", spec)
    assert cell.run().status == "done"
    document = export(bench, cell, tmp_path / "network", "--json").json
    assert {"network.py", "model-compact.safetensors"} <= set(document["left_out"])
    training, _ = trained(spec, cell.execution)
    loaded, expected = methods.load(tmp_path / "network"), methods.finalize(training.model).eval()
    images, _ = next(iter(training.data.test_batches(16)))
    assert torch.equal(loaded(images), expected(images))


def test_a_cell_of_a_plug_in_needs_the_file_that_registers_it(tmp_path: Path, bench: Bench) -> None:
    file, to = tmp_path / "tiny_suite.py", tmp_path / "network"
    file.write_text(PLUG_IN)
    with models.plug_ins.temporary():
        (spec,) = suites.load(str(file)).specs
        cell = runner(tmp_path / "runs", spec)
        assert cell.run().status == "done"
    refused(export(bench, cell, to), to, "unknown model 'tiny'")
    refused(export(bench, cell, to), to, "give that suite with --suite")
    with models.plug_ins.temporary():
        assert export(bench, cell, to, "--suite", file).code == 0
        assert methods.load(to)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
        tiny = models.plug_ins.load("tiny")
    with pytest.raises(ValueError, match=r"cannot be built: unknown model 'tiny'.*; give the network, methods\.load\("):
        methods.load(to)
    assert methods.load(to, model=lambda: tiny((1, 8, 8), 10), form="csr").layer.out_features == 10


# --- refusals: one line, and nothing is written ------------------------------------------------------


def refused(finished: Any, to: Path, message: str, *, code: int = 2) -> None:
    assert (finished.code, finished.stdout) == (code, "")
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in finished.stderr
    assert not to.exists()


def test_an_unknown_run_id_is_told_the_nearest(done: Runner, bench: Bench, tmp_path: Path) -> None:
    run_id, to = done.spec.run_id, tmp_path / "network"
    near = run_id[:5] + ("0" if run_id[5] != "0" else "1") + run_id[6:8]
    finished = bench("export", "--checkpoint", near, "--to", to, "--out", done.execution.out)
    refused(finished, to, f"run id '{near}': no cell has it; did you mean '{run_id}' ({done.spec.label})?")
    finished = bench("export", "--checkpoint", "zzz", "--to", to, "--out", done.execution.out)
    refused(finished, to, "run id 'zzz': no cell has it; 'python -m benchmark status --json' lists all ids")


def test_a_cell_that_is_not_done_is_refused(tmp_path: Path, bench: Bench) -> None:
    cell = runner(tmp_path / "runs", make_spec())
    message = (
        f"cell {cell.spec.run_id} is pending: only a network that is trained to its end can be measured or exported"
    )
    refused(export(bench, cell, tmp_path / "network"), tmp_path / "network", message)


def test_a_checkpoint_that_was_deleted_or_damaged_is_refused(done: Runner, tmp_path: Path, bench: Bench) -> None:
    to, out = tmp_path / "network", tmp_path / "runs"
    shutil.copytree(done.execution.out, out)
    cell = Runner(out, done.spec)
    flip_a_bit(cell.checkpoints()[-1], 0.5)
    refused(export(bench, cell, to), to, f"cell {cell.spec.run_id}: its checkpoint is not its last state")
    for path in cell.checkpoints():
        path.unlink()
    refused(export(bench, cell, to), to, f"cell {cell.spec.run_id} has no good checkpoint left in ")


def test_a_folder_that_cannot_be_written_is_refused_first(
    done: Runner, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_called(*_: Any) -> None:
        pytest.fail("the training was set up first")

    monkeypatch.setattr("benchmark.training.finished.prepare_training", not_called)
    (tmp_path / "file").write_text("x")
    finished = export(bench, done, tmp_path / "file/network")
    assert finished.code == 2
    assert f"{tmp_path / 'file'}" in finished.error
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("do not lose")
    finished = export(bench, done, tmp_path / "mine")
    assert (finished.code, finished.error) == (
        2,
        f"error: {tmp_path / 'mine'} holds other files: choose a new or empty folder",
    )
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    refused(export(bench, done, tmp_path / "n"), tmp_path / "n", "safetensors is not installed: pip install")


def test_a_place_where_no_folder_can_be_made_is_refused(done: Runner, bench: Bench) -> None:
    refused(export(bench, done, Path("/proc/network")), Path("/proc/network"), "/proc/network: ")


def test_missing_data_end_with_code_3(tmp_path: Path, bench: Bench) -> None:
    spec = dataclasses.replace(make_spec(epochs=1), data=Data(name="mnist"))
    cell = runner(tmp_path / "runs", make_spec(epochs=1))
    assert cell.run().status == "done"
    results.remember(tmp_path / "runs", "other", (), [spec])
    document = json.loads((cell.cell / "result.json").read_text())
    shutil.copytree(cell.cell, cell.execution.cell(spec.run_id))
    sealed_again = sealed({**document, "run_id": spec.run_id})
    (cell.execution.cell(spec.run_id) / "result.json").write_text(json.dumps(sealed_again))
    for path in cell.execution.cell(spec.run_id).glob("attempts/*/checkpoint-*.json"):
        path.write_text(json.dumps(sealed({**json.loads(path.read_text()), "run_id": spec.run_id})))
    options = ("--data-dir", tmp_path / "none")
    finished = export(bench, Runner(tmp_path / "runs", spec), tmp_path / "network", *options)
    refused(finished, tmp_path / "network", str(tmp_path / "none"), code=3)


@pytest.mark.parametrize("options", [("--from", "mlflow"), ("--where", "method=dst")], ids=lambda options: options[0])
def test_options_of_tables_do_not_go_with_a_checkpoint(
    options: tuple[str, str], done: Runner, bench: Bench, tmp_path: Path
) -> None:
    refused(export(bench, done, tmp_path / "n", *options), tmp_path / "n", "--checkpoint takes --to DIR, a new folder")
    finished = bench("export", "--checkpoint", done.spec.run_id, "--out", done.execution.out)
    refused(finished, tmp_path / "n", "--checkpoint takes --to DIR, a new folder")
    finished = bench("export", "--suite", "digits", "--out", done.execution.out)
    refused(finished, tmp_path / "n", "--suite is an option of --checkpoint")


def test_a_result_that_names_no_state_is_refused(done: Runner, tmp_path: Path, bench: Bench) -> None:
    to, out = tmp_path / "network", tmp_path / "runs"
    shutil.copytree(done.execution.out, out)
    cell = Runner(out, done.spec)
    result = {name: value for name, value in (result_of(cell.cell) or {}).items() if name != "state_sha256"}
    write_json(cell.cell / "result.json", sealed(result))
    refused(export(bench, cell, to), to, f"cell {cell.spec.run_id}: its checkpoint is not its last state")
