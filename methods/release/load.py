"""Reads a released network. Nothing in the folder is trusted, and none of its code runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from methods.compaction.load import check_compact, check_layers_fit, load_compact
from methods.plug_ins import PlugIns
from methods.release import csr_and_bits, files
from methods.weights import masked_modules

Form = Literal["dense", "csr", "compact"]
networks = PlugIns("network", group="sparse_training.networks", own=lambda name: None, form="package.module:function")


def load(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    form: Form = "dense",
) -> nn.Module:
    """The network of a folder that `save` or `python -m benchmark export --checkpoint` wrote.

        model = methods.load("my-network")                         # a network of this project
        model = methods.load("my-network", model=MyNetwork)        # any other
        model = methods.load("my-network", form="compact")         # without its dead units

    source: the folder; or a `state_dict` that you saved yourself, of a whole or a compact network,
    which needs a model. model: a module of the architecture before compaction, with any values,
    which is loaded in place, or a function that returns one. Without it the network is built by the
    installed package that release.json names, as this project's networks are. form: which file is
    read; `dense` and `csr` give the same network.

    Returns the module in evaluation mode, of plain modules on the model's device. Nothing is
    unpickled. Sizes, checksums, shapes, types and indices are checked before the model is changed.
    Raises ValueError with the file and the tensor where one is missing or damaged or does not fit
    the model; also where safetensors is not installed, and where a model has to be given.
    """
    if form not in files.FORMS:
        raise ValueError(f"form is {form!r}; valid: {', '.join(files.FORMS)}")
    if isinstance(source, Mapping):
        if model is None:
            raise ValueError("a state does not say how its network is built: give it, methods.load(state, model=…)")
        return load_compact(_given(model), source).eval()
    document = files.read_document(Path(source))
    network = _built(document) if model is None else _given(model)
    state = _state(document, form, network)
    load_compact(network, state)
    if unset := [name for name, value in _tensors(network) if value.is_meta]:
        raise ValueError(f"{document.folder} has no value for '{unset[0]}': give the model, methods.load(…, model=…)")
    return network.eval()


def load_masks(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The masks of a released network by its weights' names, bool: true where a weight is kept.

    `attached.set_masks` takes them. Raises ValueError as `load` does.
    """
    document = files.read_document(Path(folder))
    with files.tensors(document, files.MASKS) as found:
        if set(found.heads) != set(document.masks):
            raise ValueError(f"{found.path} has other names than {files.DOCUMENT} says")
        for name, shape in document.masks.items():
            head = found.heads[name]
            if (head.dtype, head.shape) != (torch.uint8, (csr_and_bits.packed_bytes(shape),)):
                raise found.damaged(name, f"it is {head.dtype} {list(head.shape)} for a mask of {list(shape)}")
        return {name: _unpacked(found, name, shape) for name, shape in document.masks.items()}


def _unpacked(found: files.Tensors, name: str, shape: tuple[int, ...]) -> Tensor:
    try:
        return csr_and_bits.unpacked(found.read(name), shape)
    except ValueError as error:
        raise found.damaged(name, error) from error


def _given(model: nn.Module | Callable[[], nn.Module]) -> nn.Module:
    made = model() if callable(model) and not isinstance(model, nn.Module) else model
    if not isinstance(made, nn.Module):
        raise ValueError(f"model makes {type(made).__name__}: give a torch.nn.Module, or a function that returns one")
    if next(masked_modules.carriers(made), None) is not None:
        raise ValueError("the model carries a method: give a plain model, or call methods.finalize(model) first")
    return made


def _built(document: files.Document) -> nn.Module:
    """The network that release.json describes, on the meta device: it takes no memory yet."""
    ask = f"give the network, methods.load({str(document.folder)!r}, model=…)"
    if document.network is None:
        raise ValueError(f"{document.folder} does not say how its network is built: {ask}")
    builder, arguments = document.network
    build = networks.load(builder)
    if build is None:
        raise ValueError(f"{document.folder}: no installed package builds networks of '{builder:.100}': {ask}")
    try:
        with torch.device("meta"):
            made = build(arguments)
    except Exception as error:  # a builder may raise any error for arguments of a stranger
        plain = "".join(letter if letter.isprintable() else " " for letter in str(error))
        reason = " ".join(plain.split())[:300] or type(error).__name__
        raise ValueError(f"{document.folder / files.DOCUMENT}: its network cannot be built: {reason}; {ask}") from error
    assert isinstance(made, nn.Module)
    _check_size(made, document)
    return made


def _check_size(made: nn.Module, document: files.Document) -> None:
    """Raises ValueError for a network that is too large, which a small CSR file can describe."""
    size, most = sum(value.numel() * value.element_size() for _, value in _tensors(made)), files.MOST_BYTES
    if size > most:
        raise ValueError(f"{document.folder / files.DOCUMENT}: its network takes {size} bytes, more than {most}")


def _tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    return [*network.named_parameters(), *network.named_buffers()]


def _state(document: files.Document, form: Form, network: nn.Module) -> dict[str, Tensor]:
    """The state of a file, which is read only if its heads fit the network."""
    with files.tensors(document, files.FORMS[form]) as found:
        sparse = document.csr if form == "csr" else {}
        _check_heads(found, _whole_heads(found, sparse), network, compact=form == "compact")
        plain = {name: found.read(name) for name in found.heads if not _part_of(name, sparse)}
        return plain | {name: _dense(found, name, shape) for name, shape in sparse.items()}


def _part_of(key: str, sparse: Mapping[str, Any]) -> bool:
    name, _, part = key.rpartition(".")
    return name in sparse and part in csr_and_bits.CSR


def _whole_heads(found: files.Tensors, sparse: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The heads of the network's own tensors, with one weight in place of its three CSR arrays."""
    heads = {name: head for name, head in found.heads.items() if not _part_of(name, sparse)}
    for name, shape in sparse.items():
        for part in csr_and_bits.CSR:
            if f"{name}.{part}" not in found.heads:
                raise found.damaged(name, f"{part} is missing")
        try:
            heads[name] = torch.empty(shape, dtype=found.heads[f"{name}.values"].dtype, device="meta")
        except (RuntimeError, TypeError):
            raise found.damaged(name, f"its shape is {list(shape)}") from None
    return heads


def _check_heads(found: files.Tensors, heads: Mapping[str, Tensor], network: nn.Module, *, compact: bool) -> None:
    """Raises ValueError where the file's tensors are not those of the network."""
    own = network.state_dict()
    try:
        check_compact(network, heads)
        if compact:
            check_layers_fit(network, heads)
    except ValueError as error:
        raise ValueError(f"{found.path}: {error}") from error
    for name, head in heads.items():
        expected = own.get(name)
        if expected is None:
            continue  # a bias that compaction added
        if head.dtype != expected.dtype:
            raise ValueError(f"{found.path}: '{name}' is {head.dtype}, and the model has {expected.dtype}")
        if head.shape != expected.shape and not compact:
            raise ValueError(f"{found.path}: '{name}' is {list(head.shape)}, and the model has {list(expected.shape)}")


def _dense(found: files.Tensors, name: str, shape: tuple[int, ...]) -> Tensor:
    try:
        return csr_and_bits.dense({part: found.read(f"{name}.{part}") for part in csr_and_bits.CSR}, shape)
    except ValueError as error:
        raise found.damaged(name, error) from error
