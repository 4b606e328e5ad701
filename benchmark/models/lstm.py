"""LSTM-a and LSTM-b: an image read row by row (the paper's section on recurrent networks)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

LAYERS = 2


class RowLSTM(nn.Module):
    """Two LSTM layers over the rows of an image, and a classifier on the last row's output.

    [b, c, h, w] to [b, classes]: h time steps of c*w pixels. The classifier stays dense and
    uncounted, as in the paper.

    initialization: None is torch's own, two biases a gate, all of it U(±1/sqrt(hidden)). The
    authors' code: one bias a gate, so b_hh is frozen at 0; weights U(±1/sqrt(hidden)); b_ih the
    same ("official-dense") or 0 ("official-masked"); classifier weights U(±0.1), bias 0.

    hidden_state: None starts each batch at zero. "carried" goes on from the batch before, as the
    authors' code does, the scrambling included: their tuple is taken apart along the wrong axis,
    so that from the second batch on layer 1 starts from (h of layer 1, h of layer 2) as its
    (h, c), and layer 2 from (c of layer 1, c of layer 2). No gradient flows between batches.
    Training and evaluation have a state each, zeroed by `start_epoch()`, that of evaluation by
    `eval()` too; that of training is part of the state_dict. A smaller batch uses the first rows.
    Raises ValueError for "carried" without batch_size, and in `forward` for a larger batch.
    """

    uncounted: ClassVar[tuple[str, ...]] = ("classifier",)
    training_state: Tensor
    evaluation_state: Tensor | None

    def __init__(
        self,
        in_shape: tuple[int, ...],
        classes: int,
        *,
        hidden: int,
        initialization: str | None = None,
        hidden_state: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        super().__init__()
        channels, _, columns = in_shape
        self.lstm = nn.LSTM(channels * columns, hidden, num_layers=LAYERS, batch_first=True)
        self.classifier = nn.Linear(hidden, classes)
        if initialization is not None:
            self._initialize_officially(masked=initialization == "official-masked")
        self.carries = hidden_state == "carried"
        if self.carries:
            if batch_size is None:
                raise ValueError("hidden_state 'carried' needs batch_size, the largest batch in training")
            # [h or c, layer, example, unit]
            self.register_buffer("training_state", torch.zeros(2, LAYERS, batch_size, hidden))
            self.register_buffer("evaluation_state", None, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.transpose(1, 2).flatten(2)
        if not self.carries:
            outputs, _ = self.lstm(rows)
        else:
            state = self._state(len(images))
            # the scrambling: layer and (h, c) change places
            h_0, c_0 = (state[:, which].clone(memory_format=torch.contiguous_format) for which in (0, 1))
            outputs, last = self.lstm(rows, (h_0, c_0))
            state.copy_(torch.stack(last).detach())
        logits: Tensor = self.classifier(outputs[:, -1])
        return logits

    def start_epoch(self) -> None:
        """Forget the batches before: of training in training mode, of the evaluation otherwise."""
        if self.carries and self.training:
            self.training_state.zero_()
        elif self.carries:
            self.evaluation_state = None

    def train(self, mode: bool = True) -> RowLSTM:
        super().train(mode)
        if not mode:
            self.start_epoch()
        return self

    def _state(self, batch: int) -> Tensor:
        """A view of the state in use, [2, layers, batch, hidden]."""
        if self.training:
            state = self.training_state
        else:
            if self.evaluation_state is None:
                self.evaluation_state = self.training_state.new_zeros(2, LAYERS, batch, self.lstm.hidden_size)
            state = self.evaluation_state
        if batch > state.shape[2]:
            raise ValueError(f"a batch of {batch} is larger than the carried hidden state, which has {state.shape[2]}")
        return state[:, :, :batch]

    def _initialize_officially(self, *, masked: bool) -> None:
        bound = 1 / math.sqrt(self.lstm.hidden_size)
        parameters = dict(self.lstm.named_parameters())
        for name in (name for name in parameters if name.startswith("weight")):
            nn.init.uniform_(parameters[name], -bound, bound)
        nn.init.uniform_(self.classifier.weight, -0.1, 0.1)
        nn.init.zeros_(self.classifier.bias)
        for layer in range(LAYERS):
            nn.init.zeros_(parameters[f"bias_hh_l{layer}"].requires_grad_(False))
            bias = parameters[f"bias_ih_l{layer}"]
            nn.init.zeros_(bias) if masked else nn.init.uniform_(bias, -bound, bound)
