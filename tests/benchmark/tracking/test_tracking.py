"""The MLflow mirror: everything arrives once, comes back equal, and a server in trouble costs a run seconds."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from grids import Bench, Finished, Grid, finish, kill_all, start, wait_for, write_suite

from benchmark import results
from benchmark.run_folder.attempts import Observer, claim, folder_of
from benchmark.run_folder.files import sealed, write_json
from benchmark.run_folder.result import result_of
from benchmark.tracking import background as mirror
from benchmark.tracking import store

pytest.importorskip("mlflow")
from mirrors import TABLES, check_mirror, contents, copy, export_from_mlflow, run, runs
from mlflow.tracking import MlflowClient

DELAY_SECONDS = 60.0
ONE = ("--where", "method=static")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server on SQLite."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--workers", "1"], stdout=log, stderr=log, env=environment, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    wait_for(lambda: answers(f"{address}/health"), "the MLflow server")
    yield address
    kill_all(process)


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:
        return bool(response.status == 200)
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- what arrives ---------------------------------------------------------------------------------------


def test_run_mirrors_every_record_by_itself(tracked: Grid) -> None:
    assert "warning" not in tracked.finished.stdout + tracked.finished.stderr
    check_mirror(tracked.out)
    assert [r.data.tags["method"] for r in runs(tracked.out, "metrics.density < 0.2 and tags.seed = '0'")] == ["static"]
    assert {r.data.tags["status"] for r in runs(tracked.out, "tags.kind = 'cell'")} == {"done", "diverged", "failed"}
    assert [r.info.run_name for r in runs(tracked.out, "tags.kind = 'suite'")] == ["mixed"]


def test_sync_again_changes_nothing(tracked: Grid, bench: Bench) -> None:
    before = contents(tracked.out)
    again = bench("sync", "--out", tracked.out, "--json")
    assert (again.code, again.json["cells"], again.json["changed"], again.json["records"]) == (0, 5, 0, 0)
    assert contents(tracked.out) == before


def test_the_tables_from_mlflow_alone_are_those_from_the_run_folder(
    tracked: Grid, bench: Bench, tmp_path: Path
) -> None:
    hidden = tracked.out.with_name("hidden")
    (tracked.out / "cells").rename(hidden)
    try:
        export_from_mlflow(bench, tracked.out, tmp_path)
    finally:
        hidden.rename(tracked.out / "cells")
    for name in TABLES:
        assert (tmp_path / name).read_bytes() == (tracked.out / name).read_bytes(), name


@pytest.mark.parametrize("uri", [None, ""])
def test_an_export_without_a_store_says_so(
    uri: str | None, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if uri is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert "has no mlflow.db" in bench("export", "--from", "mlflow", "--out", tmp_path).error
    assert not list(tmp_path.iterdir())
    assert "valid: folders, mlflow" in bench("export", "--from", "wandb", "--out", tmp_path).error


@pytest.mark.slow
@pytest.mark.parametrize(("calls", "arrives"), [(1, True), (2, False), (3, True), (9, True), (14, True)])
def test_sync_completes_an_import_that_was_cut_off(
    calls: int, arrives: bool, tracked: Grid, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = copy(tracked, tmp_path)
    shutil.copy(empty_store(tracked, tmp_path), grid.out / "mlflow.db")
    real, left = MlflowClient.log_batch, calls

    def log_batch(*arguments: Any, **options: Any) -> None:
        nonlocal left
        left -= 1
        if left or arrives:
            real(*arguments, **options)
        if left == 0:
            raise OSError("the line is cut")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", log_batch)
        assert "the line is cut" in bench("sync", "--out", grid.out).error
    assert bench("sync", "--out", grid.out).code == 0
    check_mirror(grid.out)


def empty_store(tracked: Grid, folder: Path) -> Path:
    """A store with MLflow's tables and nothing in them, quicker than making one."""
    path = folder / "empty.db"
    shutil.copy(tracked.out / "mlflow.db", path)
    with contextlib.closing(sqlite3.connect(path)) as store, store:
        for (table,) in store.execute("select name from sqlite_master where type = 'table'").fetchall():
            if table in ("runs", "tags", "params", "metrics", "latest_metrics", "experiments", "experiment_tags"):
                store.execute(f"delete from {table}")
    return path


