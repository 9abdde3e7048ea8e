"""Photographs in the file formats of museums, each with the picture that a person sees.

Each photograph has 112 x 84 pixels, one colour in the left half and another colour in the right half. So the expected
pixels are known without decoding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

Colour = tuple[int, int, int]
SIZE = (112, 84)
LEFT, RIGHT = (200, 120, 40), (40, 60, 160)
GREY_LEFT, GREY_RIGHT = (200, 200, 200), (50, 50, 50)


@dataclass(frozen=True)
class Kind:
    """A file, and the colours that a person sees in its left and right half."""

    name: str
    write: Callable[[Path], None]
    left: Colour = LEFT
    right: Colour = RIGHT
    tolerance: int = 0


def halves(left: Colour = LEFT, right: Colour = RIGHT, size: tuple[int, int] = SIZE) -> Image.Image:
    """Return the picture with the two halves."""
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, size[0], size[1]))
    return image


def values(left: int, right: int, kind: type = np.uint16) -> np.ndarray:
    """Return the pixel values of the picture with two halves, as an array of shape (H, W)."""
    found = np.full((SIZE[1], SIZE[0]), left, kind)
    found[:, SIZE[0] // 2 :] = right
    return found


def _portrait(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer must rotate the picture by 90 degrees clockwise
    halves().transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=100, subsampling=0)


def _transparent(mode: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        image = halves(GREY_LEFT, (0, 0, 0)).convert("RGBA")
        image.putalpha(Image.fromarray(values(255, 0, np.uint8)))
        exif = Image.Exif()
        exif[0x010E] = "a vase"
        image.convert(mode).save(path, **({"lossless": True, "exif": exif} if path.suffix == ".webp" else {}))

    return write


def _palette(path: Path) -> None:
    image = Image.fromarray(values(0, 1, np.uint8), "P")
    image.putpalette([*LEFT, *RIGHT])
    image.save(path, transparency=1)


def profile(gamma: float, red: tuple[float, float], green: tuple[float, float], blue: tuple[float, float]) -> bytes:
    """Return an ICC profile (version 2, matrix and gamma) of an RGB space with white D65 and the primaries (x, y)."""
    import struct

    def column(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1.0, (1 - x - y) / y])

    white, d50 = column(0.3127, 0.3290), np.array([0.9642, 1.0, 0.8249])
    primaries = np.stack([column(*red), column(*green), column(*blue)], 1)
    primaries = primaries * np.linalg.solve(primaries, white)
    # the Bradford matrix
    cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    adapt = np.linalg.inv(cone) @ np.diag((cone @ d50) / (cone @ white)) @ cone
    columns = (adapt @ primaries).T

    def xyz(three: np.ndarray) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(float(value) * 65536)) for value in three)

    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)
    text = b"text\0\0\0\0none\0\0\0\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + b"\0" * 79
    tags = {b"desc": described, b"cprt": text, b"wtpt": xyz(d50), b"rXYZ": xyz(columns[0])}
    tags |= {b"gXYZ": xyz(columns[1]), b"bXYZ": xyz(columns[2]), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    table, body = struct.pack(">I", len(tags)), b""
    for name, told in tags.items():
        content = told + b"\0" * (-len(told) % 4)
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(content))
        body += content
    size = 128 + len(table) + len(body)
    header = struct.pack(
        ">I4sI4s4s4s12s4s", size, b"\0\0\0\0", 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"\0" * 12, b"acsp"
    )
    header += b"\0" * 28 + b"".join(struct.pack(">i", round(float(value) * 65536)) for value in d50)
    return header.ljust(128, b"\0") + table + body


def in_srgb(colour: Colour, gamma: float, primaries: np.ndarray) -> Colour:
    """Convert a colour of such a space to sRGB by the formula of the standard (IEC 61966-2-1), without an ICC
    library.
    """
    to_srgb = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    linear = (to_srgb @ primaries @ (np.array(colour) / 255) ** gamma).clip(0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (round(float(value) * 255) for value in curved)
    return red, green, blue


ADOBE_RGB = profile(563 / 256, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
DISPLAY_P3 = profile(2.2, (0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
# Columns: X, Y, Z of red, green and blue, from the standards (Adobe RGB 1998; SMPTE EG 432-1).
ADOBE_XYZ = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]])
P3_XYZ = np.array([[0.48657, 0.26567, 0.19822], [0.22897, 0.69174, 0.07929], [0.00000, 0.04511, 1.04394]])


def _lab(path: Path) -> None:
    srgb = ImageCms.createProfile("sRGB")
    lab = ImageCms.profileToProfile(halves(), srgb, ImageCms.createProfile("LAB"), outputMode="LAB")
    assert lab is not None
    lab.save(path)


def _thumbnail_first(path: Path) -> None:
    halves(size=(28, 21)).save(path, save_all=True, append_images=[halves()])


def _colours_of_sixteen_bits(path: Path, left: Colour, right: Colour, shift: int) -> None:
    """Write an RGB PNG or TIFF with 16 bits per value, because Pillow can't write such a file."""
    import struct
    import zlib

    pixels = np.array(halves(left, right)).astype(np.uint16) << shift
    width, height = SIZE
    if path.suffix == ".png":
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

        def chunk(name: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

        header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
        content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
        return
    body = pixels.astype("<u2").tobytes()
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8 + len(body)), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(body)), (284, 3, 1, 1)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + b"\0\0\0\0"
    depths = struct.pack("<HHH", 16, 16, 16) + b"\0\0"
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(body) + len(depths)) + body + depths + directory)


