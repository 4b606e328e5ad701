"""The MLflow store of a run folder: its address, a client, and a lock that allows one sync."""

from __future__ import annotations

import atexit
import contextlib
import glob
import os
import re
import shutil
import sqlite3
import tempfile
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.results import FolderError
from benchmark.run_folder import attempts
from benchmark.run_folder.attempts import Attempt
from benchmark.run_folder.files import read_bytes, write_atomic

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

EXPERIMENT = "sparse-training-bench"
MISSING = "MLflow is not installed: 'pip install mlflow', then 'python -m benchmark sync'"
PATIENCE_SECONDS = 60.0
NO_ANSWER = "does not answer"
TEMPORARY = re.compile(r"\(Caused by|timed out|is locked|Connection (refused|reset|aborted)|error code 5\d\d")
SUFFIXES = (".json", ".jsonl", ".txt")  # of the artifacts that `sync` writes

Report = Callable[[str], None]


class TrackingError(Exception):
    """MLflow is missing, does not answer, or cannot hold this folder: a message of one line."""


def installed() -> bool:
    return find_spec("mlflow") is not None


def is_own() -> bool:
    """Whether a run folder has its own store: MLFLOW_TRACKING_URI is unset or empty."""
    return not os.environ.get("MLFLOW_TRACKING_URI")


def store_uri(out: Path) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite store in the run folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out.resolve() / 'mlflow.db'}"


def store_address(out: Path) -> str:
    """The store's address for people, without a password."""
    return _public(store_uri(out))


def folder_id(out: Path) -> str:
    """An id that distinguishes this run folder from others in a shared store; made once.

    Raises FolderError if its file is damaged.
    """
    path = out / "folder-id"
    if not path.exists():
        aside = path.with_name(f".folder-id.{uuid.uuid4().hex}.tmp")  # whole or absent: the disk may be full
        write_atomic(aside, uuid.uuid4().hex.encode())
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
        aside.unlink()
    try:
        name = read_bytes(path).decode().strip()
    except ValueError:
        name = ""
    if not re.fullmatch(r"[0-9a-f]{32}", name):
        raise FolderError(f"{path} is damaged: it holds 32 hexadecimal digits; move it away to get another id")
    return name


@contextlib.contextmanager
def turn(out: Path, wait_seconds: float, report: Report) -> Iterator[Attempt]:
    """Allow one sync of a folder at a time."""
    deadline = time.monotonic() + wait_seconds

    def wait() -> None:
        if time.monotonic() > deadline:
            raise TrackingError(f"another sync of {out} has been at work for {wait_seconds:.0f} s")
        report("waiting for another sync")
        time.sleep(0.5)

    with attempts.turn(out / ".mlflow-sync", wait=wait) as own:
        yield own


@contextlib.contextmanager
def trouble(out: Path) -> Iterator[None]:
    """Turn what MLflow raises into a TrackingError of one line, without the password."""
    try:
        yield
    except (TrackingError, FolderError):
        raise
    except Exception as error:
        uri = store_uri(out)
        text = (str(error).strip().splitlines() or [type(error).__name__])[0].replace(uri, _public(uri))
        cause = re.search(r"\(Caused by (.*)\)", text)  # the end of what `requests` says
        silent = f" {NO_ANSWER}" if TEMPORARY.search(text) else ""
        raise TrackingError(f"MLflow at {_public(uri)}{silent}: {(cause[1] if cause else text)[:200]}") from error


def _public(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)


def connect(out: Path, patience_seconds: float) -> MlflowClient:
    """A client whose calls each end within about `patience_seconds`.

    Creates the store if there is none.
    """
    if not installed():
        raise TrackingError(MISSING)
    uri = store_uri(out)
    if uri.startswith("sqlite:///") and Path(uri.removeprefix("sqlite:///")).is_dir():
        raise TrackingError(f"MLflow at {_public(uri)}: a folder lies where the database file should be: move it away")
    seconds = str(max(1, round(patience_seconds)))
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it draws one where tqdm is installed
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", seconds)
    os.environ.setdefault("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", seconds)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0" if patience_seconds < PATIENCE_SECONDS else "3")
    from mlflow.tracking import MlflowClient

    if uri.startswith("sqlite:///") and (is_own() or "?" not in uri):
        path = _plain(Path(uri.removeprefix("sqlite:///")).absolute())
        _create_sqlite(path)
        _check_database(path, patience_seconds / 8)
        uri = f"sqlite:///{path}?timeout={patience_seconds / 8:g}"  # MLflow tries four times and waits in between
    return MlflowClient(uri)


