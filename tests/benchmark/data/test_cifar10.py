"""CIFAR-10: checked before it is unpickled, by a reader that runs nothing; the real images where they are."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import pickle
import shutil
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark import data
from benchmark.data import checked, cifar10
from benchmark.data.tensors import TensorDataset
from benchmark.data.torchvision_import import import_torchvision
from benchmark.spec import Data, Model, Optimizer
from benchmark.suites import cell
from benchmark.training.loop import Training, train_epoch

CPU = torch.device("cpu")
EACH = 4  # images in a made-up batch


def load(folder: Path, **fields: Any) -> TensorDataset:
    return data.load(Data(name="cifar10", **fields), data_dir=folder, device=CPU)


def pixels(name: str) -> np.ndarray:
    return np.random.default_rng(number(name)).integers(256, size=(EACH, 3072), dtype=np.uint8)


def number(name: str) -> int:
    return list(cifar10.MD5).index(name)


def packed(name: str) -> bytes:
    """{"labels": its number for each image, "data": its pixels}, in the opcodes of the official Python 2 pickles."""
    raw = pixels(name).tobytes()
    labels = b"U\x06labels](" + b"".join(b"K%c" % number(name) for _ in range(EACH)) + b"e"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(K%cM\x00\x0ct" % EACH
    array = empty + b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<I", len(raw)) + raw + b"tb"
    return b"\x80\x02}(" + labels + b"U\x04data" + array + b"u."


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes], None]:
    """Writes a batch file, and makes its MD5 the one that is expected."""

    def written(name: str, content: bytes) -> None:
        (tmp_path / cifar10.FOLDER).mkdir(exist_ok=True)
        (tmp_path / cifar10.FOLDER / name).write_bytes(content)
        monkeypatch.setitem(cifar10.MD5, name, hashlib.md5(content).hexdigest())

    return written


@pytest.fixture
def small(tmp_path: Path, write: Callable[[str, bytes], None]) -> Path:
    """Six small batches."""
    for name in cifar10.MD5:
        write(name, packed(name))
    return tmp_path


def test_batches_are_read_in_order_as_images(small: Path) -> None:
    loaded = load(small)
    assert loaded.train.images.shape == (5 * EACH, 3, 32, 32)
    assert loaded.train.labels.tolist() == [label for label in range(5) for _ in range(EACH)]
    assert loaded.test.labels.tolist() == [5] * EACH
    first = torch.tensor(pixels("data_batch_2")[0])
    assert torch.equal(loaded.train.images[EACH].flatten(), first)
    assert (loaded.classes, loaded.in_shape) == (10, (3, 32, 32))


def test_files_are_verified(small: Path) -> None:
    lines = data.verify("cifar10", small)
    assert len(lines) == 6
    assert all("good, MD5 " in line for line in lines)
    assert data.fingerprint("cifar10", small) == data.fingerprint("cifar10", small)
    data.fetch("cifar10", small)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
def test_nothing_is_unpickled_before_its_checksum(small: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small / cifar10.FOLDER / name
    bad = bytearray(path.read_bytes())
    bad[len(bad) // 2] ^= 1
    path.write_bytes(bad)
    seen: list[bytes] = []
    unpickle = cifar10.unpickle
    monkeypatch.setattr(cifar10, "unpickle", lambda content: seen.append(content) or unpickle(content))
    for use in (data.verify, data.fingerprint):
        with pytest.raises(data.DataError, match=f"{name} is corrupt: expected MD5 {cifar10.MD5[name]}, found"):
            use("cifar10", small)
    with pytest.raises(data.DataError, match=f"{name} is corrupt"):
        load(small)
    assert bytes(bad) not in seen


def test_a_pickle_that_would_run_code_is_refused(small: Path, write: Callable[[str, bytes], None]) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(small / "attacked"),)

    write("data_batch_1", pickle.dumps({"data": Attack(), "labels": []}, protocol=2))
    with pytest.raises(pickle.UnpicklingError, match="mkdir has no place in a CIFAR-10 batch"):
        load(small)
    assert not (small / "attacked").exists()


def test_a_missing_file_is_named_with_what_to_do(small: Path) -> None:
    (small / cifar10.FOLDER / "data_batch_4").unlink()
    with pytest.raises(data.DataError) as caught:
        load(small)
    message = str(caught.value)
    assert "cifar-10-batches-py/data_batch_4 is missing" in message
    assert cifar10.MD5["data_batch_4"] in message
    assert f"data fetch cifar10 --data-dir {small}" in message
    assert "\n" not in message


def test_fetch_without_a_network_says_what_to_unpack_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{server.getsockname()[1]}/cifar-10-python.tar.gz"
        monkeypatch.setattr(import_torchvision().datasets.CIFAR10, "url", address)
        with pytest.raises(data.DataError) as caught:
            data.fetch("cifar10", tmp_path)
    message = str(caught.value)
    assert f"unpack cifar-10-python.tar.gz into {tmp_path}" in message
    assert "\n" not in message


def test_fetch_downloads_what_load_reads(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = import_torchvision().datasets.CIFAR10
    served = tmp_path / "served"
    archive = Path(shutil.make_archive(str(served / "cifar-10-python"), "gztar", small, cifar10.FOLDER))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(source, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(source, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
        data.fetch("cifar10", tmp_path / "fresh")
        server.shutdown()
    assert len(load(tmp_path / "fresh").train) == 5 * EACH
    assert capsys.readouterr().out == ""


@pytest.mark.data
@pytest.mark.slow
def test_the_real_images_are_the_published_ones(cifar10_dir: Path) -> None:
    loaded = load(cifar10_dir, standardize=True, augment="crop-flip")
    assert loaded.train.images.shape == (50_000, 3, 32, 32)
    assert loaded.test.images.shape == (10_000, 3, 32, 32)
    assert loaded.train.labels.bincount().tolist() == [5000] * 10
    assert loaded.test.labels.bincount().tolist() == [1000] * 10
    assert [round(value, 4) for value in loaded.mean.tolist()] == [0.4914, 0.4822, 0.4465]
    assert [round(value, 4) for value in loaded.std.tolist()] == [0.2470, 0.2435, 0.2616]


@pytest.mark.data
@pytest.mark.slow
def test_real_images_equal_those_of_torchvision(cifar10_dir: Path) -> None:
    theirs = import_torchvision().datasets.CIFAR10(str(cifar10_dir), train=False)
    ours = load(cifar10_dir).test
    assert torch.equal(ours.images.permute(0, 2, 3, 1), torch.tensor(theirs.data))
    assert ours.labels.tolist() == theirs.targets
    assert len(data.verify("cifar10", cifar10_dir)) == 6


@pytest.mark.data
@pytest.mark.slow
def test_vgg16_learns_from_real_images(cifar10_dir: Path) -> None:
    images = Data(name="cifar10", train_limit=128, test_limit=50, standardize=True, augment="crop-flip")
    optimizer = Optimizer(lr=0.05, momentum=0.9, batch_size=16)
    live = Training(
        cell("dst", data=images, model=Model(name="vgg16"), optimizer=optimizer, alpha=5e-6),
        data.load(images, data_dir=cifar10_dir, device=CPU),
    )
    losses = []
    for _ in range(2):
        train_epoch(live, lambda: None)
        losses.append(float(live.loss_sum) / live.data.train_size)
    assert losses[1] < losses[0]
