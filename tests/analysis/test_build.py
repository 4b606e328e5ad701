"""The command: files, the data behind the figures, equal bytes, messages and exit codes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import synthetic

from analysis.__main__ import main
from analysis.build import OF_DATA_SET, build, exhibits
from analysis.data.conditions import Results
from analysis.data.layers_and_curves import layer_names
from analysis.data.read import InputError, load
from analysis.exhibits.figure4_to_6 import spread
from analysis.output.exhibit import NO_RUNS, Written

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "paper_figures/results"
MNIST = COMMITTED / "mnist-lenet-300-100"
TABLES = ("table1", "table1-verdicts", "table2", "table2-verdicts", "table3", "table3-verdicts", "verdicts", "tableA2")
OURS = ("pattern-consistency", "compact-networks", "alpha-interpolation", "verdict-power")
FIGURE = {".pdf", ".png", ".svg", ".csv"}


def command(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "analysis", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exhibits")
    results = synthetic.write(tmp_path_factory.mktemp("vgg16"), synthetic.vgg16(), vgg=True)
    build(load([MNIST, results]), out, only=["table1", "figure4", "figure5", "figure7"])
    return out


def records(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_committed_tables_build_and_say_what_was_written(tmp_path: Path) -> None:
    done = command("build", "--results", MNIST, "--out", tmp_path, "--only", "table1,figure2", "--only", "figure7")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"table1: {tmp_path}/table1.{{md,tex,csv}}"
    assert "figure7: not written (not run)" in done.stdout
    assert {path.suffix for path in tmp_path.glob("figure2.*")} == FIGURE


def test_exhibits_without_runs_share_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = (Path("table1.md"), Path("table1.csv"))
    made = [
        Written(name="table1", files=table, run_ids=("a",)), Written(name="table2", files=table, remark=NO_RUNS),
        Written(name="figure3", remark="not run"), Written(name="verdict-power", files=table, remark="needs no runs"),
    ]  # fmt: skip
    monkeypatch.setattr("analysis.build.build", lambda *_, **__: made)
    monkeypatch.setattr("sys.argv", ["analysis", "build", "--results", str(MNIST), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert capsys.readouterr().out.splitlines()[:-1] == [
        f"table1: {tmp_path}/table1.{{md,csv}}",
        f"verdict-power: {tmp_path}/verdict-power.{{md,csv}} (needs no runs)",
        "without runs: table2, figure3",
    ]


def test_the_committed_exhibits_are_what_the_committed_tables_give(tmp_path: Path) -> None:
    written = build(load([COMMITTED]), tmp_path, only=[*TABLES, "figure4"])
    for exhibit in written:
        for file in exhibit.files:
            if file.suffix in (".md", ".tex", ".csv"):
                assert file.read_bytes() == (ROOT / "paper_figures" / file.name).read_bytes(), file.name


def test_no_committed_exhibit_is_left_from_rows_that_give_it_no_more() -> None:
    folder = ROOT / "paper_figures"
    written = json.loads((folder / "manifest.json").read_text())["exhibits"]
    listed = {name for exhibit in written.values() for name in exhibit["files"]}
    assert {path.name for path in folder.iterdir() if path.is_file()} - listed == {"index.html", "manifest.json"}


@pytest.mark.parametrize(
    ("names", "row", "file"),
    [
        (("table1",), 2, "table1"),
        (("Table1",), 2, "Table1"),
        (("digits", "verdicts"), 3, "verdicts"),
        (("digits", "CLAIMS"), 3, "CLAIMS"),
        (("index",), 2, "index"),
        (("manifest",), 2, "manifest"),
        (("results",), 2, "results"),
        (("mnist-figure3",), 2, "mnist-figure3"),
        (("MNIST",), 2, "MNIST-figure3"),
        (("digits", "digits-figure7"), 3, "digits-figure7"),
        (("Digits", "digits"), 3, "digits"),
    ],
)
def test_a_data_set_with_the_name_of_another_file_is_refused_and_nothing_is_written(
    tmp_path: Path, names: tuple[str, ...], row: int, file: str
) -> None:
    rows = [synthetic.cell("lenet-300-100", "dst", 0, alpha=5e-4, dataset=name, protocol="") for name in names]
    refused(tmp_path, rows, row, file)


def test_two_networks_with_one_name_of_an_exhibit_are_refused(tmp_path: Path) -> None:
    named = (("a-b", "c"), ("a", "b-c"))
    rows = [synthetic.cell(model, "dst", 0, alpha=5e-4, dataset=name, protocol="") for name, model in named]
    refused(tmp_path, rows, 2, "a-b-c-resets")


def refused(tmp_path: Path, rows: list[dict[str, Any]], row: int, file: str) -> None:
    results = synthetic.write(tmp_path / "in", rows)
    with pytest.raises(InputError) as caught:
        build(load([results]), tmp_path / "out")
    dataset = rows[row - 2]["dataset"]
    assert f"{results / 'results.csv'}, row {row}: dataset '{dataset}'" in str(caught.value)
    assert f"its exhibit '{file}' would replace another file of that name" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_names_of_a_data_sets_exhibits_are_known(tmp_path: Path) -> None:
    """Those that no table of the paper has are what the data set adds to an empty build."""
    rows = [
        synthetic.cell("lenet-300-100", method, 0, alpha=alpha, dataset="mine", protocol="") | {"train_flops": 1e9}
        for method, alpha in (("dense", None), ("dst", 5e-4))
    ]
    mine = exhibits(Results(load([synthetic.write(tmp_path, rows)])))
    pending = [synthetic.cell("lenet-300-100", "dense", 0, status="pending")]
    nothing = exhibits(Results(load([synthetic.write(tmp_path, pending)])))
    assert set(mine) - set(nothing) == {f"mine{end}" for end in OF_DATA_SET}


@pytest.mark.slow
def test_two_builds_are_equal_byte_for_byte(tmp_path: Path) -> None:
    results = synthetic.write(tmp_path / "results", synthetic.vgg16(seeds=(0, 1)), vgg=True)
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second):
        build(load([MNIST, results]), out)
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    drawn = {*(f"figure{i}" for i in (1, 2, 3, 4, 5, 7)), "mnist-figure3", "mnist-figure7", "mnist-accuracy-density"}
    assert {name.split(".")[0] for name in names} >= {*TABLES, *OURS, "claims", "index", "manifest"} | drawn
    assert [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()] == []


def test_figure4s_data_are_the_traces(built: Path) -> None:
    runs = {row["run_id"]: row for row in records(MNIST / "results.csv")}
    sparse = {run_id for run_id, row in runs.items() if row["alpha"] == "0.0005"}
    wanted = {}
    for row in records(MNIST / "traces.csv"):
        first_epoch = row["step"] and row["epoch"] == "1"
        density = row["name"] == "density" or row["name"].startswith("density/")
        accuracy = not row["step"] and row["name"] == "test_accuracy"
        ours = row["run_id"] in sparse and ((density and (first_epoch or not row["step"])) or accuracy)
        if ours or (accuracy and runs[row["run_id"]]["method"] == "dense"):
            wanted[row["run_id"], row["epoch"], row["step"], row["name"]] = float(row["value"])
    found = {}
    for row in records(built / "figure4.csv"):
        for name, value in row.items():
            if (name == "test_accuracy" or name.startswith("density")) and value:
                found[row["run_id"], row["epoch"], row["step"], name] = float(value)
    assert found == wanted


def test_figure5s_data_are_the_traces_of_the_papers_alpha(built: Path) -> None:
    rows = [row for row in synthetic.vgg16() if row["alpha"] == 5e-6]
    wanted = {
        (row["run_id"], str(row["epoch"])): row["value"]
        for row in synthetic.traces(rows)
        if row["name"] == "density/fc2.weight"
    }
    found = {
        (row["run_id"], row["epoch"]): float(row["density/fc2.weight"])
        for row in records(built / "figure5.csv")
        if row["method"] == "dst"
    }
    assert found == wanted


def test_figure7s_data_are_the_layer_tables(built: Path) -> None:
    wanted = {
        (row["run_id"], row["parameter"]): (row["weights"], row["kept"])
        for row in synthetic.layers(row for row in synthetic.vgg16() if row["method"] == "dst")
    }
    found = {
        (row["run_id"], row["parameter"]): (int(row["weights"]), int(row["kept"]))
        for row in records(built / "figure7.csv")
    }
    assert found == wanted


def test_figures_leave_diverged_and_departing_seeds_out(tmp_path: Path) -> None:
    rows = synthetic.vgg16()
    rows[-1] |= {"status": "diverged"}
    rows[-5] |= {"departs": "optimizer.epochs=1 (suite: 160)"}
    build(load([synthetic.write(tmp_path / "in", rows, vgg=True)]), tmp_path / "out", only=["figure7"])
    shown = {row["run_id"] for row in records(tmp_path / "out/figure7.csv")}
    assert shown == {row["run_id"] for row in rows if row["method"] == "dst" and row not in (rows[-1], rows[-5])}


def test_fonts_are_embedded_and_svg_text_is_text(built: Path) -> None:
    assert b"/FontFile2" in (built / "figure5.pdf").read_bytes()
    svg = (built / "figure5.svg").read_text()
    assert ">FC 2<" in svg
    assert "DejaVu Sans" in svg
    assert "dc:date" not in svg


def test_only_writes_what_is_named(tmp_path: Path) -> None:
    done = command("build", "--results", COMMITTED, "--out", tmp_path, "--only", "table2")
    assert done.returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"table2.md", "table2.tex", "table2.csv"}


def test_a_build_into_the_published_exhibits_says_so(tmp_path: Path) -> None:
    """Without options that is what a build in a clone does, and it reads the folder runs as well."""
    shutil.copytree(MNIST, tmp_path / "paper_figures/results/mnist-lenet-300-100")
    shutil.copytree(MNIST, tmp_path / "runs")
    said = command("build", "--only", "table2", cwd=tmp_path).stdout.splitlines()[-1]
    assert said == (
        "paper_figures holds the published exhibits, which were now rebuilt from paper_figures/results, runs. "
        "git diff --stat shows what changed; --out DIR writes to another folder"
    )
    assert "published" not in command("build", "--only", "table2", "--out", "mine", cwd=tmp_path).stdout


def test_mistakes_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments, said in (
        (["--results", str(tmp_path / "nowhere")], "does not exist"),
        (["--results", str(COMMITTED), "--only", "tabel2"], "make no such exhibit: did you mean 'table2'? valid: "),
        (["--results", str(COMMITTED), "--only", ""], "--only names no exhibit"),
        (["--results", str(COMMITTED), "--out", str(tmp_path / "file")], "file: File exists"),
    ):
        done = command("build", "--out", tmp_path / "out", *arguments)
        assert done.returncode == 2, done
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_help_needs_no_plotting_library() -> None:
    code = "import sys, analysis.__main__; print([m for m in ('pandas', 'matplotlib', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_of_torch_is_imported_by_a_build() -> None:
    code = "import sys, analysis.build; print('torch' in sys.modules or 'mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_layers_are_named_as_the_paper_names_them() -> None:
    assert list(layer_names(["fc1.weight", "fc2.weight", "fc3.weight"]).values()) == ["Layer 1", "Layer 2", "Layer 3"]
    assert list(layer_names(["conv13.weight", "fc2.weight"]).values()) == ["Conv 13", "FC 2"]
    wrn = ["conv1", "group1.0.conv1", "group1.0.conv2", "group1.0.shortcut", "group1.1.conv1", "fc"]
    assert [*layer_names([f"{name}.weight" for name in wrn]).values()] == [
        "Conv 1", "Conv 2", "Conv 3", "Conv 4 (shortcut)", "Conv 5", "FC",
    ]  # fmt: skip
    resnet = ["conv1", "layer1.0.conv3", "layer1.0.downsample.0", "fc"]
    assert [*layer_names([f"{name}.weight" for name in resnet]).values()] == [
        "Conv 1", "Conv 2", "Conv 3 (shortcut)", "FC",
    ]  # fmt: skip
    assert list(layer_names(["lstm.weight_hh_l1", "odd.weight"]).values()) == ["LSTM 2 recurrent", "odd"]


def test_labels_are_spread_within_the_axis() -> None:
    assert spread([0.2, 0.5, 0.9], gap=0.1) == pytest.approx([0.2, 0.5, 0.9])
    assert spread([0.0, 0.0, 0.0], gap=0.25) == [0.0, 0.25, 0.5]
    assert spread([0.95, 1.0, 1.0], gap=0.25) == [0.5, 0.75, 1.0]
    assert spread([0.5, 0.5], gap=0.5) == [0.25, 0.75]
