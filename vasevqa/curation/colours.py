"""Convert the pixel values of photographs to 8-bit sRGB.

The module handles ICC profiles, the colour spaces CMYK and LAB, and values of more than 8 bits.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

from PIL import Image, ImageChops, ImageCms

BITS = (8, 10, 12, 14, 16, 20, 24, 32)  # depths of cameras and scanners; their files have 16 or 32 bits per value
SAME = 3  # greatest change of a test colour (of 255) by a profile that is read as sRGB
_PHOTOMETRIC, _MAX_SAMPLE, _BITS_PER_SAMPLE = 262, 281, 258  # TIFF's tags
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "LAB"}


def depth(largest: int, told: int = 0) -> int:
    """Return the depth of a picture: the number of bits that each of its values has.

    `largest` is the picture's greatest value. `told` is the depth that the file's tags give (TIFF's MaxSampleValue, or
    BitsPerSample below 16), or 0. The result is the smallest depth in `BITS` that is at least `told` and that is enough
    for `largest`. `BITS` holds only a few depths, so that two pictures from one camera usually get the same depth, even
    if one picture is darker. A 16-bit picture whose values all lie in the lowest quarter of the range gets a smaller
    depth, such as 14.
    """
    need = max(told, largest.bit_length())
    return next((bits for bits in BITS if bits >= need), need)


def _told(image: Image.Image) -> int:
    """Return the bit depth in a TIFF's tags, or 0 if the tags give no depth."""
    tags: Any = getattr(image, "tag_v2", {})
    greatest, stored = tags.get(_MAX_SAMPLE, 0), tags.get(_BITS_PER_SAMPLE, (16,))
    greatest = greatest[0] if isinstance(greatest, tuple) else greatest
    if isinstance(greatest, int) and greatest > 255:
        return greatest.bit_length()
    return int(stored[0]) if 8 < int(stored[0]) < 16 else 0


def grey(image: Image.Image) -> Image.Image:
    """Convert a picture of 16-bit, 32-bit or floating-point values to 8-bit grey.

    Integers are divided by 2 to the power of (`depth` - 8). For floating-point values, there is no convention for
    white. White is therefore 1, 255 or 65535: the smallest of these numbers that no value exceeds. If a picture has
    negative values, or floating-point values greater than 65535, its values are stretched so that they fill the range
    from black to white.
    """
    if image.mode == "F":
        return _float(image)
    told, inverted = _told(image), getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
    values = image.convert("I")
    low, high = (int(value) for value in values.getextrema())  # type: ignore[arg-type, union-attr]
    if low < 0:
        return _float(values.convert("F"))
    bits = depth(high, told)
    scaled = values.point(lambda value: value * (1 / (1 << (bits - 8)))).convert("L")
    scaled = ImageChops.invert(scaled) if inverted else scaled
    return _without_key(scaled, values, scaled.info.pop("transparency", image.info.get("transparency")))


def _without_key(scaled: Image.Image, values: Image.Image, key: Any) -> Image.Image:
    """Return `scaled` with an alpha channel that hides the pixels whose value in `values` is `key`.

    `key` is the transparent grey of a PNG (tRNS). Without a `key`, return `scaled` unchanged.
    """
    import numpy as np

    if not isinstance(key, int):
        return scaled
    alpha = np.where(np.asarray(values) == key, 0, 255).astype(np.uint8)
    return Image.merge("LA", (scaled, Image.fromarray(alpha)))


def _float(image: Image.Image) -> Image.Image:
    import numpy as np

    values = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    if low >= 0 and high <= 1:
        values = values * 255.0
    elif low >= 0 and high <= 65535:
        values = values if high <= 255 else values / 257.0
    else:
        values = (values - low) * (255.0 / (high - low))
    return Image.fromarray(np.clip(values + 0.5, 0, 255).astype(np.uint8), "L")


def raw_mode(image: Image.Image) -> str:
    """Return the layout of 16-bit values in an undecoded picture ('RGB;16B', 'LA;16B', ...).

    Return '' for a picture without 16-bit colours.
    """
    if image.mode not in ("RGB", "RGBA") or not getattr(image, "tile", None):
        return ""
    modes = {_raw(tile) for tile in image.tile}  # type: ignore[attr-defined]
    [mode] = modes if len(modes) == 1 else {""}
    return mode if mode[:-1] in ("RGB;16", "RGBA;16", "RGBX;16", "LA;16") else ""


