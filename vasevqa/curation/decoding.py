"""Decode photographs, in the same way for curation, training and evaluation.

A decoded image is upright, and its pixels are RGB in sRGB. It has none of the file's metadata (place, owner, serial
number).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from PIL import (
    AvifImagePlugin,
    Image,
    ImageOps,
    Jpeg2KImagePlugin,
    MpoImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
    features,
)

from vasevqa.curation import colours
from vasevqa.curation.memory import BUDGET, sparing
from vasevqa.errors import storage_error
from vasevqa.folders import FORMATS, Format
from vasevqa.storage import patiently

MAX_PIXELS = 178_956_970  # PIL's limit for an error (2 x MAX_IMAGE_PIXELS); enough for a 13,000 x 13,000 scan
_NO_MEMORY = "out of memory"  # of Pillow's decoders
PAGES = 100  # maximum number of pages of a TIFF that are read
_REDUCED, _MASK = 1, 4  # bits of TIFF's NewSubfileType
_BLOCK = 1 << 20
_TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")

# PIL registers its readers on first use. Two threads must not register readers at the same time.
Image.preinit()
_READERS = (AvifImagePlugin, Jpeg2KImagePlugin, MpoImagePlugin, TiffImagePlugin, WebPImagePlugin)

# PIL warns above half of MAX_PIXELS. The check in decode_image replaces the warning.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Unreadable(Exception):
    """The file holds no image that can be decoded. `reason` says why, in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _lacks(known: Format) -> str:
    """Return the missing package or Pillow feature that a format needs, or '' if nothing is missing."""
    if known.package and importlib.util.find_spec(known.package) is None:
        return f"the package {known.package.replace('_', '-')}"
    return f"Pillow with {known.name}" if known.feature and not features.check(known.feature) else ""


MISSING = {suffix: lack for known in FORMATS if (lack := _lacks(known)) for suffix in known.suffixes}
_NAMES = tuple(known.name for known in FORMATS if not _lacks(known))
if "HEIF" in _NAMES:
    import pi_heif  # an optional package that decodes HEIF but can't encode it

    pi_heif.register_heif_opener()


def open_image(path: Path, cover: int | None = None) -> Image.Image:
    """Return the image in `path` as RGB in sRGB, turned upright by its EXIF orientation, without metadata.

    For an animation, the first frame is returned. For a TIFF, the largest page is returned. With `cover`, a JPEG is
    decoded at the smallest of the scales 1, 1/2, 1/4 and 1/8 at which both sides have at least `cover` pixels.
    Transparent pixels are shown on white. Values of more than 8 bits are scaled to 8 bits (module colours). If the
    memory doesn't suffice, the photograph is decoded again while no other photograph is decoded. Raise Unreadable if
    the file's content can't be decoded, or if the memory doesn't suffice for the second try either. Raise
    TransientStorageError or StorageError if the storage fails.
    """
    try:
        return sparing(lambda: patiently(lambda: _read(path, lambda stream: _decoded(stream, cover)), path))
    except MemoryError:
        raise Unreadable("needs more memory than this step has") from None


def open_luminance(path: Path, decoded: Image.Image) -> Image.Image:
    """Return the luminance (mode L) of the image in `path` at full size, upright.

    `decoded` is the image that open_image returned for `path`. If `decoded` has the full size, it is converted. A JPEG
    that was decoded at a reduced scale is decoded again. Only the channel Y of its YCbCr is decoded, because this is
    faster. Raise the same errors as open_image.
    """
    try:
        return sparing(lambda: patiently(lambda: _read(path, lambda stream: _luminance(stream, decoded)), path))
    except MemoryError:
        raise Unreadable("needs more memory than this step has") from None


def _read(path: Path, decode: Callable[[IO[bytes]], Image.Image]) -> Image.Image:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise Unreadable("the file vanished" if not path.is_symlink() else "a link to nothing") from None
    except OSError as error:
        _refuse(error)
    if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for ever
        raise Unreadable("not a regular file")
    if status.st_size == 0:
        raise Unreadable("empty (zero bytes)")
    try:
        return _from_file(path, decode)
    except Unreadable:
        try:
            _read_through(path)
        except OSError as error:
            _refuse(error)
        return _from_file(path, decode)


def _from_file(path: Path, decode: Callable[[IO[bytes]], Image.Image]) -> Image.Image:
    try:
        file = _File(path)
    except OSError as error:
        _refuse(error)
    with file, io.BufferedReader(file) as stream:
        try:
            return decode(stream)
        finally:
            file.raise_failure()


def _read_through(path: Path) -> None:
    """Read a file to its end, so that an error of the storage is raised as OSError.

    libtiff reads files itself and hides such errors.
    """
    with open(path, "rb", buffering=0) as stream:
        while stream.read(_BLOCK):
            pass


