"""`speed inference`: a finished cell's network in its forms, and who is turned away. No speed is asserted."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from grids import Bench
from one_cell import PLUG_IN, Runner, flip_a_bit, make_spec, runner, sparse_cell

from benchmark import models, suites
from benchmark.spec import Model, SpecError
from benchmark.speed import inference
from benchmark.speed import network_forms as forms
from benchmark.training.finished import trained

pytestmark = pytest.mark.usefixtures("one_thread")
FEW = ("--steps", "5", "--device", "cpu", "--json")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Runner:
    """A cell with dead neurons, to be read only."""
    return sparse_cell(tmp_path_factory.mktemp("done"), "static")


def copied(done: Runner, folder: Path) -> Runner:
    shutil.copytree(done.execution.out, folder / "runs")
    return Runner(folder / "runs", done.spec)


def test_every_form_is_measured_at_both_batch_sizes(done: Runner, bench: Bench) -> None:
    finished = bench("speed", "inference", done.spec.run_id[:5], "--out", done.execution.out, *FEW)
    assert finished.code == 0, finished.stderr
    assert finished.stderr == ""
    document = json.loads(finished.stdout)
    names = ["masked-dense", "compact", "sparse", "csr"]
    assert [pair["form"] for pair in document["pairs"]] == 2 * names
    assert [pair["batch_size"] for pair in document["pairs"]] == [1] * 4 + [32] * 4
    for pair in document["pairs"]:
        assert pair["n"] == 5
        assert 0 < pair["ratio"]["lower"] <= pair["ratio"]["median"] <= pair["ratio"]["upper"]
    measured = {form["form"]: form for form in document["forms"]}
    assert list(measured) == ["dense", *names]
    assert measured["masked-dense"]["max_difference"] == 0
    assert measured["dense"]["max_difference"] is None
    for form in ("compact", "sparse", "csr"):
        assert measured[form]["max_difference"] < 1e-4
        assert measured[form]["equal_predictions"] == 1
    for form in ("compact", "csr"):
        assert measured[form]["bytes"] < measured["masked-dense"]["bytes"] == measured["dense"]["bytes"]
    assert measured["masked-dense"]["compressed_bytes"] < measured["dense"]["compressed_bytes"]
    before, after = document["layers"]["fc1.weight"]
    assert before == [300, 64]
    assert after[0] < 300
    assert document["cell"]["run_id"] == done.spec.run_id
    assert document["left_out"] == {}


def test_the_network_is_the_one_that_the_cells_result_describes(done: Runner) -> None:
    training, result = trained(done.spec, done.execution)
    networks, _ = forms.forms_of(training.model)
    labels = torch.cat([labels for _, labels in training.data.test_batches(32)])
    for network in networks.values():
        hits = inference.outputs_of(network, training).argmax(1) == labels
        assert 100 * float(hits.double().mean()) == pytest.approx(result["measured"]["test_accuracy"])
    assert all((weight != 0).all() for weight in forms.dense_of(training).parameters() if weight.dim() > 1)


def test_the_table_names_forms_cell_and_cut_layers(done: Runner, bench: Bench) -> None:
    finished = bench("speed", "inference", done.spec.run_id, "--out", done.execution.out, "--steps", "5")
    lines = finished.stdout.splitlines()
    assert lines[1].split()[:3] == ["masked-dense", "1", "5"]
    for words in ("compact", "csr", "100.00 %", "fc1.weight [300, 64] to ", "threads: 1"):
        assert words in finished.stdout


def test_a_recurrent_network_that_carries_its_state_has_no_compact_form(tmp_path: Path, bench: Bench) -> None:
    carried = Model(name="lstm-a", hidden_state="carried")
    spec = dataclasses.replace(make_spec(epochs=1), model=carried, step_records=None)
    cell = runner(tmp_path, spec)
    assert cell.run().status == "done"
    document = bench("speed", "inference", spec.run_id, "--out", tmp_path, *FEW).json
    assert [form["form"] for form in document["forms"]] == ["dense", "masked-dense", "sparse", "csr"]
    assert "cannot compact: the model (RowLSTM) cannot be traced" in document["left_out"]["compact"]


def test_an_unknown_run_is_one_line(done: Runner, bench: Bench, tmp_path: Path) -> None:
    finished = bench("speed", "inference", "nothing", "--out", done.execution.out)
    assert (finished.code, finished.stdout) == (2, "")
    assert "run id 'nothing': no cell has it" in finished.error
    finished = bench("speed", "inference", done.spec.run_id, "--out", tmp_path)
    assert finished.code == 2
    assert f"{tmp_path} is no run folder" in finished.error


def test_an_option_of_another_measurement_is_an_error(done: Runner, bench: Bench) -> None:
    finished = bench("speed", "inference", done.spec.run_id, "--out", done.execution.out, "--method", "dst")
    assert (finished.code, finished.stdout) == (2, "")
    assert "No such option: --method" in finished.stderr


def test_a_cell_that_is_not_done_is_one_line(tmp_path: Path, bench: Bench) -> None:
    cell = runner(tmp_path, make_spec())
    for status in ("pending", "interrupted"):
        finished = bench("speed", "inference", cell.spec.run_id, "--out", tmp_path)
        assert finished.code == 2
        assert f"cell {cell.spec.run_id} is pending: only a network that is trained to its end" in finished.error
        if status == "pending":
            assert cell.run(stop_after=1).status == "interrupted"


def test_a_lost_checkpoint_is_one_line(done: Runner, tmp_path: Path, bench: Bench) -> None:
    cell = copied(done, tmp_path)
    for path in cell.checkpoints():
        path.unlink()
    finished = bench("speed", "inference", cell.spec.run_id, "--out", cell.execution.out)
    assert finished.code == 2
    last = finished.stderr.splitlines()[-1]
    assert last.startswith(f"error: cell {cell.spec.run_id} has no good checkpoint left in ")


def test_an_older_state_does_not_pass_for_the_last(done: Runner, tmp_path: Path) -> None:
    cell = copied(done, tmp_path)
    flip_a_bit(cell.checkpoints()[-1], 0.5)
    with pytest.raises(SpecError, match="its checkpoint is not its last state"):
        trained(cell.spec, cell.execution)


def test_a_cell_of_a_plug_in_needs_the_file_that_registers_it(tmp_path: Path, bench: Bench) -> None:
    file = tmp_path / "tiny_suite.py"
    file.write_text(PLUG_IN)
    with models.plug_ins.temporary():
        cell = runner(tmp_path / "runs", suites.load(str(file)).specs[0])
        assert cell.run().status == "done"
    command = ("speed", "inference", cell.spec.run_id, "--out", cell.execution.out, *FEW)
    refused = bench(*command)
    assert (refused.code, "unknown model 'tiny'" in refused.error, "--suite" in refused.error) == (2, True, True)
    with models.plug_ins.temporary():
        assert bench(*command, "--suite", file).json["cell"]["model"] == "tiny"