def _raw(tile: Any) -> str:
    return str(tile[3] if isinstance(tile[3], str) else tile[3][0]) if tile[3] else ""


def is_dim(image: Image.Image) -> bool:
    """Return whether all values of a 16-bit picture lie in the lower half of the range.

    `image` contains the high bytes of the values. If a picture is dim, its values may have fewer than 16 bits. The low
    bytes are then needed too.
    """
    return max(high for _, high in image.convert("RGB").getextrema()) < 128  # type: ignore[misc, union-attr]


def low_bytes(image: Image.Image) -> Image.Image:
    """Decode a picture with 16-bit values, and return the low bytes of the values.

    `image` must not be decoded yet. By itself, Pillow would return only the high bytes.
    """
    grey_and_alpha = raw_mode(image).startswith("LA")
    _swap_bytes(image)
    image.load()
    return image.getchannel("G") if grey_and_alpha else image


def _swap_bytes(image: Image.Image) -> None:
    import sys

    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    tiles = []
    for codec, extents, offset, args in image.tile:  # type: ignore[attr-defined]
        raw = args if isinstance(args, str) else args[0]
        # Pillow has no swapped grey with alpha. Read as RGBA, its bytes are: grey, low grey, alpha, low alpha.
        swapped = "RGBA" if raw.startswith("LA") else raw[:-1] + other[raw[-1]]
        tiles.append((codec, extents, offset, swapped if isinstance(args, str) else (swapped, *args[1:])))
    from PIL.ImageFile import _Tile

    image.tile = [_Tile(*tile) for tile in tiles]  # type: ignore[attr-defined]


def with_low_bytes(image: Image.Image, low: Image.Image) -> Image.Image:
    """Combine the high bytes in `image` with the low bytes in `low`, and return the values scaled to 8 bits.

    The scale depends on the depth of the values (see `depth`).
    """
    highs, lows = image.convert("RGB").split(), low.convert("RGB").split()
    top = max(int(band.getextrema()[1]) for band in highs)  # type: ignore[arg-type]
    largest = top << 8 if top else max(int(band.getextrema()[1]) for band in lows)  # type: ignore[arg-type]
    bits = depth(largest, _told(image))
    if bits >= 16:
        return image
    upper = [min(255, value << (16 - bits)) for value in range(256)]
    lower = [value >> (bits - 8) for value in range(256)]
    bands = [ImageChops.add(one.point(upper), two.point(lower)) for one, two in zip(highs, lows, strict=True)]
    if image.mode == "RGBA":
        bands.append(image.getchannel("A"))
    scaled = Image.merge(image.mode, bands)
    scaled.info = dict(image.info)
    return scaled


def srgb(image: Image.Image, profile: Any) -> Image.Image:
    """Return `image` (mode L, P, RGB, CMYK, LAB, 1, YCbCr or HSV) as RGB in sRGB.

    `profile` is the ICC profile in the file. It is used if it fits the mode. Without a profile, CMYK is converted by
    Pillow's rule, and LAB values are read with the white point D50.
    """
    if image.mode in ("P", "1", "YCbCr", "HSV"):
        image = image.convert("RGB" if image.mode != "1" else "L")
    transform = _transform(bytes(profile), image.mode) if profile and image.mode in _SPACES else None
    if transform is None and image.mode == "LAB":
        transform = _lab()
    if transform is not None:
        return ImageCms.applyTransform(image, transform) or image
    return image if image.mode == "RGB" else image.convert("RGB")


def _build(source: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB, or None if no transform is possible or needed.

    The result is None if the profile is sRGB, is damaged, or is for a different mode. Cameras embed many versions of
    sRGB. A profile is therefore recognized as sRGB by its effect on colours, not by its name.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES[mode].ljust(3).strip():
            return None
        transform = _build(source, mode)
        if mode not in ("RGB", "L"):
            return transform
        probe = Image.new(mode, (125, 1))
        levels = (0, 64, 128, 191, 255)
        probe.putdata(
            [(r, g, b) for r in levels for g in levels for b in levels] if mode == "RGB" else range(0, 250, 2)
        )
        moved = ImageChops.difference(probe.convert("RGB"), ImageCms.applyTransform(probe, transform) or probe)
        return transform if max(high for _, high in moved.getextrema()) > SAME else None  # type: ignore[misc, union-attr]
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


@lru_cache(maxsize=1)
def _lab() -> ImageCms.ImageCmsTransform:
    return _build(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")
