"""MNIST: checksums before parsing, every layout, and messages that say what to do."""

from __future__ import annotations

import functools
import gzip
import http.server
import os
import socket
import threading
from pathlib import Path

import pytest
import torch

from benchmark import data
from benchmark.data import checked, mnist
from benchmark.data.torchvision_import import import_torchvision
from benchmark.spec import Data

CPU = torch.device("cpu")
NAMES = [f"{name}.gz" for name in mnist.FILES]
# of `zcat` over the four files: training images and labels, then test images and labels
FINGERPRINT = "b2d8f5bf39174ee5ffeefa97e42d673c35432b411bb5d1f74fbbeddae7f1690a"


@pytest.fixture(scope="session")
def real() -> Path:
    folder = os.environ.get("BENCH_TEST_DATA")
    if folder is None or not (Path(folder) / "mnist").is_dir():
        pytest.skip("BENCH_TEST_DATA names no folder with MNIST in its mnist/")
    return Path(folder)


@pytest.fixture(scope="session")
def unpacked(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    (folder / "MNIST/raw").mkdir(parents=True)
    for name in NAMES:
        content = gzip.decompress((real / "mnist" / name).read_bytes())
        (folder / "MNIST/raw" / name.removesuffix(".gz")).write_bytes(content)
    return folder


@pytest.fixture
def copy(real: Path, tmp_path: Path) -> Path:
    return _linked(real, tmp_path / "mnist")


@pytest.fixture(params=["mnist, packed", "torchvision, packed", "torchvision, unpacked"])
def layout(request: pytest.FixtureRequest, real: Path, unpacked: Path, tmp_path: Path) -> Path:
    if request.param == "torchvision, unpacked":
        return unpacked
    _linked(real, tmp_path / ("mnist" if request.param == "mnist, packed" else "MNIST/raw"))
    return tmp_path


def _linked(real: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).symlink_to((real / "mnist" / name).resolve())
    return folder.parent


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that torchvision downloads from, none to begin with."""
    addresses: list[str] = []
    monkeypatch.setattr(import_torchvision().datasets.MNIST, "mirrors", addresses)
    monkeypatch.setenv("no_proxy", "*")
    return addresses


@pytest.mark.data
def test_every_layout_gives_the_same_images(layout: Path) -> None:
    loaded = data.load(Data(name="mnist", standardize=True), data_dir=layout, device=CPU)
    assert loaded.train.images.shape == (60000, 1, 28, 28)
    assert loaded.test.images.shape == (10000, 1, 28, 28)
    assert loaded.train.images.dtype == torch.uint8
    assert loaded.train.labels.dtype == torch.int64
    assert loaded.train.labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert loaded.test.labels[:8].tolist() == [7, 2, 1, 0, 4, 1, 4, 9]
    assert loaded.train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert int(loaded.train.images[0, 0, 5, 12:16].sum()) == 3 + 18 + 18 + 18  # the first 5, where its bar begins
    assert [round(float(x), 4) for x in (loaded.mean, loaded.std)] == [0.1307, 0.3081]


@pytest.mark.data
def test_every_layout_is_verified_with_one_fingerprint(layout: Path) -> None:
    lines = data.verify("mnist", layout)
    assert len(lines) == 4
    assert all("good" in line and str(layout) in line for line in lines)
    assert data.fingerprint("mnist", layout) == FINGERPRINT


@pytest.mark.data
def test_images_equal_those_of_torchvision(unpacked: Path) -> None:
    theirs = import_torchvision().datasets.MNIST(str(unpacked), train=False)
    ours = data.load(Data(name="mnist"), data_dir=unpacked, device=CPU).test
    assert torch.equal(ours.images[:, 0], theirs.data)
    assert torch.equal(ours.labels, theirs.targets)


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_named_with_both_checksums(copy: Path, name: str) -> None:
    path = copy / "mnist" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    for use in (data.verify, data.fingerprint):
        with pytest.raises(data.DataError) as caught:
            use("mnist", copy)
        message = str(caught.value)
        assert str(path) in message
        assert mnist.SHA256[name] in message
        assert "\n" not in message
        found = message.partition("found ")[2][:64]
        assert found != mnist.SHA256[name]
        assert set(found) <= set("0123456789abcdef")
    with pytest.raises(data.DataError, match=name):
        data.load(Data(name="mnist"), data_dir=copy, device=CPU)


@pytest.mark.data
def test_a_corrupt_file_is_not_passed_over_for_a_good_one(copy: Path) -> None:
    bad = copy / "MNIST/raw" / NAMES[0]
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"not it")
    with pytest.raises(data.DataError, match="MNIST/raw"):
        data.load(Data(name="mnist"), data_dir=copy, device=CPU)


def test_missing_files_are_named_and_nothing_else_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(data.DataError) as caught:
        data.load(Data(name="mnist"), data_dir=tmp_path, device=CPU)
    message = str(caught.value)
    assert "train-images-idx3-ubyte.gz is missing" in message
    assert mnist.SHA256[NAMES[0]] in message
    assert "data fetch mnist" in message
    assert str(tmp_path / "mnist") in message
    assert "\n" not in message


@pytest.mark.data
def test_fetch_leaves_good_files_alone(copy: Path, mirror: list[str]) -> None:
    data.fetch("mnist", copy)
    assert sorted(path.name for path in copy.iterdir()) == ["mnist"]


@pytest.mark.data
def test_fetch_downloads_what_load_reads(
    real: Path, tmp_path: Path, mirror: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(real / "mnist"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror.append(f"http://127.0.0.1:{server.server_port}/")
        data.fetch("mnist", tmp_path)
        server.shutdown()
    assert len(data.verify("mnist", tmp_path)) == 4
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("answers", [False, True], ids=["refused", "silent"])
def test_fetch_without_a_network_says_which_files_to_put_where(
    answers: bool, tmp_path: Path, mirror: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked, "TIMEOUT_SECONDS", 0.3)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if answers:
            server.listen()  # the connection is made, and never a word follows
        mirror.append(f"http://127.0.0.1:{server.getsockname()[1]}/")
        with pytest.raises(data.DataError) as caught:
            data.fetch("mnist", tmp_path)
    message = str(caught.value)
    assert all(name in message for name in NAMES)
    assert str(tmp_path / "mnist") in message
    assert "\n" not in message
    assert socket.getdefaulttimeout() is None


def test_fetch_into_a_place_that_cannot_be_made_is_a_data_error(tmp_path: Path, mirror: list[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(data.DataError, match="file"):
        data.fetch("mnist", tmp_path / "file")
