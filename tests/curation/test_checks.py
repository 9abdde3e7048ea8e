"""The data checks of photographs, on drawn pictures whose values are known."""

from __future__ import annotations

import io
import random
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from tests import photographs, pictures
from vasevqa.curation import cards, checks
from vasevqa.curation.decoding import open_image, open_luminance
from vasevqa.curation.reports import DataChecks, ScoredImage
from vasevqa.sample.catalogue import invent
from vasevqa.sample.photographing import Shot, photograph

# The patches of the ColorChecker of X-Rite, in sRGB, row by row.
PATCHES = (
    "735244 c29682 627a9d 576c43 8580b1 67bdaa d67e2c 505ba6 c15a63 5e3c6c 9dbc40 e0a32e"
    " 383d96 469449 af363c e7c71f bb5695 0885a1 f3f3f2 c8c8c8 a0a0a0 7a7a79 555555 343434"
)


@lru_cache
def vase(number: int, size: int = 900, damage: str | None = None) -> Image.Image:
    rng = random.Random(number)
    shot = Shot(rng.uniform(0, 360), damage, number, size)
    return Image.open(io.BytesIO(photograph(invent(rng), shot))).convert("RGB")


def with_card(image: Image.Image, width: float = 0.25) -> Image.Image:
    """Put a colour card into the lower left corner; `width` is its share of the picture's width."""
    side = round(image.width * width / 6)
    card = Image.new("RGB", (6 * side + 4, 4 * side + 4), "#111111")
    for number, colour in enumerate(PATCHES.split()):
        left, top = 4 + number % 6 * side, 4 + number // 6 * side
        card.paste(f"#{colour}", (left, top, left + side - 4, top + side - 4))
    changed = image.copy()
    changed.paste(card, (10, image.height - card.height - 10))
    return changed


def with_bar(image: Image.Image, blocks: int = 10, upright: bool = False) -> Image.Image:
    """Put a scale bar with black and white blocks below the vase, or beside it."""
    changed = image.copy()
    draw = ImageDraw.Draw(changed)
    block, thick = image.width // 30, image.width // 60
    for number in range(blocks):
        left, top = (20, 200 + number * block) if upright else (200 + number * block, image.height - 60)
        size = (thick, block) if upright else (block, thick)
        box = (left, top, left + size[0] - 1, top + size[1] - 1)
        draw.rectangle(box, "#151515" if number % 2 else "#f4f4f0")
    return changed


def one(image: Image.Image, path: Path, **how: object) -> DataChecks:
    image.save(path, **how)
    [found] = checks.read([path.name], [checks.measure(path, open_image(path, 64))])
    return found


def test_the_values_of_a_drawn_picture(tmp_path: Path) -> None:
    image = Image.new("L", (400, 300), 127)
    image.paste(0, (0, 0, 100, 300))
    image.paste(255, (100, 0, 140, 300))
    found = one(image, tmp_path / "a.png")
    assert (found.width, found.height, found.aspect) == (400, 300, round(4 / 3, 4))
    assert (found.clipped_dark, found.clipped_bright) == (0.25, 0.1)
    assert found.brightness == pytest.approx((0.1 * 255 + 0.65 * 127) / 255, abs=1e-3)


def test_a_jpeg_is_measured_at_full_size_and_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    vase(1).crop((0, 0, 900, 600)).save(tmp_path / "a.jpg", quality=95, exif=exif)
    reduced = open_image(tmp_path / "a.jpg", 64)
    assert max(reduced.size) < 300
    luminance = open_luminance(tmp_path / "a.jpg", reduced)
    assert (luminance.mode, luminance.size) == ("L", (600, 900))
    whole = open_image(tmp_path / "a.jpg").convert("L")
    assert np.abs(np.asarray(luminance, np.int16) - np.asarray(whole, np.int16)).mean() < 0.5
    [found] = checks.read(["a"], [checks.measure(tmp_path / "a.jpg", reduced)])
    assert (found.width, found.height) == (600, 900)


@pytest.mark.parametrize("kind", photographs.KINDS, ids=lambda kind: kind.name)
def test_each_format_of_museums_has_its_size_and_the_brightness_that_a_person_sees(
    kind: photographs.Kind, tmp_path: Path
) -> None:
    path = tmp_path / kind.name
    kind.write(path)
    [found] = checks.read(["a"], [checks.measure(path, open_image(path, 16))])
    assert (found.width, found.height) == photographs.SIZE
    seen = np.asarray(photographs.halves(kind.left, kind.right).convert("L")).mean() / 255
    assert found.brightness == pytest.approx(seen, abs=0.04)


def test_blur_lowers_the_sharpness_at_every_size() -> None:
    for number in range(3):
        for size in (300, 900):
            sharp, blurred = (vase(number, size, damage).convert("L") for damage in (None, "blur"))
            assert checks.sharpness(sharp) > 2 * checks.sharpness(blurred)


