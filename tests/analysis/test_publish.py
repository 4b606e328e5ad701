"""A published folder: whole, equal bytes, checksums that sha256sum takes, a card that data hubs read."""

from __future__ import annotations

import csv
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import pytest
import synthetic

import analysis.build
from analysis import publish as publishing
from analysis.__main__ import main
from analysis.data.read import InputError, load
from analysis.exhibits import verdict_tables
from analysis.exhibits.claims import table as claims
from analysis.output import card
from analysis.output.exhibit import Written
from analysis.publish import publish
from benchmark.results import COLUMNS, LAYERS, TRACES

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "paper_figures/results/mnist-compact"
yaml = pytest.importorskip("yaml")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed cells of one folder, with the exhibits that every card names."""
    to = tmp_path_factory.mktemp("published") / "a folder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis.build, "MAKERS", (verdict_tables.makers, claims.makers))
        publish(load([COMMITTED]), to)
    return to


@pytest.fixture
def few_exhibits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exhibits take seconds, and these tests are about the folder."""

    def build(tables: Any, out: Path) -> list[Written]:
        out.mkdir()
        (out / "verdicts.csv").write_text("counts,verdict\nTrue,not run\n")
        return []

    monkeypatch.setattr(publishing, "build", build)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def records(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_sha256sum_takes_the_checksums_and_they_are_of_every_file(published: Path) -> None:
    checked = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=published, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(b": OK\n") == len(content(published)) - 1
    (published / "layers.csv").write_bytes((before := (published / "layers.csv").read_bytes()) + b"\n")
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=published, capture_output=True).returncode == 1
    (published / "layers.csv").write_bytes(before)


