"""`load` refuses damaged and hostile folders in one line with the file, and changes nothing."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from released import Network
from safetensors.torch import load_file, save_file
from torch import nn

import methods


def relist(folder: Path, name: str) -> None:
    """List the size and the checksum of a changed file in release.json, as a stranger would."""
    content = (folder / name).read_bytes()
    facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    change(folder, lambda document: document["files"].update({name: facts}))


def change(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads((folder / "release.json").read_text())
    edit(document)
    (folder / "release.json").write_text(json.dumps(document))


def rewrite(folder: Path, name: str, **changes: torch.Tensor | None) -> None:
    state = load_file(folder / name) | changes
    save_file({key: value for key, value in state.items() if value is not None}, folder / name)
    relist(folder, name)


def refused(folder: Path, message: str, *, form: Any = "dense", where: str | None = None) -> None:
    """An error in one line that names the file; the model is as it was."""
    model = Network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message) as raised:
        methods.load(folder, model=model, form=form)
    assert str(folder / where if where else folder) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_flipped_bit_and_a_cut_file_are_found(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    refused(folder, f"it has {len(content) - 1} bytes, and release.json says {len(content)}", where=path.name)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(folder, "its SHA-256 is", where=path.name)
    path.unlink()
    refused(folder, "model.safetensors is missing")


def test_a_pipe_and_a_folder_do_not_pass_for_files(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    refused(folder, "no regular file", where="model.safetensors")
    (folder / "release.json").unlink()
    (folder / "release.json").mkdir()
    refused(folder, "no regular file", where="release.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[]", "is damaged"),
        (b'{"format": 2}', "it has format 2, and this version reads format 1"),
        (b'{"format": 1}', "it has no 'files'"),
        (b'{"format": 1, "files": {"model.safetensors": {"bytes": -1, "sha256": ""}}}', "-1 is no size"),
        (b'{"format": 1, "files": {}, "masks": {"a": [1e400]}, "csr": {}, "network": null}', "inf is no size"),
        (b'{"format": 1, "files": {}, "masks": {"a": 3}, "csr": {}, "network": null}', "a shape is no list"),
        (b'{"format": 1, "files": {}, "masks": {}, "csr": {}, "network": {"builder": 3, "arguments": {}}}', "builder"),
        (b'{"format": 1, "files": {}, "masks": {}, "csr": {}, "network": null}', "has no model.safetensors; it has"),
    ],
)
def test_a_release_json_that_is_none_is_refused(content: bytes, message: str, folder: Path) -> None:
    (folder / "release.json").write_bytes(content)
    refused(folder, message)


def test_a_header_that_claims_terabytes_takes_no_memory(folder: Path) -> None:
    size = 2**42
    header = json.dumps({"hidden.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, size]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    relist(folder, "model.safetensors")
    refused(folder, "is damaged", where="model.safetensors")


def test_a_file_of_holes_is_not_read(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 2**40)
    change(folder, lambda document: document["files"]["model.safetensors"].update(bytes=2**40))
    refused(folder, "it has 1099511627776 bytes, more than", where="model.safetensors")


def test_a_pickle_is_not_read(folder: Path) -> None:
    torch.save(Network().state_dict(), folder / "model.safetensors")
    relist(folder, "model.safetensors")
    refused(folder, "is damaged", where="model.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden.weight": torch.zeros(20, 53)}, r"'hidden.weight' is \[20, 53\], and the model has \[20, 54\]"),
        ({"hidden.weight": torch.zeros(20, 54).double()}, "'hidden.weight' is torch.float64, and the model has torch."),
        ({"hidden.weight": None}, "the state lacks 'hidden.weight'"),
        ({"stranger": torch.zeros(3)}, "the state has 'stranger', which this model lacks"),
        ({"head.bias": torch.tensor(0.0)}, r"'head.bias' is \[\], which cannot be cut out of \[3\]"),
    ],
)
def test_tensors_of_another_model_are_refused(changes: dict[str, Any], message: str, folder: Path) -> None:
    rewrite(folder, "model.safetensors", **changes)
    refused(folder, message, where="model.safetensors")


def test_a_compact_network_whose_layers_do_not_fit_is_refused(folder: Path) -> None:
    state = load_file(folder / "model-compact.safetensors")
    rewrite(folder, "model-compact.safetensors", **{"head.weight": state["head.weight"][:, :-1].contiguous()})
    message = "'head.weight' is .*, and the state's other layers need"
    refused(folder, message, form="compact", where="model-compact.safetensors")


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("col_indices", lambda a: a + 10_000, "'hidden.weight' is damaged: a column is outside"),
        ("col_indices", lambda a: a.long(), "'hidden.weight' is damaged: indices are not int32"),
        ("crow_indices", lambda a: a.flip(0), "'hidden.weight' is damaged: row offsets do not rise"),
        ("values", lambda a: a[:-1], "'hidden.weight' is damaged: its arrays have"),
        ("values", lambda a: None, "'hidden.weight' is damaged: values is missing"),
    ],
)
def test_csr_arrays_that_are_no_matrix_are_refused(part: str, value: Any, message: str, folder: Path) -> None:
    name = "model-csr.safetensors"
    rewrite(folder, name, **{f"hidden.weight.{part}": value(load_file(folder / name)[f"hidden.weight.{part}"])})
    refused(folder, message, form="csr", where=name)


@pytest.mark.parametrize("shape", [[2**31, 2**31], [2**62, 2**62], [20, 53], [1080], []])
def test_a_false_shape_of_a_csr_weight_takes_no_memory(shape: list[int], folder: Path) -> None:
    change(folder, lambda document: document["csr"].update({"hidden.weight": shape}))
    refused(folder, "hidden.weight", form="csr", where="model-csr.safetensors")


@pytest.mark.parametrize("shape", [[2**31, 2**31], [20, 53], [3]])
def test_a_false_shape_of_a_mask_takes_no_memory(shape: list[int], folder: Path) -> None:
    change(folder, lambda document: document["masks"].update({"hidden.weight": shape}))
    with pytest.raises(
        ValueError, match=r"masks\.safetensors: 'hidden\.weight' is damaged: it is torch\.uint8 \[135\]"
    ):
        methods.load_masks(folder)


def test_masks_of_other_names_are_refused(folder: Path) -> None:
    change(folder, lambda document: document["masks"].pop("hidden.weight"))
    with pytest.raises(ValueError, match=r"masks\.safetensors has other names than release\.json says"):
        methods.load_masks(folder)


def test_a_network_that_nobody_builds_has_to_be_given(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"does not say how its network is built: give the network, methods\.load\("):
        methods.load(folder)
    change(folder, lambda document: document.update(network={"builder": "os.system", "arguments": {}}))
    with pytest.raises(ValueError, match=r"no installed package builds networks of 'os\.system': give the network"):
        methods.load(folder)
    with pytest.raises(ValueError, match=r"a state does not say how its network is built"):
        methods.load(Network().state_dict())


def test_a_model_that_is_none_or_carries_a_method_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="model makes dict: give a torch"):
        methods.load(folder, model=dict)
    model = Network()
    methods.attach(model, "static", total_steps=4, steps_per_epoch=2, density=0.1)
    with pytest.raises(ValueError, match="the model carries a method"):
        methods.load(folder, model=model)
    with pytest.raises(ValueError, match="form is 'sparse'; valid: dense, csr, compact"):
        methods.load(folder, model=Network, form="sparse")  # type: ignore[arg-type]


def test_a_release_without_dead_units_has_no_compact_form(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    methods.save(model, tmp_path / "network")
    with pytest.raises(
        ValueError, match=re.escape("has no model-compact.safetensors; it has masks.safetensors, model")
    ):
        methods.load(tmp_path / "network", model=model, form="compact")


def test_the_networks_own_code_does_not_run(folder: Path) -> None:
    (folder / "network.py").write_text("raise SystemExit('the code of a stranger ran')\n")
    relist(folder, "network.py")
    assert methods.load(folder, model=Network) is not None


def test_without_safetensors_a_line_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    message = r"^safetensors is not installed: pip install safetensors, or 'sparse-training-bench\[release\]'$"
    with pytest.raises(ValueError, match=message):
        methods.load(folder, model=Network)
    with pytest.raises(ValueError, match=message):
        methods.save(Network(), folder.parent / "other")


@pytest.mark.parametrize("shape", [[2**64 - 1, 0], [0, 2**62, 2**62]])
def test_a_tensor_of_nothing_whose_sizes_overflow_is_refused(shape: list[int], folder: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    relist(folder, "model.safetensors")
    refused(folder, re.escape(f"'x' is damaged: its shape is {shape}"), where="model.safetensors")


@pytest.mark.parametrize("name", ["a\n\x1b[2J", "x" * 10**6])
def test_names_that_no_line_can_show_are_refused(name: str, folder: Path) -> None:
    rewrite(folder, "model.safetensors", **{name: torch.zeros(1)})
    refused(folder, "is no name of up to 1000 characters that print", where="model.safetensors")
    change(folder, lambda document: document["csr"].update({name: [2, 2]}))
    refused(folder, "is no name of up to 1000 characters that print", where="release.json")
    with pytest.raises(ValueError, match="is no name of up to 1000 characters that print"):
        methods.save(nn.ModuleDict({name: nn.Linear(4, 3)}), folder.parent / "other")


def test_a_checksum_and_a_builder_do_not_write_on_the_terminal(folder: Path) -> None:
    text = (folder / "release.json").read_text()
    change(folder, lambda document: document["files"]["model.safetensors"].update(sha256="\n\x1b[2J"))
    refused(folder, "is no name", where="release.json")
    (folder / "release.json").write_text(text)
    arguments = {"model": {"name": "lenet-300-100"}, "\x1b[2J": 1}
    change(folder, lambda document: document.update(network={"builder": "benchmark", "arguments": arguments}))
    with pytest.raises(ValueError, match="its network cannot be built: unknown argument") as raised:
        methods.load(folder)
    assert str(raised.value).isprintable()


def test_links_that_lead_to_themselves_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("model.safetensors")
    refused(folder, "cannot be read: Too many levels of symbolic links", where="model.safetensors")


def test_a_state_whose_values_are_no_tensors_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'features\.0\.weight' is int, and the model has a tensor"):
        methods.load(dict.fromkeys(Network().state_dict(), 3), model=Network())
