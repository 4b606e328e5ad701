"""A finished cell's network, from its last checkpoint, in the forms that are compared.

dense         the architecture with the weights that it started from, none of them 0
masked-dense  `methods.finalize`: the trained weights, zeros baked in
compact       `methods.finalize(compact=True)`: dead neurons and filters cut out
sparse        `methods.finalize(execution="sparse")`: Linear layers hold kept weights only
csr           masked-dense with every Linear's weight as a sparse CSR tensor of int32 indices
"""

from __future__ import annotations

import copy
import io
import warnings
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

import methods
from benchmark import models
from benchmark.training.loop import Training
from benchmark.training.measure import plain_copy


class CSRLinear(nn.Module):
    """A Linear whose weight is in CSR: torch's sparse product of [b, c_in], to [b, c_out]."""

    weight: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        csr = linear.weight.detach().to_sparse_csr()
        rows, columns = csr.crow_indices().int(), csr.col_indices().int()  # MKL takes int32 without a copy
        sparse = torch.sparse_csr_tensor(rows, columns, csr.values(), size=csr.shape, check_invariants=True)
        self.register_buffer("weight", sparse)
        self.bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = (self.weight @ inputs.t()).t()
        return outputs if self.bias is None else outputs + self.bias


def forms_of(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """The forms of a network by name, in evaluation mode; and why a form is left out, by name."""
    networks, refused = {"masked-dense": plain_copy(model)}, {}
    try:
        networks["compact"] = methods.finalize(copy.deepcopy(model), compact=True).eval()
    except ValueError as error:
        refused["compact"] = str(error)
    networks["sparse"] = methods.finalize(copy.deepcopy(model), execution="sparse").eval()
    networks["csr"] = with_csr(plain_copy(model))
    return networks, refused


def with_csr(plain: nn.Module) -> nn.Module:
    """Replace every Linear by a `CSRLinear`, in place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        for module in list(plain.modules()):
            for name, inner in list(module.named_children()):
                if isinstance(inner, nn.Linear):
                    setattr(module, name, CSRLinear(inner))
    return plain.eval()


def cut_layers(networks: Mapping[str, nn.Module]) -> dict[str, list[list[int]]]:
    """Shapes of the weights that compaction cut: [before, after]."""
    after = {} if "compact" not in networks else networks["compact"].state_dict()
    before = networks["masked-dense"].state_dict()
    return {
        name: [list(before[name].shape), list(tensor.shape)]
        for name, tensor in after.items()
        if tensor.dim() > 1 and tensor.shape != before[name].shape
    }


def dense_of(training: Training) -> nn.Module:
    """The architecture of a cell as it was before training."""
    spec, data = training.spec, training.data
    batch_size = spec.optimizer.batch_size
    made = models.create(
        spec.model, in_shape=data.in_shape, classes=data.classes, seed=spec.seed, batch_size=batch_size
    )
    return made.to(data.device).eval()


def saved_bytes(network: nn.Module) -> tuple[int, int]:
    """Bytes of the network's state_dict in a file, and in one compressed with zlib."""
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    return buffer.tell(), len(zlib.compress(buffer.getvalue()))
