"""Decoding: every file format of museums gives the colours that a person sees."""

from __future__ import annotations

import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.photographs import ADOBE_RGB, KINDS, SIZE, Kind, halves, values
from vasevqa.curation.images import decode_image, open_image


def colours(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours in the middle of the left half and of the right half."""
    pixels = np.asarray(image).astype(int)
    row = pixels[pixels.shape[0] // 2]
    return row[len(row) // 4], row[3 * len(row) // 4]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_decoded_file_has_the_colours_that_a_person_sees(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / kind.name
    kind.write(path)
    for image in (open_image(path), decode_image(path.read_bytes())):
        assert (image.mode, image.size, image.info) == ("RGB", SIZE, {})
        for found, wanted in zip(colours(image), (kind.left, kind.right), strict=True):
            assert np.abs(found - wanted).max() <= kind.tolerance, (found, wanted)
        assert pickle.loads(pickle.dumps(image)).tobytes() == image.tobytes()


def test_two_pictures_of_one_camera_are_scaled_equally(tmp_path: Path) -> None:
    """The brightest pixel of a picture doesn't change the brightness of a grey."""
    means = []
    for brightest in (1100, 2100, 4095):
        Image.fromarray(values(800, brightest)).save(tmp_path / "x.tif")
        means.append(int(colours(open_image(tmp_path / "x.tif"))[0][0]))
    assert means == [50, 50, 50]


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_reduced_decode_has_the_colours_of_the_full_decode(tmp_path: Path, mode: str) -> None:
    profile = {"icc_profile": ADOBE_RGB} if mode == "RGB" else {}
    halves(size=(1600, 1200)).convert(mode).save(tmp_path / "x.jpg", quality=95, **profile)
    small, whole = open_image(tmp_path / "x.jpg", 224), open_image(tmp_path / "x.jpg")
    assert small.size == (400, 300)
    for one, other in zip(colours(small), colours(whole), strict=True):
        assert np.abs(one - other).max() <= 2


def test_a_profile_that_belongs_to_another_mode_or_is_broken_is_ignored(tmp_path: Path) -> None:
    for number, profile in enumerate((ADOBE_RGB[:200], b"nonsense")):
        halves().save(tmp_path / f"{number}.png", icc_profile=profile)
        assert colours(open_image(tmp_path / f"{number}.png"))[0].tolist() == [200, 120, 40]
    halves().convert("L").save(tmp_path / "grey.png", icc_profile=ADOBE_RGB)
    assert colours(open_image(tmp_path / "grey.png"))[0].tolist() == [135, 135, 135]


def test_an_opened_photograph_contains_no_private_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0xA430], exif[0xA431] = "Canon", "EOS", "Jane Owner", "SERIAL-4711"
    exif.get_ifd(0x8825).update({1: "N", 2: (37.0, 58.0, 0.0), 3: "E", 4: (23.0, 43.0, 0.0)})
    for name, how in (("x.jpg", {"comment": b"tomb 7"}), ("x.png", {}), ("x.webp", {}), ("x.tif", {})):
        halves().save(tmp_path / name, exif=exif, **how)
        for suffix in ("jpg", "png", "webp", "tif"):
            open_image(tmp_path / name).save(tmp_path / f"copy.{suffix}")
            with Image.open(tmp_path / f"copy.{suffix}") as copy:
                assert not {*copy.getexif()} & {0x010F, 0x0110, 0xA430, 0xA431, 0x8825}
            content = (tmp_path / f"copy.{suffix}").read_bytes()
            assert b"Owner" not in content
            assert b"tomb 7" not in content


def test_a_rotated_tiff_with_a_mask_page_is_read(tmp_path: Path) -> None:
    halves().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "x.tif", tiffinfo={274: 6})
    image = open_image(tmp_path / "x.tif")
    assert image.size == SIZE
    assert colours(image)[0].tolist() == [200, 120, 40]


def _deep_png(colour_type: int, values: np.ndarray, key: int | None = None) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    transparent = b"" if key is None else chunk(b"tRNS", struct.pack(">H", key))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + transparent + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_sixteen_bit_grey_is_equally_bright_with_and_without_alpha(bits: int) -> None:
    grey = np.linspace(0, (1 << bits) - 1, 32).round().reshape(4, 8)
    plain = np.asarray(decode_image(_deep_png(0, grey)))
    alpha = np.asarray(decode_image(_deep_png(4, np.stack([grey, np.full_like(grey, 65535)], -1))))
    assert np.abs(plain.astype(int) - alpha).max() <= 1
    assert alpha.max() >= 254


def test_the_transparent_grey_of_a_sixteen_bit_png_becomes_white() -> None:
    grey = np.array([[0, 200, 51_200, 65_535]])
    for key, expected in ((None, [0, 0, 200, 255]), (200, [0, 255, 200, 255]), (51_200, [0, 0, 255, 255])):
        found = np.asarray(decode_image(_deep_png(0, grey, key)))
        assert found[0, :, 0].tolist() == expected
