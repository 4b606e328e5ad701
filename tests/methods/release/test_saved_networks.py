"""What `save` writes, and that `load`, the card's own lines and torch read the same network back."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import released
import torch
import yaml
from released import Network, X
from safetensors.torch import load_file
from torch import Tensor, nn

import methods

FILES = ["README.md", "masks.safetensors", "model-compact.safetensors", "model-csr.safetensors", "model.safetensors"]


def equal(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def blocks(folder: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)


def test_all_files_are_there(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "network.py", "release.json"])
    assert [path.name for path in folder.parent.iterdir()] == ["network"], "nothing is left beside it"


@pytest.mark.parametrize("form", ["dense", "csr"])
@pytest.mark.parametrize("given", ["module", "function"])
def test_the_network_comes_back_bit_for_bit(form: Any, given: str, tmp_path: Path) -> None:
    model = released.release(tmp_path / "network")
    fresh = Network()
    loaded = methods.load(tmp_path / "network", model=fresh if given == "module" else Network, form=form)
    assert (loaded is fresh) == (given == "module")
    assert equal(loaded, model)
    assert not any(module.training for module in loaded.modules())
    assert torch.equal(loaded(X), model(X))


def test_the_compact_network_comes_back(folder: Path) -> None:
    compact = methods.load(folder, model=Network, form="compact")
    assert compact.hidden.out_features < 20
    torch.testing.assert_close(compact(X), methods.load(folder, model=Network)(X), rtol=1e-5, atol=1e-5)


def test_weights_below_a_fifth_are_csr_and_the_others_whole(tmp_path: Path) -> None:
    model, attached = released.trained()
    methods.save(model, tmp_path / "network", masks=attached.masks())
    state = load_file(tmp_path / "network/model-csr.safetensors")
    below = [name for name, mask in attached.masks().items() if mask.double().mean() < 0.2]
    assert 0 < len(below) < 3
    for name, tensor in model.state_dict().items():
        if name in below:
            matrix = tensor.flatten(1)
            parts = [state.pop(f"{name}.{part}") for part in ("crow_indices", "col_indices", "values")]
            assert torch.equal(
                torch.sparse_csr_tensor(*parts, size=matrix.shape, check_invariants=True).to_dense(), matrix
            )
        else:
            assert torch.equal(state.pop(name), tensor)
    assert state == {}


def test_masks_come_back_and_start_another_training(tmp_path: Path) -> None:
    model, attached = released.trained()
    methods.save(model, tmp_path / "network", masks=attached.masks())
    masks, expected = methods.load_masks(tmp_path / "network"), attached.masks()
    assert masks.keys() == expected.keys()
    assert all(torch.equal(mask, expected[name]) for name, mask in masks.items())
    again = methods.attach(Network(), "static", total_steps=4, steps_per_epoch=2, density=0.1)
    again.set_masks(masks)
    assert again.density() == attached.density()


def test_without_masks_the_weights_that_are_not_0_count_as_kept(tmp_path: Path) -> None:
    model, _ = released.trained("static")
    methods.save(model, tmp_path / "network")
    for name, mask in methods.load_masks(tmp_path / "network").items():
        assert torch.equal(mask, model.get_parameter(name) != 0)


def run(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that code defines in this folder, where this project's packages cannot be imported."""
    with monkeypatch.context() as inside:
        inside.chdir(folder)
        inside.syspath_prepend(str(folder))
        for name in ("methods", "benchmark", "analysis"):
            inside.setitem(sys.modules, name, None)
        inside.delitem(sys.modules, "network", raising=False)
        names: dict[str, Any] = {}
        exec(code, names)
        sys.modules.pop("network", None)
    return names


@pytest.mark.parametrize("form", ["dense", "compact"])
def test_the_cards_five_lines_load_the_network_without_this_package(
    form: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = blocks(folder)
    assert len([line for line in plain.splitlines() if line]) == 5
    if form == "compact":  # as the card says
        assert "`CompactNetwork` of network.py is its class" in (folder / "README.md").read_text()
        plain = plain.replace("Network()", "CompactNetwork()").replace("import Network", "import CompactNetwork")
        plain = plain.replace("model.safetensors", "model-compact.safetensors")
    model = run(plain, folder, monkeypatch)["model"]
    assert type(model).__module__ == "network"
    assert torch.equal(model(X), methods.load(folder, model=Network, form=form)(X))


def test_the_cards_other_block_names_the_model_that_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"your_model": Network()}
    exec(blocks(folder)[1], names)
    assert torch.equal(names["model"](X), methods.load(folder, model=Network)(X))


