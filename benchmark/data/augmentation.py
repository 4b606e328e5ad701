"""Augmentation on the device, from draws made for a whole epoch at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

AUGMENTATIONS = ("crop-flip",)
PADDING = 4


def crop_flip_draws(examples: int, *, generator: torch.Generator) -> Tensor:
    """int64 [examples, 3]: top and left edge of each crop, in 0..8, and 1 where it is flipped."""
    edges = torch.randint(2 * PADDING + 1, (examples, 2), generator=generator)
    return torch.cat([edges, torch.randint(2, (examples, 1), generator=generator)], dim=1)


def crop_flip_places(height: int, width: int, *, device: torch.device) -> Tensor:
    """int64 [9, 9, 2, height * width]: for each draw, the source of each pixel of the result.

    A source is an index into the pixels of the padded image.
    """
    padded_height, padded_width = height + 2 * PADDING, width + 2 * PADDING
    padded = torch.arange(padded_height * padded_width, device=device).view(padded_height, padded_width)
    crops = padded.unfold(0, height, 1).unfold(1, width, 1)
    return torch.stack([crops, crops.flip(3)], dim=2).flatten(start_dim=3)


def crop_flip(images: Tensor, draws: Tensor, places: Tensor) -> Tensor:
    """Zero-pad by 4, crop to the old size, then flip from left to right.

    images: uint8 [b, c, h, w], raw pixels, so that the border is 0 before any standardising.
    draws: int64 [b, 3], places: of h and w, both on the same device. Returns uint8 [b, c, h, w].
    """
    padded = F.pad(images, (PADDING,) * 4).flatten(start_dim=2)
    pixels = places[draws.unbind(dim=1)][:, None].expand(-1, images.shape[1], -1)
    return padded.gather(2, pixels).view(images.shape)
