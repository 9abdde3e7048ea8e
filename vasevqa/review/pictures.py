"""Encode photographs as JPEGs for the page: upright, in sRGB, without metadata. Curation uses the same decoder."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from vasevqa.curation.images import open_image
from vasevqa.review.photographs import Photograph

LARGE, SMALL = 1600, 320  # maximum length of the longer side in pixels
QUALITY = {LARGE: 90, SMALL: 80}  # quality of the JPEG by longer side
_DECODERS = 2  # pictures that are decoded at the same time; a large scan takes a gigabyte of memory


class PictureSource(Protocol):
    """The source of the page's pictures. Both methods take the number of a photograph and return a JPEG.

    They raise Unreadable if the photograph can't be decoded, and VaseError if the picture isn't available at the
    moment.
    """

    def large(self, index: int, /) -> bytes:
        """Return a picture whose longer side has at most LARGE pixels."""

    def small(self, index: int, /) -> bytes:
        """Return a picture whose longer side has at most SMALL pixels."""


def encoded(path: Path, side: int) -> bytes:
    """Return a photograph as JPEG. The longer side has at most `side` pixels.

    Raise Unreadable if the photograph can't be decoded.
    """
    image = open_image(path, side)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY[side])
    return buffer.getvalue()


class Pictures:
    """Encodes photographs on request. The latest pictures are cached, because the page requests the next one early."""

    def __init__(self, photographs: Sequence[Photograph]) -> None:
        self._photographs = photographs
        self._free = threading.Semaphore(_DECODERS)
        self.large = functools.lru_cache(24)(functools.partial(self._encoded, LARGE))
        self.small = functools.lru_cache(500)(functools.partial(self._encoded, SMALL))

    def _encoded(self, side: int, index: int) -> bytes:
        with self._free:
            return encoded(self._photographs[index].path, side)
