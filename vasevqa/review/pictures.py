"""The photographs as JPEGs for the page: upright, in sRGB, without metadata. The decoder is that of all steps."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from vasevqa.curation.images import open_image
from vasevqa.review.photographs import Photograph

LARGE, SMALL = 1600, 320  # pixels of the longer side
QUALITY = {LARGE: 90, SMALL: 80}  # of the JPEG
_DECODERS = 2  # pictures that are decoded at once, since a large scan takes a gigabyte


class PictureSource(Protocol):
    """Where the pictures of photographs come from. Both methods take a photograph's number and return a JPEG.

    They raise Unreadable if the photograph can't be decoded, and VaseError if its picture can't be had now.
    """

    def large(self, index: int, /) -> bytes:
        """Return a picture of at most LARGE pixels."""

    def small(self, index: int, /) -> bytes:
        """Return a picture of at most SMALL pixels."""


def encoded(path: Path, side: int) -> bytes:
    """Return a photograph as JPEG of at most `side` pixels. Raise Unreadable if it can't be decoded."""
    image = open_image(path, side)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY[side])
    return buffer.getvalue()


class Pictures:
    """Encodes photographs on demand. The latest are kept, because the page asks for the next one ahead."""

    def __init__(self, photographs: Sequence[Photograph]) -> None:
        self._photographs = photographs
        self._free = threading.Semaphore(_DECODERS)
        self.large = functools.lru_cache(24)(functools.partial(self._encoded, LARGE))
        self.small = functools.lru_cache(500)(functools.partial(self._encoded, SMALL))

    def _encoded(self, side: int, index: int) -> bytes:
        with self._free:
            return encoded(self._photographs[index].path, side)