def _refuse(error: OSError) -> NoReturn:
    """Raise `error` if the storage failed. Otherwise raise Unreadable with a short reason."""
    if storage_error(error, "read") is not None:
        raise error
    if isinstance(error, FileNotFoundError):
        raise Unreadable("the file vanished") from None
    raise Unreadable(f"can't be read: {error.strerror}") from None


class _File(io.FileIO):
    """A file that keeps the error of a failed read.

    Pillow may replace this error by an error of its own. The cause would then be lost.
    """

    failure: OSError | None = None

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            self.failure = error
            raise

    def raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure


def decode_image(content: bytes, cover: int | None = None) -> Image.Image:
    """Decode the bytes of a file, and return the image as open_image does. Raise Unreadable if decoding fails."""
    if not content:
        raise Unreadable("empty (zero bytes)")
    return _decoded(io.BytesIO(content), cover)


def _decoded(stream: IO[bytes], cover: int | None) -> Image.Image:
    image = _opened(stream)
    with _one_reason():
        _select_page(image)
        page = image.tell() if image.format == "TIFF" else 0
        _check_size(image)
        if cover is not None and image.format in ("JPEG", "MPO"):
            image.draft(None, (cover, cover))
        BUDGET.take(image.width * image.height)
        deep = colours.raw_mode(image)
        image.load()
        if deep and colours.is_dim(image):
            image = colours.with_low_bytes(image, _loaded_low_bytes(stream, page))
        return _in_srgb(image)


def _luminance(stream: IO[bytes], decoded: Image.Image) -> Image.Image:
    image = _opened(stream)
    if image.format not in ("JPEG", "MPO") or sorted(image.size) == sorted(decoded.size):
        return decoded.convert("L")
    with _one_reason():
        image.draft("L", None)
        BUDGET.take(image.width * image.height)
        image.load()
        return _upright(image) if image.mode == "L" else _in_srgb(image).convert("L")


@contextlib.contextmanager
def _one_reason() -> Iterator[None]:
    """Turn each error of Pillow's decoders into Unreadable with a short reason.

    If a decoder lacks memory, raise MemoryError instead.
    """
    try:
        yield
    except (Unreadable, MemoryError):
        raise
    except Exception as error:
        if _NO_MEMORY in str(error):
            raise MemoryError from None
        reason = "truncated" if "truncat" in str(error).lower() else _short("can't be decoded", error)
        raise Unreadable(reason) from None


def _opened(stream: IO[bytes]) -> Image.Image:
    try:
        return Image.open(stream, formats=_NAMES)
    except UnidentifiedImageError:
        raise Unreadable("not an image") from None
    except Image.DecompressionBombError:
        raise Unreadable(f"more than {MAX_PIXELS:,} pixels (a decompression bomb?)") from None
    except MemoryError:
        raise
    except Exception as error:  # PIL's readers raise many kinds of error on damaged content
        raise Unreadable(_short("can't be opened", error)) from None


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(f"more than {MAX_PIXELS:,} pixels (a decompression bomb?)")


def _select_page(image: Image.Image) -> None:
    """Select the largest page of a TIFF, because the first page may be a thumbnail.

    Pages that are masks are ignored. The search ends after `PAGES` pages, or earlier at a page that Pillow can't open.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    largest, best = -1, 0
    for page in range(PAGES):
        try:
            image.seek(page)
        except EOFError:
            break
        except Exception as error:  # a page that Pillow can't describe
            if page == 0 or isinstance(error, MemoryError):
                raise
            break
        area = image.width * image.height
        if area > largest and not int(image.tag_v2.get(254, 0)) & _MASK:
            largest, best = area, page
    image.seek(best)


def _loaded_low_bytes(stream: IO[bytes], page: int) -> Image.Image:
    """Decode a page of 16-bit values once more, and return the low bytes of the values.

    Pillow keeps only the high byte of each value. This function swaps the two bytes, so that Pillow keeps the low byte.
    """
    stream.seek(0)
    again = _opened(stream)
    if page:
        again.seek(page)
    return colours.low_bytes(again)


def _short(what: str, error: Exception) -> str:
    text = " ".join(str(error).split())[:120]
    return f"{what}: {text or type(error).__name__}"


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(0x0112, 1)
        return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image
    except MemoryError:
        raise
    except Exception:  # with damaged EXIF data, the image is not turned
        return image


def _in_srgb(image: Image.Image) -> Image.Image:
    """Return the loaded `image` as RGB in sRGB, upright.

    The result is a new picture without a file and without metadata.
    """
    profile: Any = image.info.get("icc_profile")
    image = _upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = colours.grey(image)
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        rgba = image.convert("RGBA")
        coloured = colours.srgb(rgba.convert("RGB"), profile).convert("RGBA")
        coloured.putalpha(rgba.getchannel("A"))
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        result = Image.alpha_composite(white, coloured).convert("RGB")
    else:
        result = colours.srgb(image, profile)
    if result is image:
        result = image.copy()  # a copy of the pixels without the open file, so that it can be pickled
    result.info.clear()
    return result
