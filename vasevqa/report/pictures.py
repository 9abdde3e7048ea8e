"""Embed small pictures in the report, so that the report is a single file."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vasevqa import files
from vasevqa.artifacts.known import KnownValues, content_digests, recorded_digests

SIDE = 240  # longer side in pixels; the page shows the pictures at half this size, for sharp screens
QUALITY = 75
MADE_FOR = {"stage": "report", "version": 1, "side": SIDE, "quality": QUALITY}  # identifies the stored thumbnails
MOST = 60  # maximum number of pictures of one kind
SEED = 0
Item = TypeVar("Item")


@dataclass(frozen=True)
class Picture:
    """A picture with its name and a caption. `uri` holds the picture; `uri` is None if the picture can't be read."""

    name: str
    caption: str
    uri: str | None
    accepted: bool = True
    card: Card | None = None
    order: float | None = None  # the number by which a reader can sort the pictures


@dataclass(frozen=True)
class Card:
    """Details that a reader can open below a picture: sentences, and the most similar photographs."""

    lines: tuple[str, ...]
    nearest: tuple[Picture, ...] = ()


class Thumbnails:
    """Small copies of photographs as data URIs: JPEGs of at most SIDE pixels per side.

    With a `volume`, the thumbnails are stored there by the photograph's digest, so that a later report decodes only new
    photographs. Without a volume, the thumbnails are kept only in memory.
    """

    def __init__(self, volume: Path | None = None) -> None:
        self._volume = volume
        self._store = None if volume is None else KnownValues(volume, MADE_FOR)
        self._uris: dict[Path, str | None] = {}
        self._recorded: dict[Path, dict[str, str]] = {}  # artifact -> relative path -> digest
        self._new: dict[str, bytes] = {}

    def of(self, path: Path) -> str | None:
        """Return the thumbnail of the image at `path`; None if the image can't be read."""
        if path not in self._uris:
            content = self._jpeg(path) if files.exists(path) else None
            self._uris[path] = None if content is None else _uri(content)
        return self._uris[path]

    def keep(self) -> None:
        """Store the thumbnails that are new."""
        if self._store is not None and self._new:
            self._store.add(self._new)
            self._new = {}

    def _jpeg(self, path: Path) -> bytes | None:
        digest = self._digest(path)
        known = None if digest is None or self._store is None else self._store.find([digest]).get(digest)
        content = known or self._new.get(digest or "") or _drawn(path)
        if digest is not None and content is not None and known is None:
            self._new[digest] = content
        return content

    def _digest(self, path: Path) -> str | None:
        if self._volume is None:
            return None
        artifact = files.immutable_root(path)
        if artifact is None:
            return content_digests(self._volume, path.parent, [path.name]).get(path.name)
        if artifact not in self._recorded:
            self._recorded[artifact] = recorded_digests(artifact)
        return self._recorded[artifact].get(path.resolve().relative_to(artifact).as_posix())


def _drawn(path: Path) -> bytes | None:
    """Decode an image, and return its thumbnail as JPEG; None if the image can't be read."""
    from vasevqa.curation.images import Unreadable, open_image

    try:
        small = open_image(path, SIDE)
    except Unreadable:
        return None
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _uri(content: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def chosen(items: Sequence[Item], distance: Callable[[Item], float], most: int = MOST) -> list[Item]:
    """Return at most `most` items. The items with the smallest distance come first.

    If there are more than `most` items, half of the result are the items with the smallest distances. The other half is
    a random sample of the remaining items, with a fixed seed.
    """
    by_distance = sorted(items, key=distance)
    if len(by_distance) <= most:
        return by_distance
    near, rest = by_distance[: most // 2], by_distance[most // 2 :]
    return near + sorted(random.Random(SEED).sample(rest, most - len(near)), key=distance)
