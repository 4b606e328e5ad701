"""The network as an ONNX program, checked by onnxruntime."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-5  # of the largest output, or of 1 where all are smaller


def onnx_program(network: nn.Module, example: Tensor) -> bytes:
    """The program of a network in evaluation mode, for batches of any size.

    example: an input [b, ...], b at least 2. Raises ValueError where a package is not installed,
    where torch cannot export the network, and where onnxruntime computes outputs that differ by
    more than TOLERANCE.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ValueError(f"{', '.join(missing)} not installed: pip install 'sparse-training-bench[onnx]'")
    content = _exported(network, example)
    session = importlib.import_module("onnxruntime").InferenceSession(content)
    for inputs in (example, example[:1]):
        (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
        with torch.no_grad():
            expected = network(inputs)
        difference = float((torch.from_numpy(found) - expected).abs().max() / expected.abs().max().clamp(min=1))
        if not difference <= TOLERANCE:
            raise ValueError(f"onnxruntime's outputs differ from the network's by {difference:.1e}")
    return content


def _exported(network: nn.Module, example: Tensor) -> bytes:
    try:
        with _quiet():
            program = torch.onnx.export(
                network, (example,), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim.AUTO},)
            )
    except Exception as error:  # of many kinds, and of several libraries
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"torch cannot export the network: {reason[:200]}") from error
    assert program is not None
    proto = program.model_proto
    for graph in (proto.graph, *proto.functions):
        del graph.metadata_props[:]
        for node in graph.node:  # stack traces, with the paths of this machine
            del node.metadata_props[:]
    content: bytes = proto.SerializeToString()
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's progress and warnings. A network that cannot be exported still raises."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
