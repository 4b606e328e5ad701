"""The model card of a release: README.md with a YAML head, as data and model hubs read it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from methods.release import files

PLAIN = """\
from network import Network  # network.py of this folder
from safetensors.torch import load_file

model = Network()
model.load_state_dict(load_file("model.safetensors"))
model.eval()
"""
STATE = """\
from safetensors.torch import load_file

state = load_file("model.safetensors")  # a tensor by name, for a model of your own: model.load_state_dict(state)
"""
USES = {
    "model.safetensors": "the network, every tensor of its `state_dict`; pruned weights are 0",
    "model-csr.safetensors": "the same network; weights that keep less than 20 % as CSR arrays (`NAME.crow_indices`, "
    "`NAME.col_indices`, `NAME.values` of `NAME.flatten(1)`)",
    "model-compact.safetensors": "the network without neurons and filters that cannot affect the output",
    "masks.safetensors": "the masks as bits: bit i of byte j, from the lowest, is weight 8 j + i",
    "model.onnx": "the compact network, or the whole one where nothing could be cut, as an ONNX program",
    "network.py": "the network as plain PyTorch",
    files.DOCUMENT: "sizes, checksums and shapes, which `methods.load` checks",
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card says of one network.

    title: the heading. head: further keys of the YAML head, plain values. text: Markdown that
    follows the heading: how it was trained, and what was measured.
    """

    title: str = "A sparse network"
    head: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True)
class Layer:
    """A maskable weight in the card's table."""

    name: str
    shape: Sequence[int]
    kept: int
    weights: int


def card_text(card: Card, layers: Sequence[Layer], names: Sequence[str], *, builds: bool) -> str:
    """The Markdown. names: the folder's files. builds: whether `methods.load` builds the network."""
    sections = [card.text.strip(), _layers(layers), _loading(names, builds=builds), _files(names)]
    return "\n".join([_head(card), f"# {card.title}", "", "\n\n".join(filter(None, sections)), ""])


def _head(card: Card) -> str:
    """The YAML head. Values are written as JSON, which is YAML too."""
    head = {"library_name": "pytorch", "tags": ["sparse-training", "pruning"], **card.head}
    return "\n".join(
        [
            "---",
            *(f"{key}: {json.dumps(value, allow_nan=False, ensure_ascii=False)}" for key, value in head.items()),
            "---",
        ]
    )


def _layers(layers: Sequence[Layer]) -> str:
    rows = [_row(f"`{layer.name}`", str(list(layer.shape)), layer.kept, layer.weights) for layer in layers]
    rows.append(_row("all", "", sum(layer.kept for layer in layers), sum(layer.weights for layer in layers)))
    return "## Layers\n\n" + table(["weight", "shape", "kept by the mask", "density"], rows)


def _row(name: str, shape: str, kept: int, weights: int) -> list[str]:
    return [name, shape, f"{kept} of {weights}", f"{100 * kept / weights:.2f} %"]


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _loading(names: Sequence[str], *, builds: bool) -> str:
    model = "" if builds else ", model=your_model"
    blocks = [
        "## Loading",
        "With torch and safetensors only, in this folder:",
        _code(PLAIN if "network.py" in names else STATE),
        "With the package `sparse-training-bench`, which compares sizes, checksums and shapes first:",
        _code(f'import methods\n\nmodel = methods.load("."{model})  # the network in evaluation mode\n'),
    ]
    if files.FORMS["compact"] in names:
        named = " `CompactNetwork` of network.py is its class." if "network.py" in names else ""
        blocks.append(
            f'`methods.load("."{model}, form="compact")` loads the compact network from '
            f"`{files.FORMS['compact']}`.{named}"
        )
    return "\n\n".join(blocks)


def _code(text: str) -> str:
    return f"```python\n{text}```"


def _files(names: Sequence[str]) -> str:
    return "## Files\n\n" + table(
        ["file", "holds"], [[f"`{name}`", use] for name, use in USES.items() if name in names]
    )