def test_the_cards_head_is_yaml_with_what_was_given(tmp_path: Path) -> None:
    model, attached = released.trained()
    card = methods.Card(title="Tiny | net", head={"tags": ["a: b"], "license": "mit"}, text="Trained on *air*.")
    methods.save(model, tmp_path / "network", masks=attached.masks(), card=card)
    _, head, body = (tmp_path / "network/README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head) == {"library_name": "pytorch", "tags": ["a: b"], "license": "mit"}
    assert body.startswith("# Tiny | net\n\nTrained on *air*.\n")
    kept = {name: int(mask.sum()) for name, mask in attached.masks().items()}
    for name, count in kept.items():
        assert f"| `{name}` | {list(model.get_parameter(name).shape)} | {count} of " in body
    assert f"| all |  | {sum(kept.values())} of 1194 | {100 * attached.density():.2f} % |" in body


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(x) if x.sum() > 0 else -self.fc(x)
        return logits


def test_what_cannot_be_made_is_left_out_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_out = methods.save(Branching(), tmp_path / "network", example=torch.ones(2, 4))
    assert left_out["model-csr.safetensors"] == "no weight keeps less than 20%"
    assert "cannot be traced" in left_out["model-compact.safetensors"]
    assert "cannot be traced" in left_out["network.py"]
    assert left_out["model.onnx"].endswith("not installed: pip install 'sparse-training-bench[onnx]'")
    assert not {path.name for path in (tmp_path / "network").iterdir()} & left_out.keys()
    plain, _ = blocks(tmp_path / "network")
    assert sorted(run(plain, tmp_path / "network", monkeypatch)["state"]) == ["fc.bias", "fc.weight"]


def test_a_module_that_does_not_print_its_call_has_no_source(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(128, 3))
    left_out = methods.save(model, tmp_path / "network", example=X)
    assert left_out["network.py"].startswith("the network cannot be written as plain PyTorch: ")


def test_saving_twice_changes_nothing_and_another_network_is_refused(folder: Path) -> None:
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    released.release(folder)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before
    other, _ = released.trained("static")
    with pytest.raises(ValueError, match="holds another network's files, or edited ones"):
        methods.save(other, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {n: v[0] for n, v in before.items()}


def test_a_folder_with_other_files_is_refused_and_an_empty_one_is_filled(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("do not lose")
    model, _ = released.trained()
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'mine'} holds other files")):
        methods.save(model, tmp_path / "mine")
    with pytest.raises(ValueError, match="is a file or a link"):
        methods.save(model, tmp_path / "mine/thesis.txt")
    (tmp_path / "mine/thesis.txt").unlink()
    methods.save(model, tmp_path / "mine")
    assert (tmp_path / "mine/release.json").is_file()


def test_the_current_folder_is_filled_if_it_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    model, _ = released.trained()
    methods.save(model, ".")
    assert (tmp_path / "here/release.json").is_file()


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    model, _ = released.trained()
    monkeypatch.setattr("methods.release.files._sync", fail)
    with pytest.raises(OSError, match="No space left"):
        methods.save(model, tmp_path / "new/network")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_model_that_carries_a_method_is_refused(tmp_path: Path) -> None:
    model = Network()
    attached = methods.attach(model, "static", total_steps=4, steps_per_epoch=2, density=0.1)
    with pytest.raises(ValueError, match=r"call methods\.finalize\(model\) first"):
        methods.save(model, tmp_path / "network")
    other = Network()
    with pytest.raises(ValueError, match=r"mask 'features\.0\.weight' prunes weights that are not 0"):
        methods.save(other, tmp_path / "network", masks=attached.masks())
    masks = {"hidden.weight": torch.ones(3, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"mask 'hidden\.weight' is torch.bool \[3\], and the model has no such"):
        methods.save(other, tmp_path / "network", masks=masks)
    assert not (tmp_path / "network").exists()


def test_the_model_stays_as_it_was(tmp_path: Path) -> None:
    model, attached = released.trained()
    model.train()
    before = copy.deepcopy(model.state_dict())
    methods.save(model, tmp_path / "network", masks=attached.masks(), example=X)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_release_json_lists_every_file_but_itself_and_the_card(folder: Path) -> None:
    listed = json.loads((folder / "release.json").read_text())["files"]
    assert listed.keys() == {path.name for path in folder.iterdir()} - {"release.json", "README.md"}
    assert all(facts["bytes"] == (folder / name).stat().st_size for name, facts in listed.items())


def test_no_masks_and_a_model_without_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="masks is empty: leave it out"):
        methods.save(nn.Sequential(nn.Linear(4, 3)), tmp_path / "network", masks={})
    with pytest.raises(ValueError, match="'weight' is no plain tensor"):
        methods.save(nn.Linear(4, 3, device="meta"), tmp_path / "network")


def test_a_full_disk_names_the_folder_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        methods.save(nn.Sequential(nn.Linear(4, 3)), tmp_path / "network")
    assert raised.value.filename == str(tmp_path / "network")
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
import torch
import methods
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
methods.save(torch.nn.Linear(4, 3), sys.argv[1])
"""


def test_what_a_killed_save_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "network"])
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".network.")
    methods.save(nn.Linear(4, 3), tmp_path / "other")
    assert left.is_dir(), "another folder's"
    methods.save(nn.Linear(4, 3), tmp_path / "network")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["network", "other"]


def test_what_another_save_writes_at_the_same_time_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, models = os.fsync, [nn.Linear(4, 3)]

    def while_another_saves(descriptor: int) -> None:
        if models:
            methods.save(models.pop(), tmp_path / "network")
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", while_another_saves)
    with pytest.raises(OSError, match="Directory not empty"):  # the second save was first, and its folder is whole
        methods.save(nn.Linear(4, 3), tmp_path / "network")
    assert isinstance(methods.load(tmp_path / "network", model=nn.Linear(4, 3)), nn.Linear)
    assert [path.name for path in tmp_path.iterdir()] == ["network"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"masks": {"weight": [[True] * 4] * 3}}, "mask 'weight' is list: give a bool tensor of the weight's shape"),
        ({"masks": {"weight": torch.ones(3, 4, dtype=torch.bool).numpy()}}, "mask 'weight' is ndarray"),
        ({"masks": [torch.ones(3, 4, dtype=torch.bool)]}, r"masks is list: give attached\.masks\(\)"),
        ({"masks": torch.ones(3, 4, dtype=torch.bool)}, "masks is Tensor"),
        ({"example": [[1.0] * 4] * 2}, "example is list: give a tensor of at least two inputs"),
        ({"example": torch.ones(1, 4)}, r"example is \[1, 4\]: give a tensor of at least two inputs"),
        ({"example": torch.ones(2, 5)}, r"the model does not take the example, torch\.float32 \[2, 5\]: mat1 and mat2"),
        ({"example": torch.ones(2, 4, dtype=torch.long)}, r"does not take the example, torch\.int64 \[2, 4\]"),
        ({"example": torch.ones(2, 4, device="meta")}, "does not take the example"),
        ({"network": "mine"}, "network is 'mine': give the name of an entry point and a dict of its arguments"),
        ({"network": (3, {})}, r"network is \(3, {}\)"),
        ({"network": ("mine", {"size": torch.ones(1)})}, "network holds something that is no plain value: Object of"),
        ({"card": "A network"}, r"card is str: give a methods\.Card"),
        ({"card": methods.Card(head={"accuracy": float("nan")})}, "the card holds something that is no plain value"),
        ({"model": {"weight": torch.ones(3, 4)}}, r"model is dict: give a torch\.nn\.Module"),
    ],
)
def test_what_cannot_be_saved_is_refused_in_one_line(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        methods.save(**{"model": nn.Linear(4, 3), "folder": tmp_path / "network", **given})
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