def test_the_folder_holds_the_tables_page_claims_verdicts_licence_and_citation(published: Path) -> None:
    names = set(content(published))
    assert {"README.md", "LICENSE", "CITATION.cff", "results.csv", "traces.csv", "layers.csv"} <= names
    assert {f"exhibits/{name}" for name in ("index.html", "claims.csv", "verdicts.csv", "manifest.json")} <= names
    for name in ("results.csv", "traces.csv", "layers.csv"):
        mine, theirs = records(published / name), records(COMMITTED / name)
        ordered = sorted(theirs, key=itemgetter("run_id")) if name == "results.csv" else theirs
        absent = dict.fromkeys(mine[0].keys() - theirs[0].keys(), "")  # columns that came later
        assert mine == [absent | row for row in ordered]
    assert (published / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_card_names_every_table_that_is_there_and_the_licence_of_the_project(published: Path) -> None:
    _, head, body = (published / "README.md").read_text().split("---\n", 2)
    card_head = yaml.safe_load(head)
    assert card_head["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"].lower()
    assert [config["config_name"] for config in card_head["configs"] if config.get("default")] == ["results"]
    for config in card_head["configs"]:
        assert (published / config["data_files"]).is_file()
    for info in card_head["dataset_info"]:
        table = pd.read_csv(published / f"{info['config_name']}.csv", dtype={"run_id": str})
        assert [feature["name"] for feature in info["features"]] == list(table)
        for feature in info["features"]:
            kind = table[feature["name"]].dropna()
            assert kind.empty or pd.api.types.is_numeric_dtype(kind) == (feature["dtype"] == "float64"), feature
    total = sum(len(records(published / f"{name}.csv")) for name in ("results", "traces", "layers"))
    assert total > 1_000
    assert card_head["size_categories"] == ["1K<n<10K"]
    assert "12 cells: 12 done." in body


def test_columns_are_explained_from_one_source() -> None:
    for name, columns in (("results", COLUMNS), ("traces", TRACES), ("layers", LAYERS)):
        assert [column["column"] for column in card.columns(name)] == list(columns)
    page = (ROOT / "docs/reproducibility.md").read_text().split("### Columns of results.csv")[1]
    rows = re.findall(r"^\| `(\w+)` \| (\S*?) ?\| (.*) \|$", page, re.MULTILINE)[: len(COLUMNS)]
    told = [(c["column"], c["unit"], c["definition"].replace("|", "\\|")) for c in card.columns("results")]
    assert rows == told


@pytest.mark.usefixtures("few_exhibits")
def test_equal_tables_give_equal_bytes_wherever_they_lie(tmp_path: Path) -> None:
    rows = [synthetic.cell("vgg16", "dst", seed, alpha=alpha) for seed in range(2) for alpha in (1e-3, 2e-3)]
    first = synthetic.write(tmp_path / "x", rows, vgg=True)
    again = [synthetic.write(tmp_path / "y", rows[2:], vgg=True), synthetic.write(tmp_path / "z", rows, vgg=True)]
    publish(load([first]), tmp_path / "a")
    publish(load(again[::-1]), tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    publish(load([tmp_path / "a"]), tmp_path / "c")
    assert content(tmp_path / "a") == content(tmp_path / "c")


@pytest.mark.usefixtures("few_exhibits")
def test_numbers_keep_their_digits_and_a_cell_of_two_suites_both_names(tmp_path: Path) -> None:
    row = synthetic.cell("vgg16", "dst", 0, alpha=1e-3) | {"test_accuracy": "93.10000000000001", "train_flops": "12"}
    first = synthetic.write(tmp_path / "x", [row | {"suite": "one", "protocol": "", "departs": "set: method.alpha"}])
    second = synthetic.write(tmp_path / "y", [row | {"suite": "two", "protocol": "paper"}])
    publish(load([first, second]), tmp_path / "a")
    (found,) = records(tmp_path / "a" / "results.csv")
    assert (found["test_accuracy"], found["train_flops"], found["seed"]) == ("93.10000000000001", "12", "0")
    assert (found["suite"], found["protocol"], found["departs"]) == ("one;two", "paper", "")


@pytest.mark.usefixtures("few_exhibits")
def test_an_earlier_publication_is_replaced_and_anything_else_is_refused(tmp_path: Path) -> None:
    one = load([synthetic.write(tmp_path / "x", [synthetic.cell("vgg16", "dst", 0, alpha=1e-3)])])
    two = load([synthetic.write(tmp_path / "y", [synthetic.cell("vgg16", "dst", 1, alpha=1e-3)])])
    to = tmp_path / "made" / "published"
    publish(one, to)
    before = content(to)
    publish(two, to)
    assert content(to) != before
    assert [path.name for path in to.parent.iterdir()] == ["published"]
    for damage in ("a file of mine", "a changed file", "a file less", "a link", "a pipe"):
        publish(one, tmp_path / damage)
        victim = tmp_path / damage / "LICENSE"
        if damage == "a file of mine":
            (tmp_path / damage / "notes.txt").write_text("mine")
        elif damage == "a changed file":
            victim.write_text("mine")
        elif damage == "a file less":
            victim.unlink()
        elif damage == "a pipe":  # which nobody waits for
            victim.unlink()
            os.mkfifo(victim)
        else:
            victim.rename(tmp_path / "elsewhere")
            victim.symlink_to(tmp_path / "elsewhere")
        before = content(tmp_path / damage)
        with pytest.raises(InputError, match="holds other files than an unchanged publication"):
            publish(two, tmp_path / damage)
        assert content(tmp_path / damage) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is no folder"):
        publish(one, tmp_path / "file")


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(tables: Any, out: Path) -> list[Written]:
        raise InputError("no")

    monkeypatch.setattr(publishing, "build", fails)
    tables = load([synthetic.write(tmp_path / "x", [synthetic.cell("vgg16", "dst", 0, alpha=1e-3)])])
    with pytest.raises(InputError, match="no"):
        publish(tables, tmp_path / "out" / "published")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("few_exhibits")
def test_what_a_stranger_wrote_in_a_table_is_shown_as_text(tmp_path: Path) -> None:
    row = synthetic.cell("vgg16", "dst", 0, alpha=1e-3)
    row |= {"device": "---\nlicense: `mit`\n| <b>x</b>", "commit": "[a](http://x)"}
    publish(load([synthetic.write(tmp_path / "x", [row])]), tmp_path / "a")
    _, head, body = (tmp_path / "a" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "apache-2.0"
    assert r"| `--- license: 'mit' \| <b>x</b>` | `[a](http://x)` | 1 |" in body.splitlines()


@pytest.mark.usefixtures("few_exhibits")
def test_records_are_read_as_the_build_reads_them(tmp_path: Path) -> None:
    """With a byte order mark, and with a name that the module csv would refuse."""
    folder = tmp_path / "tables"
    shutil.copytree(COMMITTED, folder)
    rows = records(folder / "traces.csv")
    long = {**rows[0], "name": "x" * 200_000}
    for name in ("traces.csv", "layers.csv"):
        added = ",".join(long[column] for column in TRACES) + "\n" if name == "traces.csv" else ""
        (folder / name).write_text("\ufeff" + (folder / name).read_text() + added)
    publish(load([folder]), tmp_path / "to")
    lines = (tmp_path / "to/traces.csv").read_text().splitlines()
    assert len(lines) == 1 + len(rows) + 1
    assert any(long["name"] in line for line in lines)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="is a link that leads to itself: choose another name"):
        publish(load([COMMITTED]), tmp_path / "loop")


def test_an_interrupt_between_the_two_renames_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to, new, old = (tmp_path / name for name in ("to", "new", "old"))
    to.mkdir(), new.mkdir()
    (to / "earlier").write_text("kept")
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path == new:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    monkeypatch.setattr(publishing, "_exchanged", lambda one, other: False)  # as on a file system that cannot
    with pytest.raises(KeyboardInterrupt):
        publishing._replace(to, new, old)
    assert (to / "earlier").read_text() == "kept"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two folders at once")
@pytest.mark.usefixtures("few_exhibits")
def test_at_no_line_of_the_program_a_kill_would_lose_the_folder(tmp_path: Path) -> None:
    one, two = (load([synthetic.write(tmp_path / str(n), [synthetic.cell("vgg16", "dst", n)])]) for n in range(2))
    to = tmp_path / "published"
    publish(one, to)
    there = set()

    def look(frame: FrameType, event: str, _: Any) -> Any:
        there.add((to / "SHA256SUMS").is_file())
        return look

    before, trace = content(to), sys.gettrace()
    sys.settrace(lambda frame, *_: look if frame.f_code.co_filename == publishing.__file__ else None)
    try:
        publish(two, to)
    finally:
        sys.settrace(trace)
    assert there == {True}
    assert content(to) != before


KILLED = """
import os, signal, sys
from pathlib import Path
from analysis import publish
publish._write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
publish.publish(None, Path(sys.argv[1]))
"""


@pytest.mark.usefixtures("few_exhibits")
def test_what_a_killed_publish_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    to = tmp_path / "out" / "published"
    killed = subprocess.run([sys.executable, "-c", KILLED, to], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    (left,) = to.parent.iterdir()
    assert left.name.startswith(".published.")
    publish(load([synthetic.write(tmp_path / "x", [synthetic.cell("vgg16", "dst", 0, alpha=1e-3)])]), to)
    assert [path.name for path in to.parent.iterdir()] == ["published"]


@pytest.mark.parametrize("command", ["publish", "build"])
@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 1), (errno.EIO, 1), (errno.EACCES, 2)])
def test_a_full_disk_ends_with_the_documented_code(
    number: int, code: int, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """docs/reproducibility.md: 1, as for `python -m benchmark`; a folder that cannot be written is a mistake of use."""

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(publishing, "write_csv", fails)
    monkeypatch.setattr(Path, "write_text", fails)
    given = ["publish", "--to"] if command == "publish" else ["build", "--only", "verdict-power", "--out"]
    monkeypatch.setattr("sys.argv", ["analysis", *given, str(tmp_path / "out"), "--results", str(COMMITTED)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no space left under" if number == errno.ENOSPC else "error: ")
