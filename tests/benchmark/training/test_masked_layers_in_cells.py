"""`run --execution`: recorded with the engine, no part of the spec; another one on a resume is drift."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import grids
import pytest
import torch
from one_cell import Runner, make_spec, runner

from benchmark.run_folder.files import read_json
from benchmark.spec import RunSpec, SpecError
from benchmark.suites import cell as spec_of
from benchmark.training.cell import DriftError
from benchmark.training.execution import Execution, masked_layers
from benchmark.training.finished import trained

pytestmark = pytest.mark.usefixtures("one_thread")


def static() -> RunSpec:
    like = make_spec()
    return spec_of("static", data=like.data, model=like.model, optimizer=like.optimizer, density=0.1)


def run_in(folder: Path, how: str, spec: RunSpec) -> Runner:
    cell = Runner(folder, spec) if folder.exists() else runner(folder, spec)
    cell.execution = dataclasses.replace(cell.execution, masked_layers=masked_layers(how))
    return cell


def test_a_sparse_cell_ends_where_a_dense_one_does(tmp_path: Path) -> None:
    ends = {}
    for how in ("dense", "sparse"):
        cell = run_in(tmp_path / how, how, static())
        assert cell.run().status == "done"
        ends[how] = trained(cell.spec, cell.execution)
        engine = read_json(tmp_path / how / "cells" / cell.spec.run_id / "environment.json")["engine"]
        assert engine.get("execution_sparse") == (True if how == "sparse" else None)
    (dense, of_dense), (sparse, of_sparse) = ends["dense"], ends["sparse"]
    assert of_dense["measured"]["density"] == of_sparse["measured"]["density"]
    others = sparse.model.state_dict()
    for name, value in dense.model.state_dict().items():
        torch.testing.assert_close(value, others[name], rtol=0, atol=1e-5)
        assert torch.equal(value == 0, others[name] == 0), name


def test_a_stopped_sparse_cell_goes_on_with_equal_bits_and_in_no_other_execution(tmp_path: Path) -> None:
    whole = run_in(tmp_path / "whole", "sparse", static())
    assert whole.run().status == "done"
    stopped = run_in(tmp_path / "stopped", "sparse", static())
    assert stopped.run(stop_after=2).status == "interrupted"
    with pytest.raises(DriftError, match=r"engine: execution_sparse\+.* -> .*--accept-drift"):
        run_in(tmp_path / "stopped", "dense", static()).run()
    assert stopped.run().status == "done"
    assert grids.bits(tmp_path / "stopped") == grids.bits(tmp_path / "whole")


def test_the_execution_travels_to_other_machines() -> None:
    execution = Execution(out=Path("runs"), data_dir=Path("data"), masked_layers="auto")
    assert Execution.from_dict(execution.to_dict()) == execution


def test_an_unknown_execution_is_one_line(tmp_path: Path, bench: grids.Bench) -> None:
    finished = bench("run", "--execution", "fast", "--out", tmp_path)
    assert finished.code == 2
    assert "--execution 'fast': valid are dense, sparse, auto" in finished.error
    with pytest.raises(SpecError):
        masked_layers("")
