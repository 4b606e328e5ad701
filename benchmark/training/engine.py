"""How the steps of a cell are executed: what decides bits and speed, and is not in the spec.

Each attempt records it as `engine`; resuming with another engine is drift. docs/decisions/0015
says what each part gains.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.spec import RunSpec, SpecError
from benchmark.training.execution import MaskedLayers

CHANNELS_LAST_ON_CPU = ("lenet-5-caffe",)  # slower for vgg16 there, unless it is narrow (decision 15)
NARROW = 64  # a VGG-16 whose widest layer has at most this many channels
RECURRENT = ("lstm-a", "lstm-b")
WITHOUT_CONVOLUTIONS = ("lenet-300-100", *RECURRENT)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of <malloc.h>
KEEP_BYTES = 2**31 - 1


@dataclass(frozen=True)
class Engine:
    """The forward and backward passes of one cell on one kind of device, cpu or cuda.

    With precision float32 everything is float32. With tf32, on a GPU, the matrix products and
    convolutions of the passes use TF32. With bfloat16 the forward pass runs under autocast and the
    backward pass follows it; weights, gradients, the loss and the optimizer stay float32.
    Evaluation is always float32. execution: how masked layers compute, as in `methods.attach`.
    Raises SpecError for tf32 on a CPU.
    """

    spec: RunSpec
    device: str
    execution: MaskedLayers = "dense"

    def __post_init__(self) -> None:
        if self.spec.precision == "tf32" and self.device == "cpu":
            raise SpecError(f"{self.spec.label}: precision tf32 needs a GPU: use float32 or bfloat16 on a CPU")
        recurrent = self.spec.model.name in RECURRENT
        if self.spec.precision == "bfloat16" and self.device == "cpu" and recurrent and not cpu_runs_bfloat16_lstms():
            raise SpecError(
                f"{self.spec.label}: this CPU cannot run an LSTM in bfloat16 (oneDNN needs AVX-512 for it): "
                "use float32, a GPU or another CPU"
            )

    @property
    def channels_last(self) -> bool:
        """Whether images, and so all outputs of convolutions, are [b, h, w, c] in memory."""
        if self.device == "cpu":
            narrow = self.spec.model.name == "vgg16" and max(self.spec.model.widths or (512,)) <= NARROW
            return (narrow or self.spec.model.name in CHANNELS_LAST_ON_CPU) and self.spec.precision == "float32"
        return self.spec.precision != "float32" and self.spec.model.name not in WITHOUT_CONVOLUTIONS

    def loss(self, network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy of a batch, float32, 0-dim."""
        if self.channels_last:
            inputs = channels_last(inputs)
        with self.autocast():
            logits = network(inputs)
        return F.cross_entropy(logits.float(), labels)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Around a forward pass, which is in bfloat16 if that is the cell's precision."""
        if self.spec.precision != "bfloat16":
            return contextlib.nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Around forward and backward passes; allows TF32 if that is the cell's precision."""
        allowed = self.spec.precision == "tf32"
        if allowed:
            _allow_tf32(True)
        try:
            yield
        finally:
            if allowed:
                _allow_tf32(False)

    def to_dict(self) -> dict[str, bool]:
        """What an attempt records of it, as `engine` in environment.json."""
        parts = {"channels_last": self.channels_last, "fused": True, "flush_denormal": _flushes_denormals()}
        return parts if self.execution == "dense" else parts | {f"execution_{self.execution}": True}


@functools.cache
def cpu_runs_bfloat16_lstms() -> bool:
    """Whether torch can run an LSTM in bfloat16 on this CPU.

    oneDNN has no such primitive without AVX-512.
    """
    x, state = torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)
    weight, bias = torch.zeros(4, 1), torch.zeros(4)
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            torch.lstm(x, (state, state), [weight, weight, bias, bias], True, 1, 0.0, False, False, False)
    except RuntimeError:
        return False
    return True


def channels_last(images: Tensor) -> Tensor:
    """The same images [b, c, h, w] with the channel as the fastest axis in memory.

    Weights stay as they are. With one channel both layouts have the same bytes, so the strides are
    set explicitly: torch leaves them.
    """
    b, c, h, w = images.shape
    turned = images.contiguous(memory_format=torch.channels_last)
    return turned.as_strided((b, c, h, w), (c * h * w, 1, w * c, c))


def prepare_process(device: str) -> None:
    """Prepare a process that trains: one CPU thread, deterministic kernels and no TF32 on a GPU.

    On the CPU numbers below 1.2e-38 become 0, because the momentum of weights that no longer matter
    stays that small, and additions of such numbers take a hundred times as long. Freed memory is
    kept for the next step (glibc only), which would otherwise page it in again.
    """
    if device == "cpu":
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        _keep_freed_memory()
        return
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # one kernel per tensor
    torch.backends.cudnn.benchmark = False
    _allow_tf32(False)


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _keep_freed_memory() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)


def _flushes_denormals() -> bool:
    return float(torch.tensor([1e-30]).mul(1e-9)) == 0