def test_a_cell_that_went_back_to_a_checkpoint_is_imported_as_it_ended(
    tracked: Grid, bench: Bench, tmp_path: Path
) -> None:
    grid = copy(tracked, tmp_path)
    shutil.copy(empty_store(tracked, tmp_path), grid.out / "mlflow.db")
    cell = next(path for path in (grid.out / "cells").iterdir() if results_row(grid.out, path)["method"] == "dst")
    metrics = folder_of(cell, 1) / "metrics.jsonl"
    whole, kept = metrics.read_bytes(), {name: (cell / name).read_bytes() for name in ("result.json", "metrics.jsonl")}
    for name in kept:
        (cell / name).unlink()
    (folder_of(cell, 1) / "end.json").unlink()  # as a killed worker leaves it
    metrics.write_bytes(whole.replace(b'"train_seconds": 0.', b'"train_seconds": 1.')[:-5])  # the last record is torn
    assert bench("sync", "--out", grid.out).code == 0
    (partial,) = runs(grid.out, "tags.method = 'dst'")
    assert partial.data.tags["records"] == str(whole.count(b"\n") - 1)
    assert partial.data.tags["status"] == "pending"
    metrics.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert bench("sync", "--out", grid.out).code == 0
    assert [r.data.tags["records"] for r in runs(grid.out, "tags.method = 'dst'")] == ["2"]
    for name, content in kept.items():
        (cell / name).write_bytes(content)
    metrics.write_bytes(whole)
    assert bench("sync", "--out", grid.out).code == 0
    check_mirror(grid.out)


@pytest.mark.parametrize("content", [b"", b'{"epoch": 1, "step": 1, "loss": 2.0}\n'], ids=["nothing", "a step"])
def test_a_result_whose_records_have_no_epoch_is_imported_without_one(
    content: bytes, tracked: Grid, bench: Bench, tmp_path: Path
) -> None:
    """No program of ours writes it, and its checksums hold."""
    grid = copy(tracked, tmp_path)
    shutil.copy(empty_store(tracked, tmp_path), grid.out / "mlflow.db")
    cell = next(path for path in (grid.out / "cells").iterdir() if results_row(grid.out, path)["method"] == "dst")
    (cell / "metrics.jsonl").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    write_json(cell / "result.json", sealed({**(result_of(cell) or {}), "metrics_sha256": digest}))
    assert bench("sync", "--out", grid.out).code == 0
    (run,) = runs(grid.out, "tags.method = 'dst'")
    assert (run.data.tags["status"], run.data.tags.get("records", "0")) == ("done", str(content.count(b"\n")))


def results_row(out: Path, cell: Path) -> results.Row:
    return results.row(out, results.members(out)[cell.name])


@pytest.mark.slow
def test_a_second_sync_waits_for_the_first(tracked: Grid, bench: Bench) -> None:
    turn = claim(tracked.out / ".mlflow-sync", Observer())
    assert turn is not None
    try:
        assert "another sync of" in bench("sync", "--out", tracked.out, "--patience", "1").error
    finally:
        turn.end("done")
    assert bench("sync", "--out", tracked.out, "--patience", "5").code == 0


def test_a_moved_folder_is_reported_not_mixed(tracked: Grid, bench: Bench, tmp_path: Path) -> None:
    moved = tracked.copy(tmp_path / "elsewhere")
    assert "was moved or copied" in bench("sync", "--out", moved.out).error


