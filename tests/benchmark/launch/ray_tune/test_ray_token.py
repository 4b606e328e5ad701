"""A Ray of our own answers only to its own processes: a token that exists nowhere but in their environment."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grids
import pytest

from benchmark.launch.ray_tune.launcher import RayLauncher
from benchmark.training.execution import Execution

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
MODE, TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
FOLDER = "a [b] %41 #1 ?x=y 'q'"
CLIENT = """
import sys
from ray._raylet import GcsClient

client = GcsClient(address=sys.argv[1])
client.internal_kv_put(b"key", b"value", True, b"ours", timeout=20)
print(client.internal_kv_get(b"key", b"ours", timeout=20).decode())
"""


@dataclass(frozen=True)
class Running:
    """A grid that trains on a Ray of its own. store: the address of Ray's control store."""

    out: Path
    home: Path
    ray: list[int]
    server: int

    @property
    def token(self) -> str:
        return variable(self.server, TOKEN)

    @property
    def session(self) -> Path:
        return Path(option(self.server, "--session-dir"))

    @property
    def host(self) -> str:
        return option(self.server, "--node-ip-address")

    @property
    def store(self) -> str:
        return f"{self.host}:{self.port('gcs_server')}"

    def port(self, name: str) -> str:
        (file,) = self.session.glob(f"{name}_port_*")
        return file.read_text().strip()


def variable(pid: int, name: str) -> str:
    entries = dict(entry.partition("=")[::2] for entry in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    return entries.get(name, "")


def arguments(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def option(pid: int, name: str) -> str:
    return next(word.removeprefix(f"{name}=") for word in arguments(pid) if word.startswith(f"{name}="))


def descendants(pid: int) -> list[int]:
    return [member for child in grids.children(pid) for member in (child, *descendants(child))]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The user's own settings turn authentication off; a home folder of its own shows what is written there."""
    folder, home = tmp_path_factory.mktemp("grid") / FOLDER, tmp_path_factory.mktemp("home")
    folder.mkdir()
    suite = grids.write_suite(folder / "grid.py", {"lenet-300-100": 100_000}, methods=["dst"])
    command = ("run", "--suite", suite, "--out", folder / "runs", "--launcher", "ray", "--workers", "1", "--no-mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")))  # built kernels
        patch.setenv("HOME", str(home))
        patch.setenv(MODE, "disabled")
        patch.delenv(TOKEN, raising=False)
        process = grids.start(*command, checkpoint_seconds=0.2)
    try:
        grids.wait_for_a_checkpoint(folder / "runs")
        ray = descendants(process.pid)
        (server,) = (pid for pid in ray if "gcs_server" in arguments(pid)[0])
        yield Running(folder / "runs", home, ray, server)
    finally:
        process.send_signal(signal.SIGINT)
        finished = grids.finish(process)
    assert finished.code == 130, finished.stderr


def client(address: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A stranger's process, or with the token one of ours: it writes into Ray's control store and reads it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", CLIENT, address]
    return subprocess.run(command, env=inherited | variables, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.rare
@pytest.mark.parametrize(
    "variables",
    [{MODE: "disabled"}, {MODE: "token", TOKEN: "0" * 64}],
    ids=["without a token", "with another token"],
)
def test_a_stranger_is_refused(running: Running, variables: dict[str, str]) -> None:
    refused = client(running.store, **variables)
    assert refused.returncode != 0
    assert "value" not in refused.stdout
    assert "Unauthenticated" in refused.stderr or "InvalidAuthToken" in refused.stderr, refused.stderr


@pytest.mark.slow
@pytest.mark.rare
def test_a_process_with_the_token_reads_and_writes(running: Running) -> None:
    served = client(running.store, **{MODE: "token", TOKEN: running.token})
    assert (served.returncode, served.stdout) == (0, "value\n"), served.stderr


@pytest.mark.slow
@pytest.mark.rare
def test_ray_refuses_http_requests_without_the_token(running: Running) -> None:
    """Its agent creates environments for tasks: it installs packages and runs commands."""
    url = f"http://{running.host}:{running.port('runtime_env_agent')}/get_or_create_runtime_env"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, data=b""), timeout=20)
    assert refused.value.code in (401, 403)


@pytest.mark.slow
@pytest.mark.rare
def test_the_token_is_in_no_arguments_and_no_file(running: Running) -> None:
    assert len(running.token) == 64
    assert not [pid for pid in running.ray if running.token in "".join(arguments(pid))]
    folders = (running.out, running.session / "logs", running.home)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        with contextlib.suppress(FileNotFoundError):  # a checkpoint that a newer one has replaced meanwhile
            assert running.token.encode() not in path.read_bytes(), path
    assert not (running.home / ".ray").exists()


def test_each_ray_of_our_own_has_a_token_of_its_own(tmp_path: Path) -> None:
    first, second = (settings(tmp_path, address=None) for _ in range(2))
    assert first[MODE] == second[MODE] == "token"
    assert len({first[TOKEN], second[TOKEN]}) == 2


def test_a_ray_that_the_user_names_keeps_the_users_settings(tmp_path: Path) -> None:
    assert settings(tmp_path, address="127.0.0.1:6379") == {}


@pytest.mark.slow
@pytest.mark.rare
@pytest.mark.parametrize("version", ["2.50.1", "2.51.0", "1.13.0", "2.9.3"])
def test_a_ray_that_knows_no_token_is_refused(version: str) -> None:
    from benchmark.launch.ray_tune.driver import check_version  # importing Ray takes seconds

    with pytest.raises(ValueError, match=f"Ray {version} cannot refuse strangers: pip install"):
        check_version(version)
    check_version("2.52.0")
    check_version("3.0.0.dev0")


def settings(out: Path, *, address: str | None) -> dict[str, str]:
    """What a launcher sets for its driver beyond the user's own variables."""
    return RayLauncher(Execution(out=out, data_dir=out), workers=1, address=address, cells=1).authentication