def test_sharpness_is_alike_for_one_scene_at_several_sizes_and_low_for_an_enlarged_picture() -> None:
    def scene(size: int) -> Image.Image:
        image = Image.new("L", (4 * size, 4 * size), 60)
        draw = ImageDraw.Draw(image)
        for number in range(1, 9):
            draw.ellipse(
                [4 * size * (0.5 - 0.05 * number), 0.8 * size, 4 * size * (0.5 + 0.05 * number), 3 * size],
                None,
                200,
                size // 10,
            )
        return image.reduce(4)

    values = [checks.sharpness(scene(size)) for size in (400, 800, 1600, 3200)]
    assert max(values) < 1.5 * min(values)
    enlarged = checks.sharpness(scene(400).resize((1600, 1600), Image.Resampling.BICUBIC))
    assert enlarged < min(values) / 4


def test_large_photographs_are_measured_in_bands_of_full_resolution() -> None:
    rng = np.random.default_rng(0)
    fine = Image.fromarray(rng.integers(0, 255, (3000, 4000), dtype=np.uint8))
    part = checks.sharpness(fine.crop((0, 0, 4000, 900))) / np.sqrt(3.6)
    assert checks.sharpness(fine) / np.sqrt(12) == pytest.approx(part, rel=0.02)
    assert checks.sharpness(fine.crop((0, 0, 4000, 4))) == 0.0  # too small for the filters


def test_the_frame_is_the_share_of_edges_of_one_tone() -> None:
    image = np.asarray(vase(3).convert("L"))
    assert checks.frame(image) < 0.02
    framed = np.asarray(ImageOps.expand(Image.fromarray(image), 50, 255))
    assert checks.frame(framed) == pytest.approx(1 - 900**2 / 1000**2, abs=0.01)
    assert checks.frame(np.full((20, 30), 7, np.uint8)) == 1.0
    ramp = np.repeat(np.arange(0, 200, dtype=np.uint8)[:, None], 100, axis=1)  # a gradient is no frame
    assert checks.frame(ramp) < 0.2


@pytest.mark.parametrize("width", [0.12, 0.25, 0.4])
def test_a_colour_card_is_suspected(width: float) -> None:
    for number in range(3):
        assert cards.suspected(with_card(vase(number), width)) == (True, False)
    assert cards.suspected(with_card(vase(0).resize((2400, 2400)), width))[0]


def test_a_scale_bar_is_suspected() -> None:
    for number in range(3):
        assert cards.suspected(with_bar(vase(number))) == (False, True)
        assert cards.suspected(with_bar(vase(number), blocks=6, upright=True))[1]
    assert cards.suspected(with_bar(vase(0).resize((2400, 2400))))[1]
    assert not cards.suspected(with_bar(vase(0), blocks=2))[1]


def test_no_card_is_suspected_in_drawn_vases_and_in_colourful_gradients() -> None:
    damaged = [vase(number, 400, damage) for number in range(3) for damage in ("fragment", "cracks", "drawing", "crop")]
    found = [cards.suspected(image) for image in [*(vase(number, 500) for number in range(12)), *damaged]]
    assert found.count((False, False)) == 24
    assert [cards.suspected(pictures.photo(number, (800, 600))) for number in range(10)].count((False, False)) == 10
    assert cards.suspected(Image.new("RGB", (3, 3))) == (False, False)


def test_the_first_photograph_that_is_nearly_the_same_is_named(tmp_path: Path) -> None:
    originals = [vase(number, 300) for number in range(3)]
    images = [*originals, originals[1].filter(ImageFilter.GaussianBlur(1)), originals[1].resize((200, 200))]
    stored = []
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.jpg", quality=80)
        stored.append(checks.measure(tmp_path / f"{number}.jpg", open_image(tmp_path / f"{number}.jpg", 64)))
    names = [f"{number}.jpg" for number in range(5)]
    assert [row.near_duplicate_of for row in checks.read(names, stored)] == [None, None, None, "1.jpg", "1.jpg"]
    # A photograph without values is no duplicate of anything.
    absent = checks.read(names, [checks.ABSENT, *stored[1:3], b"", stored[4]])
    assert [row.near_duplicate_of for row in absent] == [None, None, None, None, "1.jpg"]
    assert absent[0] == absent[3] == DataChecks()


def test_a_photograph_whose_full_size_cannot_be_decoded_has_no_values(tmp_path: Path) -> None:
    pictures.save(tmp_path / "a.jpg", 1, (800, 600))
    decoded = open_image(tmp_path / "a.jpg", 64)
    (tmp_path / "a.jpg").unlink()
    assert checks.read(["a"], [checks.measure(tmp_path / "a.jpg", decoded)]) == [DataChecks()]


def test_limits_reject_with_their_reason_and_absent_values_keep_them() -> None:
    limits = checks.Limits(min_side=500, min_sharpness=10, max_clipped=0.2)
    good = DataChecks(width=600, height=500, sharpness=10, clipped_dark=0.2, clipped_bright=0.0)
    bad = DataChecks(width=600, height=499, sharpness=9.5, clipped_dark=0.1, clipped_bright=0.21)
    rows = [ScoredImage(name=name, accepted=name != "d", score=0.5) for name in "abcd"]
    decided = checks.applied(rows, [good, bad, DataChecks(), good], limits)
    assert [row.accepted for row in decided] == [True, False, True, False]
    reason = "shorter side 499 px < min_side 500, sharpness 9.5 < min_sharpness 10, clipped 0.21 > max_clipped 0.2"
    assert [row.failed_check for row in decided] == ["", reason, "", ""]
    assert checks.Limits().failed(bad) == ""
