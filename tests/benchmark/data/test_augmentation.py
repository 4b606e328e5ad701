"""Crops and flips, against a loop over pixels."""

from __future__ import annotations

import torch

from benchmark.data.augmentation import crop_flip, crop_flip_draws, crop_flip_places


def test_crop_flip_equals_a_loop_over_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (40, 2, 5, 7), dtype=torch.uint8, generator=generator)
    draws = crop_flip_draws(40, generator=generator)
    expected = torch.zeros_like(images)
    for example, (top, left, flipped) in enumerate(draws.tolist()):
        for row in range(5):
            for column in range(7):
                y, x = row + top - 4, (6 - column if flipped else column) + left - 4
                if 0 <= y < 5 and 0 <= x < 7:
                    expected[example, :, row, column] = images[example, :, y, x]
    places = crop_flip_places(5, 7, device=images.device)
    assert torch.equal(crop_flip(images, draws, places), expected)


def test_crops_and_flips_are_drawn_evenly() -> None:
    draws = crop_flip_draws(90_000, generator=torch.Generator().manual_seed(0))
    for edge in (0, 1):
        counts = draws[:, edge].bincount(minlength=9)
        assert len(counts) == 9
        assert (counts - 10_000).abs().max() < 500
    assert abs(int(draws[:, 2].sum()) - 45_000) < 750
    assert draws[:, 2].unique().tolist() == [0, 1]
