"""Fashion-MNIST shares MNIST's reader; the real files are not available, so made-up ones stand in."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import struct
import threading
from pathlib import Path

import pytest
import torch

from benchmark import data
from benchmark.data import fashion_mnist, idx, mnist
from benchmark.data.torchvision_import import import_torchvision
from benchmark.spec import Data

CPU = torch.device("cpu")
FILES = {f"{name}.gz": (12 if "train" in name else 5, "images" in name) for name in idx.FILES}


def packed(examples: int, images: bool) -> bytes:
    """An IDX file: images of 28x28 whose pixels are their number, or labels 0, 1, 2…"""
    if not images:
        return gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, examples) + bytes(i % 10 for i in range(examples)))
    pixels = b"".join(bytes([number]) * 784 for number in range(examples))
    return gzip.compress(struct.pack(">BBBBIII", 0, 0, 8, 3, examples, 28, 28) + pixels)


@pytest.fixture(params=["FashionMNIST/raw", "fashion-mnist"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder in either layout, its checksums those that are expected."""
    inside = tmp_path / request.param
    inside.mkdir(parents=True)
    for name, (examples, images) in FILES.items():
        content = packed(examples, images)
        (inside / name).write_bytes(content)
        monkeypatch.setitem(fashion_mnist.MD5, name, hashlib.md5(content).hexdigest())
    return tmp_path


def test_either_layout_is_read(folder: Path) -> None:
    loaded = data.load(Data(name="fashion-mnist"), data_dir=folder, device=CPU)
    assert loaded.train.images.shape == (12, 1, 28, 28)
    assert loaded.train.images[:, 0, 3, 5].tolist() == list(range(12))
    assert loaded.train.labels.tolist() == [*range(10), 0, 1]
    assert loaded.test.labels.tolist() == [0, 1, 2, 3, 4]
    assert (loaded.classes, loaded.train.images.dtype, loaded.train.labels.dtype) == (10, torch.uint8, torch.int64)


def test_files_are_verified_with_one_fingerprint(folder: Path) -> None:
    lines = data.verify("fashion-mnist", folder)
    assert len(lines) == 4
    assert all("good, MD5 " in line and str(folder) in line for line in lines)
    whole = b"".join(gzip.decompress(packed(*FILES[f"{name}.gz"])) for name in idx.FILES)
    assert data.fingerprint("fashion-mnist", folder) == hashlib.sha256(whole).hexdigest()


def test_a_changed_file_is_refused(folder: Path) -> None:
    path = next(folder.rglob("t10k-labels*"))
    path.write_bytes(gzip.compress(b"not it"))
    with pytest.raises(data.DataError, match=r"t10k-labels-idx1-ubyte\.gz is corrupt: expected MD5"):
        data.load(Data(name="fashion-mnist"), data_dir=folder, device=CPU)


def test_unpacked_files_have_no_known_checksum_and_are_not_read(tmp_path: Path) -> None:
    inside = tmp_path / "FashionMNIST/raw"
    inside.mkdir(parents=True)
    for name in idx.FILES:
        (inside / name).write_bytes(b"anything")
    with pytest.raises(data.DataError, match=r"train-images-idx3-ubyte\.gz is missing \(expected MD5 8d4fb7e6"):
        data.verify("fashion-mnist", tmp_path)


def test_mnist_files_are_not_taken_for_it(folder: Path) -> None:
    with pytest.raises(data.DataError, match="MNIST is not in"):
        data.verify("mnist", folder)
    assert not set(fashion_mnist.MD5.values()) & set(mnist.SHA256.values())


def test_checksums_are_those_of_torchvision() -> None:
    assert dict(import_torchvision().datasets.FashionMNIST.resources) == fashion_mnist.MD5


@pytest.mark.parametrize("reachable", [True, False])
def test_fetch_downloads_what_load_reads(
    folder: Path, tmp_path: Path, reachable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = import_torchvision().datasets.FashionMNIST
    served = next(folder.rglob("*.gz")).parent if reachable else tmp_path / "nothing"
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    monkeypatch.setattr(source, "resources", list(fashion_mnist.MD5.items()))
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(source, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        try:
            if reachable:
                data.fetch("fashion-mnist", tmp_path / "fresh")
                assert len(data.verify("fashion-mnist", tmp_path / "fresh")) == 4
            else:
                with pytest.raises(data.DataError, match=r"FashionMNIST could not be downloaded: put train-images"):
                    data.fetch("fashion-mnist", tmp_path / "fresh")
        finally:
            server.shutdown()
