"""The augmentation of photographs: reproducible with a seed, different for each image, and within its limits."""

from __future__ import annotations

import pytest
import torch

from vasevqa.curation import augmentation
from vasevqa.curation.augmentation import augmented

SIDE = 64


def photographs(count: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (1, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    ).repeat(count, 1, 1, 1)


def plain(monkeypatch: pytest.MonkeyPatch, **but: object) -> None:
    """Return settings without variation, except the given ones (and mirroring, which has no strength)."""
    none = {
        "DEGREES": 0.0,
        "AREA": (1.0, 1.0),
        "RATIO": (1.0, 1.0),
        "BRIGHTNESS": 0.0,
        "CONTRAST": 0.0,
        "SATURATION": 0.0,
        "HUE": 0.0,
    }
    for name, value in {**none, **but}.items():
        monkeypatch.setattr(augmentation, name, value)


def seeded(pixels: torch.Tensor, size: int = 56, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return augmented(pixels, size)


def test_the_seed_decides_the_variation_and_each_image_varies_differently() -> None:
    pixels = photographs(8)
    first = seeded(pixels)
    assert first.shape == (8, 3, 56, 56)
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, seeded(pixels))
    assert not torch.equal(first, seeded(pixels, seed=1))
    assert len({float(image.sum()) for image in first}) == 8


def test_without_variation_an_image_is_unchanged_or_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    plain(monkeypatch)
    pixels = photographs(32)
    found = seeded(pixels, SIDE)
    same = [bool((image - pixels[0] / 255).abs().max() < 1e-4) for image in found]
    mirrored = [bool((image.flip(-1) - pixels[0] / 255).abs().max() < 1e-4) for image in found]
    assert all(one != other for one, other in zip(same, mirrored, strict=True))
    assert 8 < sum(same) < 24


def test_a_rotation_adds_gray_only_at_the_corners(monkeypatch: pytest.MonkeyPatch) -> None:
    plain(monkeypatch, DEGREES=10.0)
    white = torch.full((16, 3, SIDE, SIDE), 255, dtype=torch.uint8)
    found = seeded(white, SIDE)
    assert found[:, :, 12:-12, 12:-12].min() > 0.999
    assert found[:, :, 0, 0].min() < 0.6
    assert found.min() > 126 / 255


def test_a_crop_is_enlarged_according_to_its_area(monkeypatch: pytest.MonkeyPatch) -> None:
    plain(monkeypatch, AREA=(0.25, 0.25))
    spot = torch.zeros((64, 3, SIDE, SIDE), dtype=torch.uint8)
    spot[:, :, 28:36, 28:36] = 255
    areas = (seeded(spot, SIDE)[:, 0] > 0.5).float().sum((1, 2))
    assert areas.max() == 4 * 8 * 8
    assert areas.min() < areas.max()  # some crops end near the border


def test_colour_changes_stay_within_their_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    gray = torch.full((64, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    plain(monkeypatch, BRIGHTNESS=0.2, SATURATION=0.2, HUE=0.02)
    found = seeded(gray)[:, :, 28, 28]
    assert (found - found[:, :1]).abs().max() < 1e-4  # a gray has no hue
    assert 0.4 * 255 / 256 < found.min() < 0.45
    assert 0.56 < found.max() < 0.61
    plain(monkeypatch, HUE=0.5)
    red = torch.zeros((64, 3, SIDE, SIDE), dtype=torch.uint8)
    red[:, 0] = 200
    turned = seeded(red)[:, :, 28, 28]
    assert turned[:, 0].min() < 0.35  # up to half a turn, towards cyan
    assert turned[:, 0].max() > 0.6
    plain(monkeypatch, CONTRAST=0.2)
    halves = torch.zeros((64, 3, SIDE, SIDE), dtype=torch.uint8)
    halves[:, :, : SIDE // 2] = 100
    level = seeded(halves, SIDE)
    span = level[:, 0, 2, 2] - level[:, 0, -2, 2]
    assert 0.8 * 100 / 255 - 0.03 < span.min() < span.max() < 1.2 * 100 / 255 + 0.03
    assert span.max() - span.min() > 0.05
