"""Photographs: find them, decode them whatever their mode, and set aside what can't be decoded, with the reason."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, MpoImagePlugin, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
# What content may be, whatever the name says. A closed list: PIL knows formats that start other programs (EPS).
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")  # a JPEG may turn out to be MPO
MAX_PIXELS = 178_956_970  # PIL's own limit for an error, 2 x MAX_IMAGE_PIXELS; enough for a 13,000 x 13,000 scan

# PIL registers its readers on first use, which two threads must not do at once.
Image.preinit()
_READERS = (MpoImagePlugin, TiffImagePlugin, WebPImagePlugin)

# PIL warns from half of that on; the check below decides instead, the same in every thread.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class ImageFile:
    """A file that by its name is an image. `name` is its POSIX path relative to the folder searched.

    `problem` says why it must not be opened (a link out of the volume, a name that can't be written down), or is empty.
    """

    path: Path
    name: str
    problem: str = ""


@dataclass(frozen=True)
class Quarantined:
    """A file that was set aside: never scored, never counted as rejected, never chosen."""

    name: str
    path: Path
    reason: str


class Unreadable(Exception):
    """The file holds no image that can be decoded; `reason` says why, in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def default_boundary(folder: Path) -> Path:
    """Where symbolic links may lead: the launcher's volume if `folder` lies in it, else `folder` itself."""
    volume = os.environ.get("VASEVQA_VOLUME")
    if volume and folder.resolve().is_relative_to(Path(volume).resolve()):
        return Path(volume).resolve()
    return folder.resolve()


def find_images(folder: Path, boundary: Path | None = None) -> Iterator[ImageFile]:
    """Every image file below `folder`, streamed in an order that depends on the names only.

    Symbolic links are followed once and never out of `boundary` (default_boundary); one that leads out is yielded with
    its problem. A link to a file inside `folder` is passed over, since the file itself is found.
    """
    boundary = (boundary or default_boundary(folder)).resolve()
    root = folder.resolve()
    seen: set[tuple[int, int]] = set()
    yield from _walk(folder, "", root, boundary, seen)


def _walk(folder: Path, prefix: str, root: Path, boundary: Path, seen: set[tuple[int, int]]) -> Iterator[ImageFile]:
    identity = folder.stat()
    if (identity.st_dev, identity.st_ino) in seen:
        return
    seen.add((identity.st_dev, identity.st_ino))
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    folders = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        name, path = prefix + entry.name, Path(entry.path)
        is_image = Path(entry.name).suffix.lower() in SUFFIXES
        if entry.is_symlink():
            target = path.resolve()
            if not target.is_relative_to(boundary):
                if is_image or target.is_dir():
                    yield ImageFile(path, _printable(name), "a link that leads outside the volume")
                continue
            if target.is_dir():
                folders.append((path, name))
                continue
            if target.is_relative_to(root):
                continue
            if target.exists():
                linked = target.stat()
                if (linked.st_dev, linked.st_ino) in seen:
                    continue
                if is_image:
                    seen.add((linked.st_dev, linked.st_ino))
        elif entry.is_dir(follow_symlinks=False):
            folders.append((path, name))
            continue
        elif (identity.st_dev, entry.inode()) in seen:  # reached through a link before
            continue
        if is_image:
            problem = "" if _is_utf8(name) else "the file name is not valid UTF-8; rename the file"
            yield ImageFile(path, _printable(name), problem)
    for path, name in folders:
        yield from _walk(path, name + "/", root, boundary, seen)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(name: str) -> str:
    return name if _is_utf8(name) else name.encode("utf-8", "backslashreplace").decode()


def open_image(path: Path, cover: int | None = None) -> Image.Image:
    """The image in `path` as RGB, upright (EXIF orientation), the first frame of animations.

    With `cover`, a JPEG is decoded at the smallest DCT scale (1, 1/2, 1/4, 1/8) whose shorter side still has `cover`
    pixels. Transparency is shown on white; 16-bit and floating-point images keep their whole range. Raises Unreadable.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise Unreadable("the file vanished" if not path.is_symlink() else "a link to nothing") from None
    except OSError as error:
        raise Unreadable(f"can't be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for ever
        raise Unreadable("not a regular file")
    if status.st_size == 0:
        raise Unreadable("empty (zero bytes)")
    try:
        image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        raise Unreadable("not an image") from None
    except Image.DecompressionBombError:
        raise Unreadable(f"more than {MAX_PIXELS:,} pixels (a decompression bomb?)") from None
    except PermissionError:
        raise Unreadable("permission denied") from None
    except Exception as error:  # PIL's readers raise nearly anything on damaged content
        raise Unreadable(_short("can't be opened", error)) from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise Unreadable(f"more than {MAX_PIXELS:,} pixels (a decompression bomb?)")
        try:
            if cover is not None and image.format in ("JPEG", "MPO"):
                image.draft(None, (cover, cover))
            image.load()
            return to_rgb(_upright(image))
        except Exception as error:
            reason = "truncated" if "truncat" in str(error).lower() else _short("can't be decoded", error)
            raise Unreadable(reason) from None


def _short(what: str, error: Exception) -> str:
    text = " ".join(str(error).split())[:120]
    return f"{what}: {text or type(error).__name__}"


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF costs the orientation, not the image
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` as RGB: transparency on white, 16-bit values divided by 257, floating-point values stretched to their
    range.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _eight_bit(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    import numpy as np

    values = np.asarray(image.convert("F") if image.mode not in ("F",) else image, dtype=np.float32)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    return Image.fromarray(_to_bytes(values, low, high, sixteen_bit=image.mode.startswith("I;16")), "L")


def _to_bytes(values: Any, low: float, high: float, sixteen_bit: bool) -> Any:
    import numpy as np

    if sixteen_bit:
        scaled = values / 257.0
    elif low >= 0 and high <= 1:  # no convention says what white is beyond 16 bits: 1, 255 and 65535 are common
        scaled = values * 255.0
    elif low >= 0 and high <= 255:
        scaled = values
    elif low >= 0 and high <= 65535:
        scaled = values / 257.0
    else:
        scaled = (values - low) * (255.0 / (high - low))
    return np.clip(scaled + 0.5, 0, 255).astype(np.uint8)
