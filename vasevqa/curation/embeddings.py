"""Image embeddings on disk: written in parts while a model works, so that a killed run computes none twice, then as one
file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from vasevqa.curation.images import ImageFile

FILE = "embeddings.safetensors"
PARTS = "embeddings.parts"
PART_SIZE = 256  # images a part: at most so many are embedded again after a kill

Writer = Callable[[str], AbstractContextManager[IO[Any]]]


def stamp(path: Path) -> str:
    """What tells that a file is still the one that was embedded: size and modification time."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def save(
    writing: Writer, name: str, names: list[str], stamps: list[str], features: Tensor, header: dict[str, str]
) -> None:
    """Write features (N, D) with the names of their images and `header`, which says what made them."""
    from safetensors.torch import save as to_bytes

    metadata = {**header, "names": json.dumps(names), "stamps": json.dumps(stamps)}
    with writing(name) as stream:
        stream.write(to_bytes({"features": features.contiguous()}, metadata))


def load(path: Path) -> tuple[list[str], list[str], Tensor, dict[str, str]] | None:
    """Names, stamps, features (N, D) and header of a file written by `save`; None if there is none or it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as stored:
            metadata = dict(stored.metadata() or {})
            features: Tensor = stored.get_tensor("features")
        names, stamps = json.loads(metadata.pop("names")), json.loads(metadata.pop("stamps"))
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return (names, stamps, features, metadata) if len(names) == len(stamps) == len(features) else None


class EmbeddingStore:
    """Embeddings by image name, gathered from the parts that an interrupted attempt left and from what is added."""

    def __init__(self, root: Path | None, writing: Writer | None, header: dict[str, str]) -> None:
        self._root = root
        self._writing = writing
        self._header = header
        self._rows: dict[str, tuple[str, Tensor]] = {}
        self._fresh: list[str] = []
        self._number = 0
        for names, stamps, features in self._stored():
            for name, mark, row in zip(names, stamps, features, strict=True):
                self._rows[name] = (mark, row)

    def _stored(self) -> Iterator[tuple[list[str], list[str], Tensor]]:
        if self._root is None:
            return
        for path in [self._root / FILE, *sorted((self._root / PARTS).glob("*.safetensors"))]:
            found = load(path)
            if path.name != FILE:
                self._number = max(self._number, int(path.stem) + 1)
            if found is not None and found[3] == self._header:
                yield found[:3]

    def __contains__(self, item: ImageFile) -> bool:
        """True if `item` was embedded before and hasn't changed since."""
        with contextlib.suppress(OSError):
            return item.name in self._rows and self._rows[item.name][0] == stamp(item.path)
        return False

    def add(self, names: list[str], paths: list[Path], features: Tensor) -> None:
        """Add a batch (B, D); every PART_SIZE images a part is written."""
        for name, path, row in zip(names, paths, features, strict=True):
            try:
                self._rows[name] = (stamp(path), row)
            except FileNotFoundError:  # read and then removed by its owner
                self._rows[name] = ("", row)
        self._fresh += names
        if len(self._fresh) >= PART_SIZE:
            self.flush()

    def flush(self) -> None:
        """Write what isn't on disk yet as a part."""
        if self._writing is None or not self._fresh:
            return
        stamps = [self._rows[name][0] for name in self._fresh]
        features = torch.stack([self._rows[name][1] for name in self._fresh])
        save(self._writing, f"{PARTS}/{self._number:06}.safetensors", self._fresh, stamps, features, self._header)
        self._number += 1
        self._fresh = []

    def gather(self, names: list[str]) -> Tensor:
        """The features (N, D) of `names`, in that order."""
        return torch.stack([self._rows[name][1] for name in names])

    def finish(self, names: list[str]) -> None:
        """Write one file for `names` and remove the parts."""
        if self._writing is None or self._root is None:
            return
        save(self._writing, FILE, names, [self._rows[name][0] for name in names], self.gather(names), self._header)
        for path in (self._root / PARTS).glob("*.safetensors"):
            path.unlink()
        with contextlib.suppress(OSError):
            (self._root / PARTS).rmdir()