def _sixteen(left: Colour, right: Colour, shift: int) -> Callable[[Path], None]:
    return lambda path: _colours_of_sixteen_bits(path, left, right, shift)


def _grey(left: int, right: int, **how: object) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(values(left, right)).save(path, **how)


def _animation(path: Path) -> None:
    halves().save(path, save_all=True, append_images=[halves(RIGHT, LEFT)], duration=100)


def _mpo(path: Path) -> None:
    halves().save(path, "MPO", save_all=True, append_images=[halves(RIGHT, LEFT)], quality=100, subsampling=0)


def _saved(image: Callable[[], Image.Image], **how: object) -> Callable[[Path], None]:
    return lambda path: image().save(path, **how)


JPEG = {"quality": 100, "subsampling": 0}
KINDS = (
    Kind("plain.jpg", _saved(halves, **JPEG), tolerance=2),
    Kind("portrait.jpg", _portrait, tolerance=2),
    Kind(
        "srgb.jpg",
        _saved(halves, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), **JPEG),
        tolerance=2,
    ),
    Kind("sixteen.png", _grey(200 * 257, 50 * 257), GREY_LEFT, GREY_RIGHT),
    Kind("sixteen.tif", _grey(200 * 257, 50 * 257), GREY_LEFT, GREY_RIGHT),
    Kind("fourteen.tif", _grey(200 << 6, 50 << 6), GREY_LEFT, GREY_RIGHT),
    Kind("twelve.tif", _grey(200 << 4, 50 << 4), GREY_LEFT, GREY_RIGHT),
    Kind("twelve_but_dark.tif", _grey(60 << 4, 50 << 4, tiffinfo={281: 4095}), (60, 60, 60), GREY_RIGHT),
    Kind("eight_in_sixteen.png", _grey(200, 50), GREY_LEFT, GREY_RIGHT),
    Kind("white_is_zero.tif", _grey(55 * 257, 205 * 257, tiffinfo={262: 0}), GREY_LEFT, GREY_RIGHT),
    Kind(
        "bilevel_white_is_zero.tif",
        _saved(lambda: halves((255,) * 3, (0,) * 3).convert("1"), tiffinfo={262: 0}),
        (255,) * 3,
        (0,) * 3,
    ),
    Kind("grey_alpha.png", _transparent("LA"), GREY_LEFT, (255, 255, 255)),
    Kind("palette.png", _palette, LEFT, (255, 255, 255)),
    Kind("rgba.png", _transparent("RGBA"), GREY_LEFT, (255, 255, 255)),
    Kind("alpha_and_exif.webp", _transparent("RGBA"), GREY_LEFT, (255, 255, 255)),
    Kind("cmyk.jpg", _saved(lambda: halves().convert("CMYK"), **JPEG), tolerance=3),
    Kind("lab.tif", _lab, tolerance=3),
    Kind(
        "adobe_rgb.jpg",
        _saved(halves, icc_profile=ADOBE_RGB, **JPEG),
        *(in_srgb(colour, 563 / 256, ADOBE_XYZ) for colour in (LEFT, RIGHT)),
        4,
    ),
    Kind(
        "display_p3.png",
        _saved(halves, icc_profile=DISPLAY_P3),
        *(in_srgb(colour, 2.2, P3_XYZ) for colour in (LEFT, RIGHT)),
        4,
    ),
    Kind("thumbnail_first.tif", _thumbnail_first),
    Kind(
        "float.tif",
        _saved(lambda: Image.fromarray(values(200, 50, np.float32) / np.float32(255))),
        GREY_LEFT,
        GREY_RIGHT,
    ),
    Kind("animation.gif", _animation, tolerance=1),
    Kind("stereo.mpo", _mpo, tolerance=2),
    Kind("colours16.png", _sixteen(LEFT, RIGHT, 8)),
    Kind("colours16.tif", _sixteen(LEFT, RIGHT, 8)),
    Kind("colours12.tif", _sixteen(LEFT, RIGHT, 4)),
    Kind("colours12.png", _sixteen(LEFT, RIGHT, 4)),
    Kind("browser.jfif", lambda path: halves().save(path, "JPEG", **JPEG), tolerance=2),
    Kind("old.jpe", lambda path: halves().save(path, "JPEG", **JPEG), tolerance=2),
    Kind("scan.jp2", _saved(halves)),
    Kind("web.avif", _saved(halves, quality=100), tolerance=4),
)
