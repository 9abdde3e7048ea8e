"""Keep pictures of a volume's photographs on this machine, by the digests of the photographs."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from vasevqa import files
from vasevqa.review.messages import Digest, Inner, Stamp
from vasevqa.review.pictures import LARGE, SMALL, encoded
from vasevqa.text import byte_size

_FILE = re.compile(r"[0-9a-f]{64}-[0-9]+\.jpg")


class _Seen(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Inner
    stamp: Stamp
    digest: Digest


def default_folder() -> Path:
    """Return the default folder for the pictures."""
    return files.expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vasevqa" / "review"


class Store:
    """Pictures in the folder `root`. The store never removes pictures; the user may remove the folder at any time.

    `volume` names the volume and the folder of the photographs, and is unique among all clusters. The store saves the
    digest of each photograph by name and stamp, so that an unchanged photograph is not fetched again. Several threads
    and processes may use a store at the same time.
    """

    def __init__(self, root: Path, volume: str) -> None:
        self.root = root
        self._index = root / "digests" / f"{hashlib.sha256(volume.encode()).hexdigest()[:20]}.jsonl"
        self._lock = threading.Lock()
        self._digests: dict[tuple[str, str], str] = {}
        if self._index.is_file():
            for line in self._index.read_bytes().splitlines():
                self._take(line)

    def digest(self, name: str, stamp: str) -> str | None:
        """Return the digest of a photograph; None if the store doesn't know it."""
        return self._digests.get((name, stamp))

    def learn(self, name: str, stamp: str, digest: str) -> None:
        """Save the digest of a photograph."""
        seen = _Seen(name=name, stamp=stamp, digest=digest)
        with self._lock:
            if self._digests.get((name, stamp)) == digest:
                return
            self._digests[name, stamp] = digest
            self._make(self._index.parent)
            with self._index.open("ab") as stream:
                stream.write(b"\n" + seen.model_dump_json().encode() + b"\n")  # the first newline ends a truncated line

    def has(self, digest: str, side: int) -> bool:
        """Return whether `get` would find a picture."""
        return self._path(digest, side).is_file() or (side == SMALL and self._path(digest, LARGE).is_file())

    def get(self, digest: str, side: int) -> bytes | None:
        """Return a picture; None if the store doesn't have it. A small picture can be made from the large one."""
        try:
            return self._path(digest, side).read_bytes()
        except FileNotFoundError:
            large = self._path(digest, LARGE)
            return encoded(large, side) if side == SMALL and large.is_file() else None

    def put(self, digest: str, side: int, content: bytes) -> None:
        """Save a picture."""
        path = self._path(digest, side)
        self._make(path.parent)
        with files.writing(path) as stream:
            stream.write(content)

    def said(self) -> str:
        """Return a sentence with the folder of the pictures, their number and their total size."""
        sizes = [path.stat().st_size for path in self.root.rglob("*.jpg") if _FILE.fullmatch(path.name)]
        return (
            f"Pictures for the next review are kept in {self.root} ({len(sizes)} files, {byte_size(sum(sizes))});"
            " you may delete this folder at any time."
        )

    def _path(self, digest: str, side: int) -> Path:
        return self.root / "pictures" / digest[:2] / f"{digest}-{side}.jpg"

    def _make(self, folder: Path) -> None:
        """Create a folder of the store. Other users of this machine can't read it."""
        if not folder.is_dir():
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _take(self, line: bytes) -> None:
        try:
            seen = _Seen.model_validate_json(line)
        except ValidationError:  # an empty line or a truncated line
            return
        self._digests[seen.name, seen.stamp] = seen.digest