def test_a_copy_and_its_original_do_not_undo_each_other_in_one_store_and_a_moved_folder_goes_on(
    tracked: Grid, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    original = copy(tracked, tmp_path)
    assert bench("sync", "--out", original.out).code == 0
    copied = original.copy(tmp_path / "copied")
    refused = bench("sync", "--out", copied.out)
    assert (refused.code, refused.error.count("\n")) == (1, 0)
    assert f"{copied.out} is a copy of {original.out} and has its id" in refused.error
    moved = original.out.rename(tmp_path / "moved")
    assert bench("sync", "--out", moved, "--json").json["changed"] == 0
    assert bench("export", "--from", "mlflow", "--out", moved, "--to", tmp_path / "tables").code == 0
    assert not original.out.exists(), "no artifacts are left in the old place, or go there"
    (copied.out / "folder-id").unlink()
    assert bench("sync", "--out", copied.out, "--json").json["changed"] == len(results.members(copied.out))
    assert bench("sync", "--out", moved, "--json").json["changed"] == 0


def test_without_mlflow_run_says_so_once(bench: Bench, tracked: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_NO_MLFLOW")
    monkeypatch.setattr(store, "installed", lambda: False)
    finished = bench("run", "--suite", tracked.suite, *ONE, "--out", tracked.out)
    assert finished.code == 0
    assert finished.stdout.count("MLflow is not installed") == 1
    assert "not installed" in bench("sync", "--out", tracked.out).error


# --- a real server --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_has_everything_over_its_own_api(
    server: str, tracked: Grid, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    grid = copy(tracked, tmp_path)
    assert bench("sync", "--out", grid.out).code == 0
    assert bench("sync", "--out", grid.out, "--json").json["changed"] == 0
    check_mirror(grid.out)
    export_from_mlflow(bench, grid.out, tmp_path / "to")
    for name in TABLES:
        assert (tmp_path / "to" / name).read_bytes() == (tracked.out / name).read_bytes(), name
    static, parent = runs(grid.out, "tags.method = 'static'")[0], runs(grid.out, "tags.kind = 'suite'")[0]
    plain = ask(server, "runs/get", run_id=static.info.run_id)["run"]
    assert {"key": "mlflow.parentRunId", "value": parent.info.run_id} in plain["data"]["tags"]
    points = ask(server, "metrics/get-history", run_id=static.info.run_id, metric_key="test_accuracy")["metrics"]
    assert [point["step"] for point in points] == [1, 2]


def ask(server: str, path: str, **query: str) -> Any:
    """Plain HTTP, without MLflow's client."""
    url = f"{server}/api/2.0/mlflow/{path}?{'&'.join(f'{n}={v}' for n, v in query.items())}"
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


@pytest.mark.slow
def test_running_cells_appear_while_they_run(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = write_suite(tmp_path / "long.py", {"lenet-300-100": 4000}, methods=["dense"])
    monkeypatch.delenv("BENCH_NO_MLFLOW")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    process = start("run", "--suite", suite, "--out", tmp_path / "runs", stdout=subprocess.DEVNULL)
    try:
        wait_for((tmp_path / "runs" / "folder-id").exists, "the first sync")
        wait_for(lambda: runs(tmp_path / "runs", "tags.kind = 'cell' and metrics.test_accuracy > 0"), "records")
        assert process.poll() is None
    finally:
        kill_all(process)


@pytest.mark.slow
def test_two_syncs_at_once_do_not_double(
    server: str, tracked: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    grid = copy(tracked, tmp_path)
    both = [start("sync", "--out", grid.out) for _ in range(2)]
    assert [finish(process).code for process in both] == [0, 0]
    check_mirror(grid.out)


# --- trouble ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def dead() -> Iterator[str]:
    yield f"http://127.0.0.1:{free_port()}"


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    """Accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield f"http://someone:secret@127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def failing() -> Iterator[str]:
    """Answers everything with 500."""

    class Failing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        def do_POST(self) -> None:
            self.send_error(500)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{service.server_port}"
        service.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(
    "trouble", [hanging, *(pytest.param(each, marks=pytest.mark.rare) for each in (dead, failing))]
)
def test_a_server_in_trouble_costs_seconds_and_sync_repairs(
    trouble: Callable[[], contextlib.AbstractContextManager[str]],
    server: str,
    tracked: Grid,
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "runs"
    with trouble() as uri:
        began = time.monotonic()
        finished = run(tracked.suite, out, *ONE, uri=uri)
        assert time.monotonic() - began < DELAY_SECONDS
    check_one_warning(finished)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert bench("sync", "--out", out).code == 0
    check_mirror(out)


def check_one_warning(finished: Finished) -> None:
    assert (finished.code, finished.stderr) == (0, "")
    (line,) = [line for line in finished.stdout.splitlines() if "MLflow" in line]
    assert line.startswith("warning: MLflow at ")
    assert line.endswith(mirror.REPAIR)
    assert "secret" not in line


@pytest.mark.slow
def test_a_locked_store_costs_seconds_and_sync_repairs(tracked: Grid, bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    out.mkdir()
    shutil.copy(tracked.out / results.MARKER, out)
    shutil.copy(empty_store(tracked, tmp_path), out / "mlflow.db")
    with contextlib.closing(sqlite3.connect(out / "mlflow.db")) as holder:
        holder.execute("begin exclusive")
        began = time.monotonic()
        finished = run(tracked.suite, out, *ONE)
        assert time.monotonic() - began < DELAY_SECONDS
    check_one_warning(finished)
    assert "locked" in finished.stdout
    assert bench("sync", "--out", out).code == 0
    check_mirror(out)


@pytest.mark.parametrize(
    ("child", "said", "repairs"),
    [
        (["sleep", "60"], "does not answer", True),
        (["sh", "-c", "yes"], "is slow", True),
        (["false"], "sync ended with exit code 1", False),
        (["sh", "-c", "echo error: MLflow at x does not answer: locked; exit 1"], "MLflow at x", True),
        (["sh", "-c", "echo error: MLflow at x: the schema is too new; exit 1"], "MLflow at x: the schema", False),
    ],
)
def test_a_child_that_hangs_or_never_ends_is_killed(
    child: list[str], said: str, repairs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.Popen
    children: list[subprocess.Popen[bytes]] = []

    def popen(_: list[str], **options: Any) -> subprocess.Popen[bytes]:
        children.append(real(child, **options))
        return children[-1]

    monkeypatch.setattr(mirror.subprocess, "Popen", popen)
    monkeypatch.setattr(mirror, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(mirror, "LAST_SECONDS", 1.0)
    warnings: list[str] = []
    mirror.Mirror(tmp_path, wanted=True, warn=warnings.append).finish()
    assert len(warnings) == 1
    assert said in warnings[0]
    assert warnings[0].endswith(mirror.REPAIR) is repairs  # only where a later sync can do better
    assert children[0].returncode is not None
