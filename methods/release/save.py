"""Writes a finalized network as a folder that can be published."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from methods import layers
from methods.compaction.cut import compact_
from methods.release import csr_and_bits, files
from methods.release.card import Card, Layer, card_text
from methods.release.onnx_program import onnx_program
from methods.release.source import source
from methods.weights import masked_modules

CSR_BELOW = 0.2


def save(
    model: nn.Module,
    folder: str | os.PathLike[str],
    *,
    masks: Mapping[str, Tensor] | None = None,
    example: Tensor | None = None,
    network: tuple[str, Mapping[str, Any]] | None = None,
    card: Card | None = None,
) -> dict[str, str]:
    """Write a finalized network into a new folder, in the files of `methods.release`.

        methods.finalize(model)
        methods.save(model, "my-network", masks=attached.masks(), example=x)

    masks: `attached.masks()`; without them, the weights that are not 0 count as kept. example: an
    input of a few examples, float [b, ...] with b at least 2; network.py and model.onnx are checked
    with it, and left out without it. network: an entry point of the group
    `sparse_training.networks` and its arguments, by which `load` builds the network without being
    given one. card: what the model card says of the network.

    Returns the files that were left out, by name, each with the reason. The folder is complete or
    absent. Writing the same network twice changes nothing. Raises ValueError where safetensors is not
    installed, the model is not finalized, a mask or the example does not fit it, `network` or the
    card cannot be written as text, or the folder holds other files; OSError where it cannot be
    written.
    """
    files.library()
    place = Path(folder).absolute()
    files.check_free(place)
    _check_texts(network, card)
    plain, left_out = _plain(model), dict[str, str]()
    kept = _checked(masks, plain) if masks is not None else _nonzero(plain)
    inputs = None if example is None else _inputs(example, plain)
    sparse, compact = _below(kept, left_out), _compact(plain, left_out)
    contents = _tensor_files(plain, kept, sparse, compact) | _programs(plain, compact, inputs, left_out)
    shapes = {name: tuple(mask.shape) for name, mask in kept.items()}
    csr_shapes = {name: shapes[name] for name in sparse}
    contents[files.DOCUMENT] = files.document_bytes(contents, masks=shapes, csr=csr_shapes, network=network)
    rows = [Layer(name, mask.shape, int(mask.sum()), mask.numel()) for name, mask in kept.items()]
    contents[files.CARD] = card_text(card or Card(), rows, list(contents), builds=network is not None).encode()
    files.write(place, contents)
    return left_out


def _check_texts(network: Any, card: Any) -> None:
    """Raises ValueError for a network or a card that cannot be written."""
    if card is not None and not isinstance(card, Card):
        raise ValueError(f"card is {type(card).__name__}: give a methods.Card")
    kinds = [type(part) for part in network] if isinstance(network, tuple) else []
    if network is not None and kinds != [str, dict]:
        raise ValueError(f"network is {network!r:.60}: give the name of an entry point and a dict of its arguments")
    texts = {"network": network} | ({} if card is None else {"the card": [card.title, dict(card.head), card.text]})
    for name, value in texts.items():
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} holds something that is no plain value: {error}") from error


def _inputs(example: Any, plain: nn.Module) -> Tensor:
    """The example on the CPU. Raises ValueError unless it is a batch that the network takes."""
    if not isinstance(example, Tensor) or example.dim() == 0 or len(example) < 2:
        found = list(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise ValueError(f"example is {found}: give a tensor of at least two inputs, [b, ...]")
    try:
        inputs = example.detach().cpu()
        with torch.no_grad():
            plain(inputs)
    except Exception as error:  # of any kind: `forward` is not ours
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        given = f"{example.dtype} {list(example.shape)}"
        raise ValueError(f"the model does not take the example, {given}: {reason[:200]}") from error
    return inputs


def _plain(model: nn.Module) -> nn.Module:
    """A copy on the CPU in evaluation mode. Raises ValueError for a model that carries a method."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is {type(model).__name__}: give a torch.nn.Module")
    if next(masked_modules.carriers(model), None) is not None:
        raise ValueError("the model carries a method: call methods.finalize(model) first")
    for name, value in model.state_dict().items():
        files.check_name(name)
        if not isinstance(value, Tensor) or value.dtype not in files.DTYPES.values() or value.is_meta:
            raise ValueError(f"'{name}' is no plain tensor: only models of plain tensors can be saved")
    return copy.deepcopy(model).cpu().eval()


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The state_dict with tensors that share no memory, which safetensors requires."""
    return {name: value.detach().contiguous().clone() for name, value in model.state_dict().items()}


def _nonzero(plain: nn.Module) -> dict[str, Tensor]:
    return {name: weight.parameter.detach() != 0 for name, weight in layers.maskable_weights(plain).items()}


def _checked(masks: Mapping[str, Tensor], plain: nn.Module) -> dict[str, Tensor]:
    """The masks on the CPU. Raises ValueError for one that is not of this finalized model."""
    if not isinstance(masks, Mapping):
        raise ValueError(f"masks is {type(masks).__name__}: give attached.masks(), a bool tensor by each weight's name")
    if not masks:
        raise ValueError("masks is empty: leave it out, and the weights that are not 0 count as kept")
    weights = dict(plain.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        if not isinstance(mask, Tensor) or mask.is_meta:
            raise ValueError(f"mask '{name}' is {type(mask).__name__}: give a bool tensor of the weight's shape")
        if name not in weights or mask.shape != weights[name].shape or mask.dtype != torch.bool:
            raise ValueError(f"mask '{name}' is {mask.dtype} {list(mask.shape)}, and the model has no such weight")
        if weights[name].detach()[~mask.cpu()].any():
            raise ValueError(f"mask '{name}' prunes weights that are not 0: finalize the model that it is of")
    return {name: mask.cpu() for name, mask in masks.items()}


def _below(kept: Mapping[str, Tensor], left_out: dict[str, str]) -> list[str]:
    """The weights that are written as CSR."""
    found = [
        n for n, mask in kept.items() if int(mask.sum()) < CSR_BELOW * mask.numel() and csr_and_bits.fits_csr(mask)
    ]
    if not found:
        left_out[files.FORMS["csr"]] = f"no weight keeps less than {CSR_BELOW:.0%}"
    return found


def _tensor_files(
    plain: nn.Module, kept: Mapping[str, Tensor], sparse: list[str], compact: nn.Module | None
) -> dict[str, bytes]:
    tensors = {
        files.FORMS["dense"]: _state(plain),
        files.MASKS: {n: csr_and_bits.packed(mask) for n, mask in kept.items()},
    }
    if sparse:
        tensors[files.FORMS["csr"]] = _csr_state(plain, sparse)
    if compact is not None:
        tensors[files.FORMS["compact"]] = _state(compact)
    return {name: files.library().torch.save(state) for name, state in tensors.items()}


def _csr_state(plain: nn.Module, sparse: list[str]) -> dict[str, Tensor]:
    state = _state(plain)
    found = {f"{name}.{part}": value for name in sparse for part, value in csr_and_bits.csr(state.pop(name)).items()}
    if both := found.keys() & state.keys():
        raise ValueError(f"'{min(both)}' is the name of a tensor and of a CSR array")
    return state | found


def _compact(plain: nn.Module, left_out: dict[str, str]) -> nn.Module | None:
    """The network without dead units; None where none can be cut."""
    try:
        compact = compact_(copy.deepcopy(plain))
    except ValueError as error:
        left_out[files.FORMS["compact"]] = str(error)
        return None
    before = plain.state_dict()
    if any(value.shape != before[name].shape for name, value in compact.state_dict().items() if name in before):
        return compact
    left_out[files.FORMS["compact"]] = "no unit can be cut out"
    return None


def _programs(
    plain: nn.Module, compact: nn.Module | None, inputs: Tensor | None, left_out: dict[str, str]
) -> dict[str, bytes]:
    """network.py and model.onnx, as far as they can be made."""
    if inputs is None:
        left_out |= dict.fromkeys(("network.py", "model.onnx"), "no example input was given")
        return {}
    contents: dict[str, bytes] = {}
    networks = {"Network": plain} | ({} if compact is None else {"CompactNetwork": compact})
    try:
        contents["network.py"] = source(networks, inputs).encode()
    except ValueError as error:
        left_out["network.py"] = str(error)
    try:
        contents["model.onnx"] = onnx_program(plain if compact is None else compact, inputs)
    except ValueError as error:
        left_out["model.onnx"] = str(error)
    return contents
