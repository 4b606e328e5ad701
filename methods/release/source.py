"""A network as plain PyTorch source: `network.py` of a release, for readers without this package.

The source has a class with the network's modules, and the `forward` that torch.fx writes for its
graph. It is returned only if the network that it builds has the same state and the same output.
"""

from __future__ import annotations

import re
from pathlib import PurePath

import torch
from torch import Tensor, nn

from methods.compaction.graph import Network

HEAD = '''"""A sparse network as plain PyTorch. The weights are in the .safetensors files beside this file."""

import torch
from torch import nn
'''


def source(networks: dict[str, nn.Module], example: Tensor) -> str:
    """Source of a class for each network, by the class's name. The networks are in evaluation mode.

    example: an input [b, ...] of the networks. Raises ValueError where a network cannot be written:
    torch.fx cannot trace it, a module is not of torch.nn, or does not print the call that makes it.
    """
    text = HEAD + "".join(_class(name, network) for name, network in networks.items())
    for name, network in networks.items():
        _check(text, name, network, example)
    return text


def _class(name: str, network: nn.Module) -> str:
    lines = [f"\n\nclass {name}(nn.Module):", "    def __init__(self):", "        super().__init__()"]
    lines += [f"        {line}" for line in _modules(network)]
    return "\n".join([*lines, "", *(f"    {line}".rstrip() for line in _forward(network)), ""])


def _modules(network: nn.Module) -> list[str]:
    """The lines that make the modules. Modules of torch.nn print the call that makes them."""
    lines, made = [], set[str]()
    for path, module in network.named_modules():
        owner, _, name = path.rpartition(".")
        if owner in made or any(owner.startswith(f"{inner}.") for inner in made):
            continue
        whole = type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)
        if not whole and (module._parameters or module._buffers):
            raise ValueError(f"module '{path}' ({type(module).__name__}) has parameters of its own")
        if not path:
            continue
        made |= {path} if whole else set()
        call = f"nn.{module!r}" if whole else "nn.Module()"
        if name.isidentifier() and all(part.isidentifier() for part in owner.split(".") if part):
            lines.append(f"self.{path} = {call}")
        else:
            lines.append(f"self.get_submodule({owner!r}).add_module({name!r}, {call})")
    return lines


def _forward(network: nn.Module) -> list[str]:
    graph = Network(network).graph
    for node in graph.nodes:
        node.type = None
    text = graph.python_code("self").src.strip()
    return [re.sub(r";  \w+( = \w+)* = None$", "", line.split("  # ")[0]).rstrip() for line in text.splitlines()]


def _check(text: str, name: str, network: nn.Module, example: Tensor) -> None:
    """Raises ValueError unless the source builds the network."""
    names: dict[str, type[nn.Module]] = {}
    try:
        exec(compile(text, str(PurePath("network.py")), "exec"), names)
        built = names[name]()
        built.load_state_dict(network.state_dict())
        with torch.no_grad():
            same = torch.equal(built.eval()(example), network(example))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the network cannot be written as plain PyTorch: {reason}") from error
    if not same:
        raise ValueError("the network cannot be written as plain PyTorch: its source computes something else")
