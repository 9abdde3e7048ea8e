"""Store image embeddings on disk.

The embeddings are written in parts while the model computes them. A resumed run therefore reuses the embeddings of all
written parts. At the end, the parts are merged into one file. The data checks of a photograph (curation.checks) may be
stored with its embedding.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from vasevqa.curation.images import ImageFile
from vasevqa.storage import refuse_failed

FILE = "embeddings.safetensors"
PARTS = "embeddings.parts"
PART_SIZE = 256  # images per part; after a kill, about this many are embedded again

Writer = Callable[[str], AbstractContextManager[IO[Any]]]


def stamp(path: Path) -> str:
    """Return a text with a file's size and modification time. If the text differs later, the file has changed."""
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


@dataclass(frozen=True)
class Row:
    """The stored data of an image: its stamp (see `stamp`), its feature vector (D), and its data checks as bytes."""

    stamp: str
    feature: Tensor
    checks: bytes = b""


def save(writing: Writer, name: str, names: list[str], rows: list[Row], header: dict[str, str]) -> None:
    """Write the names and the rows of images. `header` describes the model and the settings that produced the rows."""
    from safetensors.torch import save as to_bytes

    metadata = {**header, "names": json.dumps(names), "stamps": json.dumps([row.stamp for row in rows])}
    tensors = {"features": torch.stack([row.feature for row in rows]).contiguous()}
    if any(row.checks for row in rows):
        joined = bytearray(b"".join(row.checks for row in rows))
        tensors["checks"] = torch.frombuffer(joined, dtype=torch.uint8).reshape(len(rows), -1)
    with writing(name) as stream:
        stream.write(to_bytes(tensors, metadata))


def load(path: Path) -> tuple[list[str], list[str], Tensor, dict[str, str], list[bytes]] | None:
    """Return names, stamps, features (N, D), header and checks from a file that `save` wrote.

    If the file has no data checks, the list of checks contains b"" for each name. Return None if the file is missing or
    damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as stored:
            metadata = dict(stored.metadata() or {})
            features: Tensor = stored.get_tensor("features")
            checks = [b""] * len(features)
            if "checks" in stored.keys():  # noqa: SIM118 (not a mapping)
                checks = [row.numpy().tobytes() for row in stored.get_tensor("checks")]
        names, stamps = json.loads(metadata.pop("names")), json.loads(metadata.pop("stamps"))
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        refuse_failed(error, path)
        return None
    whole = len(names) == len(stamps) == len(features) == len(checks)
    return (names, stamps, features, metadata, checks) if whole else None


class EmbeddingStore:
    """Embeddings by image name: new embeddings, and embeddings that an earlier attempt left on disk.

    `header` describes the model and the settings. `checks_size` is the number of bytes of each image's data checks, or
    0 without checks. Embeddings on disk are used only if they were stored with the same `header` and `checks_size`.
    """

    def __init__(self, root: Path | None, writing: Writer | None, header: dict[str, str], checks_size: int = 0) -> None:
        self._root = root
        self._writing = writing
        self._header = header
        self._checks_size = checks_size
        self._rows: dict[str, Row] = {}
        self._fresh: list[str] = []
        self._number = 0
        for names, rows in self._stored():
            self._rows.update(zip(names, rows, strict=True))

    def _stored(self) -> Iterator[tuple[list[str], list[Row]]]:
        if self._root is None:
            return
        for path in [self._root / FILE, *sorted((self._root / PARTS).glob("*.safetensors"))]:
            part = load(path)
            if path.name != FILE:
                self._number = max(self._number, int(path.stem) + 1)
            if part is not None and part[3] == self._header and all(len(one) == self._checks_size for one in part[4]):
                yield part[0], [Row(*row) for row in zip(part[1], part[2], part[4], strict=True)]

    def __contains__(self, item: ImageFile) -> bool:
        """Return whether the store has an embedding of `item` that was made from the file's present content."""
        with contextlib.suppress(OSError):
            return item.name in self._rows and self._rows[item.name].stamp == stamp(item.path)
        return False

    def add(self, names: list[str], paths: list[Path], features: Tensor, checks: list[bytes]) -> None:
        """Add a batch of features (B, D).

        If at least `PART_SIZE` embeddings are then not on disk yet, write them to a new part file.
        """
        for name, path, row, one in zip(names, paths, features, checks, strict=True):
            try:
                self._rows[name] = Row(stamp(path), row, one)
            except FileNotFoundError:  # the attempt that wrote the part has removed it
                self._rows[name] = Row("", row, one)
        self._fresh += names
        if len(self._fresh) >= PART_SIZE:
            self.flush()

    def recall(self, name: str, path: Path, value: bytes) -> None:
        """Add the embedding and the data checks that another run computed for the same picture.

        `value` contains both, in the format of `as_bytes`.
        """
        checks, feature = value[: self._checks_size], value[self._checks_size :]
        with contextlib.suppress(FileNotFoundError):
            self._rows[name] = Row(stamp(path), torch.frombuffer(bytearray(feature), dtype=torch.float32), checks)

    def as_bytes(self, names: list[str]) -> dict[str, bytes]:
        """Return, for each name, the bytes of the data checks followed by the embedding's float32 values.

        An image whose data checks couldn't be measured (all bytes are zero) is omitted. Another run, which may have
        more memory, then measures this image again.
        """
        rows = {name: self._rows[name] for name in names}
        return {
            name: row.checks + row.feature.float().numpy().tobytes()
            for name, row in rows.items()
            if any(row.checks) or not self._checks_size
        }

    def checks(self, names: list[str]) -> list[bytes]:
        """Return the bytes of the data checks of `names`, in that order."""
        return [self._rows[name].checks for name in names]

    def flush(self) -> None:
        """Write a new part file with the embeddings that are not on disk yet."""
        if self._writing is None or not self._fresh:
            return
        rows = [self._rows[name] for name in self._fresh]
        save(self._writing, f"{PARTS}/{self._number:06}.safetensors", self._fresh, rows, self._header)
        self._number += 1
        self._fresh = []

    def gather(self, names: list[str]) -> Tensor:
        """Return the features (N, D) of `names`, in that order."""
        return torch.stack([self._rows[name].feature for name in names])

    def finish(self, names: list[str]) -> None:
        """Write the embeddings of `names` to one file, and remove the parts."""
        if self._writing is None or self._root is None:
            return
        save(self._writing, FILE, names, [self._rows[name] for name in names], self._header)
        for path in (self._root / PARTS).glob("*.safetensors"):
            path.unlink()
        with contextlib.suppress(OSError):
            (self._root / PARTS).rmdir()
