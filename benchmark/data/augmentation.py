"""Augmentation on the device, from draws made for a whole epoch at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

AUGMENTATIONS = ("crop-flip",)
PADDING = 4


def crop_flip_draws(examples: int, *, generator: torch.Generator) -> Tensor:
    """int64 [examples, 3]: the top and left edge of each crop, in 0..8, and whether it is flipped, 0 or 1."""
    edges = torch.randint(2 * PADDING + 1, (examples, 2), generator=generator)
    return torch.cat([edges, torch.randint(2, (examples, 1), generator=generator)], dim=1)


def crop_flip(images: Tensor, draws: Tensor) -> Tensor:
    """Zero-pad by 4, crop to the old size, then flip from left to right.

    images: uint8 [b, c, h, w], raw pixels, so that the border is 0 before any standardising.
    draws: int64 [b, 3] on the same device. Returns uint8 [b, c, h, w].
    """
    b, c, h, w = images.shape
    width = w + 2 * PADDING
    top, left, flipped = draws[:, :, None, None].unbind(dim=1)
    row = torch.arange(h, device=images.device)[:, None]
    column = torch.arange(w, device=images.device)
    pixel = (top + row) * width + left + torch.where(flipped == 1, w - 1 - column, column)
    padded = F.pad(images, (PADDING,) * 4).flatten(start_dim=2)
    return padded.gather(2, pixel.flatten(start_dim=1)[:, None].expand(b, c, h * w)).view(b, c, h, w)
