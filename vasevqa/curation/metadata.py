"""Remove private metadata from photographs: the place, the owner, and serial numbers.

Looters must not learn where a photograph was taken.

The pixels don't change: the module removes segments or chunks from the file, and it doesn't decode the pixels. The file
keeps its orientation and its colour profile.

Formats: JPEG (ISO/IEC 10918-1) with Exif 2.32, PNG (W3C PNG, third edition), and WebP (its RIFF container).
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vasevqa.storage import patiently

ORIENTATION, GPS, ARTIST, COPYRIGHT, EXIF_IFD = 0x0112, 0x8825, 0x013B, 0x8298, 0x8769
OWNER = {0xA430, 0xA431, 0xA435}  # the camera's owner, the serial numbers of body and lens
MAX_BYTES = 256 << 20
_APP1, _APP2, _APP13, _COMMENT, _END = 0xE1, 0xE2, 0xED, 0xFE, 0xD9
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # a marker, but not pixel data, a fill byte or a restart marker
_DAMAGED = (struct.error, IndexError, ValueError, OSError)
_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = {b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME"}


@dataclass(frozen=True)
class Metadata:
    """Whether a photograph's file holds private metadata, and the file's content without such metadata.

    `private` is True if the file holds (or may hold) the place, the owner or a serial number. `clean` is the file's
    content without private metadata. It is None if there is nothing to remove, or if the file can't be cleaned.
    """

    clean: bytes | None = None
    private: bool = False


def read(path: Path) -> Metadata:
    """Read a photograph's file once, and find its private metadata.

    Only JPEG, PNG and WebP files can be cleaned. Data after the picture in such a file (a video, or the second picture
    of an MPO file) count as private, because they may have metadata of their own. A file larger than `MAX_BYTES` is not
    read. Raise TransientStorageError or StorageError if the storage fails.
    """
    if path.stat().st_size > MAX_BYTES:
        return Metadata()
    content = patiently(path.read_bytes, path)
    if not _is_private(content):
        return Metadata()
    try:
        return Metadata(_stripped(content), private=True)
    except _DAMAGED:  # the decoder reports damaged files
        return Metadata(private=True)


def _stripped(content: bytes) -> bytes | None:
    if content.startswith(_JPEG):
        return _jpeg(content)
    if content.startswith(_PNG):
        return _png(content)
    return _webp(content) if _is_webp(content) else None


def _is_webp(content: bytes) -> bool:
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"


def _after(content: bytes) -> bytes:
    """Return the bytes that follow the picture in a JPEG, PNG or WebP file."""
    end = len(content)
    try:
        if content.startswith(_JPEG):
            *_, (_, _, end) = _segments(content)
        elif content.startswith(_PNG):
            end = len(_PNG) + sum(len(chunk) for _, chunk in _chunks(content))
        elif _is_webp(content):
            end = _webp_end(content)
    except _DAMAGED:
        return b""
    return content[end:]


def _is_private(content: bytes) -> bool:
    # Pillow reads only the first Exif block. Zeros after the picture are only padding.
    if content.count(b"Exif\0\0") > 1 or _after(content).strip(b"\0"):
        return True
    if b"http://ns.adobe.com/xap/1.0/" in content[: 1 << 20] or b"Photoshop 3.0\0" in content[: 1 << 20]:
        return True
    if b"XMP " in content[-(1 << 20) :] or b"XML:com.adobe.xmp" in content[: 1 << 20]:
        return True
    try:
        with Image.open(io.BytesIO(content)) as image:
            exif = image.getexif()
            inner = set(exif.get_ifd(EXIF_IFD)) if EXIF_IFD in exif else set()
            return bool({GPS, ARTIST, COPYRIGHT} & set(exif) or OWNER & inner)
    except MemoryError:
        raise
    except Exception:  # PIL raises many kinds of error on damaged content
        return False


def _orientation(content: bytes) -> int:
    with Image.open(io.BytesIO(content)) as image:
        value = image.getexif().get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _exif(orientation: int) -> bytes:
    """Return Exif data that holds only the orientation."""
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, ORIENTATION, 3, 1, orientation, 0, 0)


def _jpeg(content: bytes) -> bytes:
    kept = [_JPEG]
    orientation = _orientation(content)
    if orientation != 1:
        data = b"Exif\0\0" + _exif(orientation)
        kept.append(b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data)
    for marker, begin, end in _segments(content):
        # An MPF segment lists further pictures of the file. They are removed, so the segment is removed too.
        further = marker == _APP2 and content[begin + 4 : begin + 8] == b"MPF\0"
        if marker not in (_APP1, _APP13, _COMMENT) and not further:
            kept.append(content[begin:end])
    return b"".join(kept)


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, the start and the end of each segment of a JPEG's first picture.

    The start and the end are positions in `content`. Compressed pixels between two segments are yielded as a segment
    with the marker 0.
    """
    begin = 2
    while found := _MARKER.search(content, begin):
        at, marker = found.start(), content[found.start() + 1]
        if at > begin:
            yield 0, begin, at
        begin = at + 2 if marker == _END else at + 2 + int(struct.unpack_from(">H", content, at + 2)[0])
        yield marker, at, begin
        if marker == _END:
            return
    yield 0, begin, len(content)


def _png(content: bytes) -> bytes:
    kept = [_PNG]
    orientation = _orientation(content)
    for number, (name, chunk) in enumerate(_chunks(content)):
        if name not in _PNG_TEXTS:
            kept.append(chunk)
        if number == 0 and orientation != 1:
            data = _exif(orientation)
            kept.append(struct.pack(">I", len(data)) + b"eXIf" + data + struct.pack(">I", zlib.crc32(b"eXIf" + data)))
    return b"".join(kept)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_PNG)
    while at < len(content):
        end = at + 12 + int(struct.unpack_from(">I", content, at)[0])
        yield content[at + 4 : at + 8], content[at:end]
        if content[at + 4 : at + 8] == b"IEND":
            return
        at = end


def _webp_end(content: bytes) -> int:
    return 8 + int(struct.unpack_from("<I", content, 4)[0])


def _webp(content: bytes) -> bytes:
    kept, at = [], 12
    orientation = _orientation(content)
    while at < _webp_end(content):
        size = int(struct.unpack_from("<I", content, at + 4)[0])
        end = at + 8 + size + size % 2
        name = content[at : at + 4]
        if name == b"VP8X":
            flags = content[at + 8] & ~0x0C | (0x08 if orientation != 1 else 0)  # XMP and EXIF
            kept.append(content[at : at + 8] + bytes([flags]) + content[at + 9 : end])
        elif name not in (b"EXIF", b"XMP "):
            kept.append(content[at:end])
        at = end
    if orientation != 1:
        data = _exif(orientation)
        kept.append(b"EXIF" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2))
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