def _plain(path: Path) -> Path:
    """The store's path; through a link if it has characters that mean something in an address.

    `?` is one.
    """
    if not set("?#%") & set(str(path)):
        return path
    link = tempfile.mkdtemp(prefix="mlflow-store-")
    atexit.register(shutil.rmtree, link)
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(link, "folder").symlink_to(path.parent)
    return Path(link, "folder", path.name)


def _create_sqlite(path: Path) -> None:
    """Create the store under another name and rename it: half a store would be useless.

    Its default experiment, which nothing uses, gets an explicit folder: MLflow writes its own
    default, the current folder, unescaped into an SQL statement, where an apostrophe breaks it.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    make: Callable[..., object] = SqlAlchemyStore
    make(f"sqlite:///{aside}", (path.parent / "mlartifacts").as_uri())
    aside.rename(path)


def _check_database(path: Path, patience_seconds: float) -> None:
    """Raises TrackingError for a database with triggers or views that are not MLflow's.

    A trigger could move the artifacts of a run that is created just now to any folder. MLflow's own
    are on a table that is never written to from here.
    """
    address = f"{path.as_uri()}?mode=rw"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=patience_seconds)) as database:
        query = "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view') AND tbl_name <> 'secrets'"
        for kind, name in database.execute(query):
            raise TrackingError(f"{path} has a {kind} {name!r:.80}, which MLflow did not make: use another store")


def experiment(client: MlflowClient, out: Path) -> str:
    """The experiment's id.

    A server decides where artifacts are kept. Without one they are beside an SQLite database, and with
    another database in the run folder that comes first.
    """
    uri = store_uri(out)
    served = not re.match(r"(sqlite|mysql|postgresql|mssql)", uri)
    shared = uri.startswith("sqlite:///") and not is_own()  # run folders may be moved, and the database stays
    home = Path(uri.removeprefix("sqlite:///").partition("?")[0]).parent if shared else out
    place = (home / "mlartifacts").resolve().as_uri()
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        return str(client.create_experiment(EXPERIMENT, artifact_location=None if served else place))
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"the experiment {EXPERIMENT} was deleted: 'mlflow experiments restore -x {found.experiment_id}'"
        )
    if is_own() and found.artifact_location != place:
        raise TrackingError(
            f"{out / 'mlflow.db'} keeps its artifacts in {found.artifact_location}: "
            "the folder was moved or copied; delete mlflow.db and mlartifacts, then sync"
        )
    return str(found.experiment_id)


def _check_artifacts(run: Run, place: str) -> None:
    own = f"{place.rstrip('/')}/{run.info.run_id}/artifacts"
    known = re.fullmatch("[0-9a-f]{32}", run.info.run_id) and run.info.artifact_uri == own
    if not known and urllib.parse.urlsplit(run.info.artifact_uri).scheme in ("", "file"):  # else a server's matter
        raise TrackingError(
            f"MLflow run {run.info.run_id!r:.40} keeps its artifacts in {run.info.artifact_uri!r:.200}, which is not "
            f"its folder under {place!r:.200}: delete that run"
        )
    if known and urllib.parse.urlsplit(own).scheme in ("", "file"):
        _check_no_links(Path(urllib.request.url2pathname(urllib.parse.urlsplit(own).path)))


def _check_no_links(artifacts: Path) -> None:
    """Raises TrackingError if what is written to a run's artifacts would be written elsewhere.

    MLflow writes through links, and into a folder that has the name of the file.
    """
    wrong = [path for path in (artifacts.parent, artifacts) if path.is_symlink()]
    with contextlib.suppress(FileNotFoundError):  # the run has no artifact yet
        for entry in os.scandir(artifacts):
            if entry.is_symlink() or (entry.is_dir() and Path(entry.name).suffix in SUFFIXES):
                wrong.append(Path(entry.path))
    if wrong:
        raise TrackingError(f"{wrong[0]} is a link or a folder, not what 'sync' wrote there: remove it")


def search(client: MlflowClient, experiment: str, condition: str) -> Iterator[Run]:
    """Every run that meets the condition, oldest first.

    Raises TrackingError for one whose artifacts would be written outside its own folder.
    """
    place = client.get_experiment(experiment).artifact_location
    token = None
    while True:
        page = client.search_runs(
            [experiment], condition, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
        )
        for run in page:
            _check_artifacts(run, place)
            yield run
        token = page.token
        if not token:
            return
