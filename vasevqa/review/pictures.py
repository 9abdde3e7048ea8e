"""The photographs as JPEGs for the page: upright, in sRGB, without metadata. The decoder is that of all steps."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Sequence

from vasevqa.curation.images import open_image
from vasevqa.review.photographs import Photograph

LARGE, SMALL = 1600, 320  # pixels of the longer side
_DECODERS = 2  # pictures that are decoded at once, since a large scan takes a gigabyte


class Pictures:
    """Encodes photographs on demand. The latest are kept, because the page asks for the next one ahead."""

    def __init__(self, photographs: Sequence[Photograph]) -> None:
        self._photographs = photographs
        self._free = threading.Semaphore(_DECODERS)
        self.large = functools.lru_cache(24)(functools.partial(self._encoded, LARGE, 90))
        self.small = functools.lru_cache(500)(functools.partial(self._encoded, SMALL, 80))

    def _encoded(self, side: int, quality: int, index: int) -> bytes:
        """Return the photograph as JPEG. Raise Unreadable if it can't be decoded."""
        with self._free:
            image = open_image(self._photographs[index].path, side)
            image.thumbnail((side, side))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()
