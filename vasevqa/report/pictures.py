"""Embed small pictures in the report, so that the report is a single file."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

SIDE = 112  # pixels, the longer side
KEPT = 512  # pictures that are shown twice are decoded once
MOST = 60  # pictures of one kind
SEED = 0
Item = TypeVar("Item")


@dataclass(frozen=True)
class Picture:
    """A picture with its name and a caption. `uri` holds the picture; it is None if there is no readable picture."""

    name: str
    caption: str
    uri: str | None
    accepted: bool = True


@lru_cache(maxsize=KEPT)
def thumbnail(path: Path) -> str | None:
    """Return the image as a data URI: a JPEG of at most SIDE pixels per side. None if the image can't be read."""
    from vasevqa.curation.images import Unreadable, open_image

    try:
        small = open_image(path, SIDE)
    except Unreadable:
        return None
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def chosen(items: Sequence[Item], distance: Callable[[Item], float], most: int = MOST) -> list[Item]:
    """Return at most `most` items, those with the smallest distance first.

    If there are more, half of the result are the nearest items, and the other half is a seeded sample of the rest.
    """
    by_distance = sorted(items, key=distance)
    if len(by_distance) <= most:
        return by_distance
    near, rest = by_distance[: most // 2], by_distance[most // 2 :]
    return near + sorted(random.Random(SEED).sample(rest, most - len(near)), key=distance)
