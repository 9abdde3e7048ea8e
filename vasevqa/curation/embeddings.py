"""Store image embeddings on disk.

The embeddings are written in parts while a model works. A resumed run therefore computes no embedding twice. At the end
the parts become one file.
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
from vasevqa.storage import refuse_failed

FILE = "embeddings.safetensors"
PARTS = "embeddings.parts"
PART_SIZE = 256  # images per part; at most this many are embedded again after a kill

Writer = Callable[[str], AbstractContextManager[IO[Any]]]


def stamp(path: Path) -> str:
    """Return a file's size and modification time, to detect whether the file changed after it was embedded."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def save(
    writing: Writer, name: str, names: list[str], stamps: list[str], features: Tensor, header: dict[str, str]
) -> None:
    """Write features (N, D) with the names of the images. `header` says which model and settings made the features."""
    from safetensors.torch import save as to_bytes

    metadata = {**header, "names": json.dumps(names), "stamps": json.dumps(stamps)}
    with writing(name) as stream:
        stream.write(to_bytes({"features": features.contiguous()}, metadata))


def load(path: Path) -> tuple[list[str], list[str], Tensor, dict[str, str]] | None:
    """Return names, stamps, features (N, D) and header from a file that `save` wrote.

    Return None if the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as stored:
            metadata = dict(stored.metadata() or {})
            features: Tensor = stored.get_tensor("features")
        names, stamps = json.loads(metadata.pop("names")), json.loads(metadata.pop("stamps"))
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        refuse_failed(error, path)
        return None
    return (names, stamps, features, metadata) if len(names) == len(stamps) == len(features) else None


class EmbeddingStore:
    """Embeddings by image name: new ones, and embeddings that an interrupted attempt left on disk."""

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
            part = load(path)
            if path.name != FILE:
                self._number = max(self._number, int(path.stem) + 1)
            if part is not None and part[3] == self._header:
                yield part[:3]

    def __contains__(self, item: ImageFile) -> bool:
        """True if `item` was embedded before and hasn't changed since."""
        with contextlib.suppress(OSError):
            return item.name in self._rows and self._rows[item.name][0] == stamp(item.path)
        return False

    def add(self, names: list[str], paths: list[Path], features: Tensor) -> None:
        """Add a batch (B, D). A part is written after every PART_SIZE images."""
        for name, path, row in zip(names, paths, features, strict=True):
            try:
                self._rows[name] = (stamp(path), row)
            except FileNotFoundError:  # the attempt that wrote the part has removed it
                self._rows[name] = ("", row)
        self._fresh += names
        if len(self._fresh) >= PART_SIZE:
            self.flush()

    def recall(self, name: str, path: Path, value: bytes) -> None:
        """Add an embedding that another run computed for the same picture. `value` comes from `as_bytes`."""
        with contextlib.suppress(FileNotFoundError):
            self._rows[name] = (stamp(path), torch.frombuffer(bytearray(value), dtype=torch.float32))

    def as_bytes(self, names: list[str]) -> dict[str, bytes]:
        """Return the embeddings of `names` as the bytes of their float32 values."""
        return {name: self._rows[name][1].float().numpy().tobytes() for name in names}

    def flush(self) -> None:
        """Write the embeddings that are not on disk yet as a part."""
        if self._writing is None or not self._fresh:
            return
        stamps = [self._rows[name][0] for name in self._fresh]
        features = torch.stack([self._rows[name][1] for name in self._fresh])
        save(self._writing, f"{PARTS}/{self._number:06}.safetensors", self._fresh, stamps, features, self._header)
        self._number += 1
        self._fresh = []

    def gather(self, names: list[str]) -> Tensor:
        """Return the features (N, D) of `names`, in that order."""
        return torch.stack([self._rows[name][1] for name in names])

    def finish(self, names: list[str]) -> None:
        """Write one file for `names`, and remove the parts."""
        if self._writing is None or self._root is None:
            return
        save(self._writing, FILE, names, [self._rows[name][0] for name in names], self.gather(names), self._header)
        for path in (self._root / PARTS).glob("*.safetensors"):
            path.unlink()
        with contextlib.suppress(OSError):
            (self._root / PARTS).rmdir()
